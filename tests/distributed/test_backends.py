"""Every backend on two processes over gloo, launched as a user launches it, with the shipped accelerate configs."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


def launch(backend: str, *script: str, timeout: int = 600) -> str:
    """Run a script on two processes and return what it printed."""
    accelerate = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    if backend == "ddp":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    else:
        config = ["--config_file", str(ROOT / "accelerate_configs" / f"{backend}.yaml"), "--main_process_port", "0"]
        command = accelerate + config
    done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-12000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_gradients_frozen_rows_and_resume(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/worker.py", backend, tiny_model, str(tmp_path))
    assert printed.count(f"OK {backend}") == 2


@pytest.mark.parametrize("backend", ["zero3", "fsdp2"])
def test_the_same_with_lora(backend, tiny_model, tmp_path):
    printed = launch(backend, "tests/distributed/worker.py", backend, tiny_model, str(tmp_path), "lora")
    assert printed.count(f"OK {backend}") == 2
