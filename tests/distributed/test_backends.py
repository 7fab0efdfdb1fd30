"""Every backend on two processes over gloo, launched as a user launches it, with the shipped accelerate configs."""

import pytest

from helpers.launching import launch


@pytest.mark.parametrize("backend", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_gradients_frozen_rows_and_resume(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/worker.py", backend, tiny_model, str(tmp_path))
    assert printed.count(f"OK {backend}") == 2


@pytest.mark.parametrize("backend", ["zero3", "fsdp2"])
def test_the_same_with_lora(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/worker.py", backend, tiny_model, str(tmp_path), "lora")
    assert printed.count(f"OK {backend}") == 2
