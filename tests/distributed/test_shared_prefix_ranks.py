"""Shared prefixes on two processes, whose packed rows differ in length."""

import pytest

from helpers.launching import launch


@pytest.mark.parametrize("backend", ["ddp", "zero2", "zero3", "fsdp2"])
def test_a_run_ends_at_the_same_weights(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/shared_prefix_worker.py", backend, tiny_model, str(tmp_path))
    assert printed.count(f"OK shared {backend}") == 2


@pytest.mark.full
@pytest.mark.parametrize("backend", ["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_gradients_over_rows_and_chunks(backend, tiny_model, tmp_path):
    """The whole grid; the rest of the suite has a covering part of it."""
    printed = launch(backend, "tests/distributed/prefix_grid_worker.py", backend, tiny_model, str(tmp_path))
    print("\n".join(line for line in printed.splitlines() if line.startswith("CELL")))
    assert printed.count("CELL") == 15 and f"OK grid {backend}" in printed
