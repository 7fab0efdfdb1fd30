"""Two processes over gloo, launched as a user launches them, with the shipped accelerate configs."""

import subprocess
import sys

from .paths import ROOT


def launch(backend: str, *script: str, timeout: int = 1200, check: bool = True) -> str:
    """Run a script on two processes, or one for "single": what it printed; with `check`, it has to end well."""
    accelerate = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    if backend == "single":
        command = [sys.executable]
    elif backend == "ddp":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    else:
        config = ["--config_file", str(ROOT / "accelerate_configs" / f"{backend}.yaml"), "--main_process_port", "0"]
        command = accelerate + config
    done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    assert done.returncode == 0 or not check, (done.stdout + done.stderr)[-12000:]
    return done.stdout + done.stderr


def launch_each(backend: str, *scripts: list[str], **kwargs) -> str:
    """Several scripts, with their arguments, one after another in one launch, as tests/distributed/each.py does it."""
    parts = [part for script in scripts for part in (*script, "--")]
    return launch(backend, "tests/distributed/each.py", *parts, **kwargs)
