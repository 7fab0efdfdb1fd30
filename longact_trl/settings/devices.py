"""Whether this machine lacks the GPU that a run needs, told without importing torch."""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .argument_classes import assigned


OTHER_DEVICES = ("torch_npu", "torch_musa", "torch_mlu", "torch_xla", "torch_neuronx", "habana_frameworks")
"""Packages that give torch devices of which its own build knows nothing."""


def check_precision(args: Any) -> None:
    """
    Check that a run in half precision has a GPU, or has said that it goes without one.

    Args:
        args (`TrainingArguments`):
            Training arguments, or anything with its fields; `bf16` that is `None` is on, as TRL has it.

    Raises:
        `ValueError`: If there is none.
    """
    if args.fp16 and (args.use_cpu or gpu_is_missing()):
        raise ValueError("`fp16` needs a GPU. Write `fp16: false`, on a CPU with `bf16: false` as well.")
    bf16 = not args.fp16 if args.bf16 is None else args.bf16
    if bf16 and not args.use_cpu and gpu_is_missing():
        given = "is TRL's default" if args.bf16 is None else "asks for one"
        raise ValueError(
            f"This machine has no GPU that torch can use, and `bf16` {given}. Write `use_cpu: true` and `bf16: false` "
            "to train on the CPU. `longact check` checks a run here that is meant for GPUs elsewhere."
        )


def gpu_is_missing() -> bool:
    """Whether torch can find no GPU here for sure; `False` where only torch itself can tell."""
    if sys.platform != "linux" or any(map(find_spec, OTHER_DEVICES)):
        return False
    try:
        cuda, hip, xpu = (assigned("torch.version", name).value for name in ("cuda", "hip", "xpu"))
    except (LookupError, AttributeError):  # no torch, or no plain values
        return False
    if cuda:
        return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not _loads("libcuda.so.1")
    return not xpu and not (hip and Path("/dev/kfd").exists())


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
