"""What a run has left so far: logs, rollouts, masks over time, settings; of TRL's own runs, what their files have."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas
import torch

from ..training.checkpoints import TRAINER_STATE_NAME, checkpoints
from ..training.mask_file import has_masks, load_masks


COMPLETIONS = "completions"
"""Folder into which GRPOTrainer writes a table at each logged step (`log_completions`)."""
NOT_REWARDS = {"step", "prompt", "completion", "advantage", "answer", "answer_kind"}


@dataclass
class RunFiles:
    """
    Args:
        folder (`Path`):
            The run's `output_dir`.
        log (`list[dict]`):
            What was logged, one entry each `logging_steps`, up to the newest checkpoint; rewards of later steps from
            the rollouts.
        rollouts (`dict[int, pandas.DataFrame]`):
            By step: `prompt`, `completion`, a column a reward, `advantage`, and `answer` and `answer_kind` where they
            were written.
        masks (`dict[int, dict[str, torch.BoolTensor]]`):
            By step of a checkpoint: name of a projection to its selected rows, (H, D).
        settings (`dict`):
            What is known of the configuration.
    """

    folder: Path
    log: list[dict]
    rollouts: dict[int, pandas.DataFrame]
    masks: dict[int, dict[str, torch.Tensor]]
    settings: dict


def read_run(folder: str | Path, max_rollouts: int) -> RunFiles:
    """
    Read a run, finished or going on.

    Args:
        folder (`str` or `Path`):
            Its `output_dir`.
        max_rollouts (`int`):
            Completions to take at most: whole steps, evenly spread over the run.

    Returns:
        `RunFiles`

    Raises:
        `ValueError`: If there is nothing of a run in the folder.
    """
    folder = Path(folder)
    saved = sorted(checkpoints(folder), key=lambda path: int(path.name.rpartition("-")[2]))
    states = [file for path in (folder, *reversed(saved)) if (file := path / TRAINER_STATE_NAME).is_file()]
    log = json.loads(states[0].read_text(encoding="utf-8"))["log_history"] if states else []
    written = folder.glob(f"{COMPLETIONS}/completions_*.parquet")
    tables = {int(re.findall(r"\d+", file.stem)[-1]): file for file in written}
    if not log and not tables:
        raise ValueError(
            f"{folder} has neither a checkpoint with {TRAINER_STATE_NAME} nor {COMPLETIONS}/*.parquet: name the "
            "`output_dir` of a run, and train with `log_completions: true` for its rollouts."
        )
    rollouts = _read_rollouts(tables, max_rollouts)
    logged = {entry["step"] for entry in log if "reward" in entry}
    for step, table in rollouts.items():  # not yet in a checkpoint
        if step not in logged:
            log.append({"step": step, **_rewards_of(table)})
    masks = {int(path.name.rpartition("-")[2]): path for path in saved if has_masks(path)}
    return RunFiles(
        folder,
        sorted(log, key=lambda entry: entry.get("step", 0)),
        rollouts,
        {step: _by_head(path) for step, path in masks.items()},
        _settings_of(folder, saved),
    )


def _read_rollouts(tables: dict[int, Path], max_rollouts: int) -> dict[int, pandas.DataFrame]:
    steps, taken, total = sorted(tables), {}, 0
    if not steps:
        return {}
    size = len(pandas.read_parquet(tables[steps[-1]], columns=["step"]))
    keep = max(1, min(len(steps), max_rollouts // max(size, 1)))
    for position in range(keep):
        step = steps[position * (len(steps) - 1) // max(keep - 1, 1)]
        table = pandas.read_parquet(tables[step])
        total += len(table)
        if taken and total > max_rollouts:
            break
        taken[step] = table
    return taken


def reward_columns(table: pandas.DataFrame) -> list[str]:
    """The columns of a rollout table that are rewards."""
    is_numeric = pandas.api.types.is_numeric_dtype
    return [name for name in table.columns if name not in NOT_REWARDS and is_numeric(table[name])]


def _rewards_of(table: pandas.DataFrame) -> dict[str, float]:
    means = table[reward_columns(table)].mean()
    by_name = {f"rewards/{name}/mean": float(value) for name, value in means.items()}
    return {"reward": float(means.sum()), **by_name}


def _by_head(checkpoint: Path) -> dict[str, torch.Tensor]:
    saved = load_masks(checkpoint)
    heads = {name: magnitude.shape for name, magnitude in saved.magnitudes.items()}
    return {name: mask.view(heads.get(name, (1, -1))) for name, mask in saved.masks.items()}


def _settings_of(folder: Path, saved: list[Path]) -> dict:
    settings = {"folder": str(folder)}
    for path in (folder, *reversed(saved)):
        if (path / "config.json").is_file():
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
            settings |= {name: config[name] for name in names if name in config}
            break
    newest = next((path for path in reversed(saved) if has_masks(path)), None)
    if newest is not None:
        settings |= load_masks(newest).settings
    card = folder / "README.md"
    if card.is_file():
        found = re.findall(r"^- ([\w .-]+): ([\w.+-]+)$", card.read_text(encoding="utf-8"), re.MULTILINE)
        settings |= {f"version of {name}": version for name, version in found}
    return settings
