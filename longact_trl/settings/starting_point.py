"""A run that starts from what a cold start leaves: whether it is there, and if not, what to do first."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from .paths import relative
from .recipe_yaml import read_config


@dataclass(frozen=True)
class MissingColdStart:
    """
    A cold start whose model is not there.

    Args:
        base_model (`str`):
            Model that the cold start begins with, a Hub id or folder.
        message (`str`):
            What is missing, and both ways on.
    """

    base_model: str
    message: str


def missing_cold_start(model: str | None, recipe_dir: str | Path) -> MissingColdStart | None:
    """
    Find out whether a run starts from a cold start that has not been run to its end. Reads YAML and nothing else.

    Args:
        model (`str`, *optional*):
            `model_name_or_path` of the run.
        recipe_dir (`str` or `Path`):
            Folder of the recipes, where `sft_*.yaml` name their `output_dir`.

    Returns:
        `MissingColdStart` or `None`: `None` if the model is there, or is no cold start's.
    """
    if not model or Path(model, "config.json").is_file():
        return None
    for path in sorted(Path(recipe_dir).glob("sft_*.yaml")):
        config = read_config(path)
        if "output_dir" in config and Path(config["output_dir"]) == Path(model):
            return MissingColdStart(config["model_name_or_path"], _message(model, path, config["model_name_or_path"]))
    return None


def check_cold_start(model: str | None, recipe_dir: str | Path) -> None:
    """
    Stop a run whose cold start has not been run, before anything is loaded.

    Args:
        model, recipe_dir:
            As in [`missing_cold_start`].

    Raises:
        `ValueError`: If it has not been run to its end; says how to run it, and which released model to start from.
    """
    if missing := missing_cold_start(model, recipe_dir):
        raise ValueError(missing.message)


def _message(model: str, config: Path, base_model: str) -> str:
    recipe, launch = config.parent / "sft_cold_start.py", config.parents[1] / "accelerate_configs" / "zero3.yaml"
    files = ["--config_file", relative(launch), relative(recipe), "--config", config.name]
    command = shlex.join(["accelerate", "launch", *files])
    state = "has not been run"
    if any(Path(model).glob("checkpoint-*")):
        state, command = "has not come to its end", f"{command} --resume_from_checkpoint auto"
    released = base_model.removesuffix("-Base")
    return (
        f"There is no model in {model!r}: the cold start {state}. Run it: `{command}`, or start from the released "
        f"model: `--model_name_or_path {released}`."
    )
