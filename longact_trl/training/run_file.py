"""What a run was made with: its configuration, the versions and the machine, beside what it leaves."""

import platform
from pathlib import Path

import torch
from transformers import PretrainedConfig

from .._version import __version__
from ..settings.installed import VLLM, installed
from ..settings.whole_files import write_json
from .config import LongActConfig


RUN_FILE = "_longact_run.json"
"""In `output_dir`. A push to the Hub leaves out what begins with _: paths of a machine are nobody else's business."""
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "deepspeed", *VLLM, "bitsandbytes")


def write_run_file(args: LongActConfig, model: PretrainedConfig, processes: int, backend: str) -> None:
    """
    Write it, when training begins. Call it on one process.

    Args:
        args (`LongActConfig`):
            Training arguments. Of tokens only their names are written.
        model (`PretrainedConfig`):
            Configuration of the model.
        processes (`int`):
            How many train together.
        backend (`str`):
            What holds them together, e.g. `"DEEPSPEED"`.
    """
    content = {
        "settings": args.to_dict(),
        "model": model.to_diff_dict(),
        "versions": versions(),
        "machine": {
            "processes": processes,
            "backend": backend,
            "device": torch.cuda.get_device_name() if args.device.type == "cuda" else str(args.device),
            "system": platform.platform(),
        },
    }
    write_json(Path(args.output_dir, RUN_FILE), content)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run depends on, as far as they are installed."""
    return {"longact-trl": __version__, "python": platform.python_version()} | installed(PACKAGES)
