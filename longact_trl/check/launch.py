"""What an accelerate config says about a launch: how many ranks, and where weights, gradients and states lie."""

import json
from pathlib import Path

from ..method.frozen_rows import check_deepspeed_optimizer
from ..method.gradients import check_fsdp_version
from ..settings.recipe_yaml import read_config
from .memory.workload import Placement


class LaunchError(ValueError):
    """A launch that cannot train this run."""


def read_launch(path: Path, gpus: int | None, weight_decay: float = 0.0, masked: bool = True) -> Placement:
    """
    Read an accelerate config as `accelerate launch --config_file` would.

    Args:
        path (`Path`):
            YAML file.
        gpus (`int`, *optional*):
            GPUs of all nodes together, in place of the file's `num_processes`.
        weight_decay (`float`, *optional*, defaults to `0.0`):
            The run's, for an optimizer that a DeepSpeed config brings along.
        masked (`bool`, *optional*, defaults to `True`):
            Whether rows are masked, which not every backend allows.

    Returns:
        `Placement`: Backend and ranks.

    Raises:
        `LaunchError`: If the backend cannot mask rows.
    """
    try:
        return _placement(path, gpus, weight_decay, masked)
    except ValueError as error:
        raise LaunchError(str(error)) from error


def _placement(path: Path, gpus: int | None, weight_decay: float, masked: bool) -> Placement:
    config = read_config(path)
    ranks = int(config.get("num_processes", 1)) if gpus is None else gpus
    if ranks < 1:
        raise ValueError(f"`--gpus` must be a positive number, got {gpus}.")
    kind = str(config.get("distributed_type", "NO")).upper()
    if kind == "NO":
        if ranks > 1:
            raise ValueError(
                f"{path.name} starts one process, so {ranks - 1} of {ranks} GPUs would idle. Use "
                "`--accelerate-config zero3.yaml`, or `--gpus 1`."
            )
        return Placement("single")
    if kind == "MULTI_GPU":
        return Placement("ddp", ranks)
    if kind == "FSDP":
        if masked:
            check_fsdp_version(config.get("fsdp_config", {}).get("fsdp_version", 1))
        return Placement("fsdp2", ranks)
    if kind == "DEEPSPEED":
        return _deepspeed(config.get("deepspeed_config", {}), path, ranks, weight_decay if masked else 0.0)
    raise ValueError(
        f"{path.name} asks for {kind}, where rows of W_Q and W_K cannot be masked. Write MULTI_GPU, DEEPSPEED or FSDP "
        "(version 2) as `distributed_type`: see accelerate_configs/."
    )


def _deepspeed(settings: dict, path: Path, ranks: int, weight_decay: float) -> Placement:
    zero = {"stage": settings.get("zero_stage", 2)}
    zero |= {what: {"device": settings.get(f"{what}_device")} for what in ("offload_optimizer", "offload_param")}
    if "deepspeed_config_file" in settings:
        file = Path(settings["deepspeed_config_file"])
        if not file.is_file():
            raise ValueError(f"{path.name} names `deepspeed_config_file` {str(file)!r}, which does not exist.")
        own = json.loads(file.read_text(encoding="utf-8"))
        check_deepspeed_optimizer(own, weight_decay)
        zero |= own.get("zero_optimization", {"stage": 0})
    offloaded = {what: (zero.get(what) or {}).get("device") in ("cpu", "nvme") for what in zero if what != "stage"}
    return Placement(
        f"zero{zero['stage']}", ranks, offloaded.get("offload_optimizer", False), offloaded.get("offload_param", False)
    )
