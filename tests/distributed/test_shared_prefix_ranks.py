"""Shared prefixes on two processes, whose packed rows differ in length."""

import pytest

from helpers.launching import launch


@pytest.mark.parametrize("backend", ["ddp", "zero2", "zero3", "fsdp2"])
def test_a_run_ends_at_the_same_weights(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/shared_prefix_worker.py", backend, tiny_model, str(tmp_path))
    assert printed.count(f"OK shared {backend}") == 2
