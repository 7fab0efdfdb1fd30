"""YaRN for an evaluation: a copy of the model's folder whose config.json reads further than it was trained to."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PretrainedConfig

FACTOR, ORIGINAL = "factor", "original_max_position_embeddings"
CONFIG = "config.json"


def check_yarn(yarn: dict | None) -> None:
    """`ValueError` unless `yarn` is `None` or names a factor above 1 and the original window."""
    if yarn is None:
        return
    good = isinstance(yarn, dict) and set(yarn) == {FACTOR, ORIGINAL}
    good = good and isinstance(yarn[FACTOR], int | float) and isinstance(yarn[ORIGINAL], int)
    if not good or not (1 < yarn[FACTOR] < float("inf") and yarn[ORIGINAL] > 0):
        raise ValueError(
            f"yarn={yarn!r} must name the two numbers of YaRN: write `yarn: {{{FACTOR}: 4.0, {ORIGINAL}: 32768}}` or "
            "other ones."
        )


def stretched(config: "PretrainedConfig", yarn: dict) -> "PretrainedConfig":
    """
    The configuration with YaRN (arXiv:2309.00071): `factor` times the original window.

    Args:
        config (`PretrainedConfig`):
            The model's own, which is left as it is.
        yarn (`dict`):
            `factor` and `original_max_position_embeddings`.

    Returns:
        `PretrainedConfig`: `rope_parameters` has YaRN and `max_position_embeddings` the new window, which is what
        transformers and vLLM go by.

    Raises:
        `ValueError`: If the model has scaled or no rotary positions, or reads as far already.
    """
    from ..models.reading import window_of  # loads torch, which a configuration is checked before

    content = config.to_dict()
    text = content if "rope_parameters" in content else content.get("text_config") or {}
    rope = text.get("rope_parameters") or {}
    if "rope_theta" not in rope or rope.get("rope_type", "default") != "default":
        raise ValueError(f"yarn needs a model with plain rotary positions, but its rope_parameters are {rope}.")
    window = int(yarn[FACTOR] * yarn[ORIGINAL])
    if (window_of(config) or 0) >= window:
        raise ValueError(f"yarn={yarn} gives a window of {window} tokens; the model has {window_of(config)} already.")
    text["rope_parameters"] = rope | {"rope_type": "yarn"} | yarn
    text["max_position_embeddings"] = window
    return type(config).from_dict(content)


def write_copy(source: Path, config: "PretrainedConfig", folder: Path) -> None:
    """
    A folder with links to the files of a model and a config.json of its own.

    Args:
        source (`Path`):
            The model's folder.
        config (`PretrainedConfig`):
            What to write.
        folder (`Path`):
            Where; what lies there of an earlier copy is replaced.

    Raises:
        `ValueError`: If something else lies there, such as the model itself.
    """
    files = folder.iterdir() if folder.is_dir() else ()
    if own := sorted(file.name for file in files if not file.is_symlink() and file.name != CONFIG):
        raise ValueError(
            f"The copy with YaRN would replace {folder}, which holds {own[0]}: give another `output_dir`."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and file.name != CONFIG:
            os.symlink(file.resolve(), folder / file.name)
    config.save_pretrained(folder)
