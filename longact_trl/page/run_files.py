"""What a run has left so far: logs, rollouts, masks over time, settings; of TRL's own runs, what their files have."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas
import torch
from pyarrow import parquet

from ..training.checkpoints import TRAINER_STATE_NAME, checkpoints, is_complete
from ..training.completion_tables import THROWN_AWAY, TRAINED, tables
from ..training.mask_file import has_masks, load_masks
from .configuration import configuration_of
from .masks_over_time import shown_checkpoints
from .rollouts import reward_columns, rewards_in


TRIES = 10
"""Of reading a run that saves often and keeps little."""


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
        thrown_away (`dict[int, pandas.DataFrame]`):
            By step, completions that dynamic sampling replaced or did not need, with a `reason`.
        masks (`dict[int, dict[str, torch.BoolTensor]]`):
            By step of a checkpoint, in order: name of a projection to its selected rows, (H, D).
        configuration (`dict[str, dict]`):
            As [`configuration_of`] returns it.
    """

    folder: Path
    log: list[dict]
    rollouts: dict[int, pandas.DataFrame]
    thrown_away: dict[int, pandas.DataFrame]
    masks: dict[int, dict[str, torch.Tensor]]
    configuration: dict[str, dict]


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
    for _ in range(TRIES - 1):
        # A run that goes on removes checkpoints and tables that were just listed, maybe the only ones.
        with suppress(FileNotFoundError, ValueError):
            return _read(Path(folder), max_rollouts)
    return _read(Path(folder), max_rollouts)


def _read(folder: Path, max_rollouts: int) -> RunFiles:
    saved = [path for path in reversed(checkpoints(folder)) if is_complete(path)]
    state = next((path / TRAINER_STATE_NAME for path in (folder, *reversed(saved)) if is_complete(path)), None)
    log = json.loads(state.read_text(encoding="utf-8"))["log_history"] if state else []
    trained, thrown_away = tables(folder), tables(folder, THROWN_AWAY)
    if not log and not trained:
        raise ValueError(
            f"{folder} has neither a checkpoint with {TRAINER_STATE_NAME} nor {TRAINED}/*.parquet: name the "
            "`output_dir` of a run, and train with `log_completions: true` for its rollouts."
        )
    rows = {step: _rows(file) + _rows(thrown_away.get(step)) for step, file in trained.items()}
    steps = spread_steps(rows, max_rollouts)
    rollouts = {step: pandas.read_parquet(trained[step]) for step in steps}
    configuration = configuration_of(folder, saved)
    logged = {entry["step"] for entry in log if "reward" in entry}
    known = list(rewards_in(log).values())
    weights = configuration["settings"].get("reward_weights")
    for step, table in rollouts.items():  # not yet in a checkpoint
        if step not in logged:
            log.append({"step": step, **_rewards_of(table, known, weights)})
    masks = {int(path.name.rpartition("-")[2]): path for path in saved if has_masks(path)}
    masks = {step: masks[step] for step in shown_checkpoints(sorted(masks))}
    return RunFiles(
        folder,
        sorted(log, key=lambda entry: entry.get("step", 0)),
        rollouts,
        {step: pandas.read_parquet(thrown_away[step]) for step in steps if step in thrown_away},
        {step: _by_head(path) for step, path in masks.items()},
        configuration,
    )


def spread_steps(rows: dict[int, int], most: int) -> list[int]:
    """
    As many steps as fit, evenly spread, the first and the last among them.

    Args:
        rows (`dict[int, int]`):
            Rows of each step, in order.
        most (`int`):
            Rows that fit. One step is taken in any case.

    Returns:
        `list[int]`
    """
    steps = list(rows)
    for keep in range(len(steps), 0, -1):
        taken = [steps[position * (len(steps) - 1) // max(keep - 1, 1)] for position in range(keep)]
        if keep == 1 or sum(rows[step] for step in taken) <= most:
            return taken
    return []


def _rows(file: Path | None) -> int:
    return parquet.read_metadata(file).num_rows if file else 0


def _rewards_of(table: pandas.DataFrame, known: list[str], weights: list[float] | None) -> dict[str, float]:
    """Means as GRPOTrainer logs them: of what a function scored, and of the weighted sums of each completion."""
    names = [name for name in reward_columns(table) if name in known or not known]
    rewards = table[names].astype(float)
    by_name = {f"rewards/{name}/mean": float(value) for name, value in rewards.mean().items()}
    sums = rewards * weights if weights and len(weights) == len(names) else rewards
    return by_name if not names else {"reward": float(sums.sum(axis=1).mean()), **by_name}


def _by_head(checkpoint: Path) -> dict[str, torch.Tensor]:
    saved = load_masks(checkpoint)
    heads = {name: magnitude.shape for name, magnitude in saved.magnitudes.items()}
    return {name: mask.view(heads.get(name, (1, -1))) for name, mask in saved.masks.items()}
