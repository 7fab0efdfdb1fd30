"""Which checkpoint a run continues from, and what is said of one that it cannot."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..method.strategies import STRATEGIES
from ..settings.paths import free_folder


TRAINER_STATE_NAME = "trainer_state.json"
"""As transformers calls it, which is not imported here: where a run may write is known before that."""

logger = logging.getLogger(__name__)


def newest_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """
    The newest checkpoint that can be resumed from. `LongActTrainer` lets `trainer_state.json` be written only when
    every rank has written everything else, so a folder without a readable one was cut short.

    Args:
        output_dir (`str` or `Path`):
            Directory that holds `checkpoint-N` folders, or does not exist yet.

    Returns:
        `Path` or `None`: `None` if there is no complete checkpoint.
    """
    for folder in checkpoints(output_dir):
        if is_complete(folder):
            return folder
        logger.warning(f"Skipping {folder}: it was not written to its end ({TRAINER_STATE_NAME} is missing).")
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, with `trainer_state.json` last."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return True
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def checkpoints(output_dir: str | Path) -> list[Path]:
    """
    All `checkpoint-N` folders, newest first, complete or not.

    Args:
        output_dir (`str` or `Path`):
            Directory of a run.

    Returns:
        `list[Path]`: Folders by descending step.
    """
    found = {int(p.name.rpartition("-")[2]): p for p in Path(output_dir).glob("checkpoint-[0-9]*") if p.is_dir()}
    return [found[step] for step in sorted(found, reverse=True)]


def resolve_resume(resume_from_checkpoint: str | bool | None, output_dir: str | Path) -> str | None:
    """
    Turn what a user wrote for `resume_from_checkpoint` into a checkpoint folder.

    Args:
        resume_from_checkpoint (`str`, `bool` or `None`):
            `"auto"` continues from the newest complete checkpoint, or starts if there is none; `True` insists that
            there is one; a path is that folder; `None` starts a new run.
        output_dir (`str` or `Path`):
            Directory of the run.

    Returns:
        `str` or `None`: Checkpoint folder, or `None` for a new run.

    Raises:
        `ValueError`: If there is nothing to resume from, or a new run would mix with an old one's checkpoints.
    """
    if resume_from_checkpoint == "auto":
        newest = newest_complete_checkpoint(output_dir)
        return str(newest) if newest else None
    if resume_from_checkpoint is True:
        newest = newest_complete_checkpoint(output_dir)
        if newest is None:
            raise ValueError(
                f"`resume_from_checkpoint=True`, but {output_dir} has no complete checkpoint. Write 'auto' to start "
                "where there is none."
            )
        return str(newest)
    if resume_from_checkpoint:
        if not Path(resume_from_checkpoint, TRAINER_STATE_NAME).is_file():
            raise ValueError(
                f"`resume_from_checkpoint` {str(resume_from_checkpoint)!r} is no complete checkpoint: it has no "
                f"{TRAINER_STATE_NAME}. Write 'auto' to take the newest complete one in {output_dir}."
            )
        return str(resume_from_checkpoint)
    if old := checkpoints(output_dir):
        another = f"`output_dir={str(free_folder(output_dir))!r}`"
        held = f"`output_dir` {str(output_dir)!r} holds another run's {old[0].name}"
        if steps := _steps_of_a_finished_run(old[0]):
            raise ValueError(
                f"{held}, which has come to its end after {steps} steps. For a new run write {another}; to train that "
                "one further, more steps and `resume_from_checkpoint='auto'`."
            )
        raise ValueError(f"{held}. Continue it with `resume_from_checkpoint='auto'`, or write {another}.")
    return None


def _steps_of_a_finished_run(checkpoint: Path) -> int | None:
    """How many steps the run was to take, if this checkpoint is its last; else `None`."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return state["max_steps"] if state["global_step"] >= state["max_steps"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def how_to_continue(output_dir: str | Path, step: int) -> str:
    """
    What a user whose run has stopped wants to know.

    Args:
        output_dir (`str` or `Path`):
            Directory of the run.
        step (`int`):
            Optimizer steps done.

    Returns:
        `str`: From which checkpoint the run can be continued, and how.
    """
    newest = newest_complete_checkpoint(output_dir)
    if newest is None or holds_model_only(newest):
        return f"LongAct stopped after step {step}. {output_dir} has no complete checkpoint to continue from."
    return (
        f"LongAct stopped after step {step}. {newest} is complete: once the cause above is removed, continue from it "
        "with `resume_from_checkpoint='auto'`."
    )


@contextmanager
def naming_unreadable(checkpoint: str | Path | None) -> Iterator[None]:
    """
    Say which checkpoint it is that cannot be read, which torch does not.

    Args:
        checkpoint (`str` or `Path`, *optional*):
            Checkpoint folder that is read in the body.
    """
    try:
        yield
    except ValueError:  # of this package: the checkpoint can be read and does not fit
        raise
    except Exception as error:
        error.add_note(
            f"A file in {checkpoint} is damaged, or is not what a trainer writes there. Continue from an older "
            "checkpoint: pass its folder as `resume_from_checkpoint`."
        )
        raise


def holds_model_only(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written with `save_only_model`: nobody can continue its run."""
    return not any(Path(checkpoint).glob("rng_state*.pth"))


def check_strategy(checkpoint: str | Path, strategy: str) -> None:
    """
    Check that a checkpoint's optimizer has the parameter groups that this run would make: masked projections have
    one without weight decay, which `"dense"` and a plain `GRPOTrainer` do not have.

    Args:
        checkpoint (`str` or `Path`):
            Checkpoint folder.
        strategy (`str`):
            `strategy` of this run.

    Raises:
        `ValueError`: If it has others, or none at all.
    """
    if holds_model_only(checkpoint):
        raise ValueError(
            f"{checkpoint} holds a model only (`save_only_model`), so its run cannot be continued. Start a new one "
            "from its weights: pass the folder as the model, with another `output_dir`."
        )
    from .mask_file import saved_settings

    saved = (saved_settings(checkpoint) or {"strategy": "dense"})["strategy"]
    if STRATEGIES[saved].masks != STRATEGIES[strategy].masks:
        written_by = f"a run with strategy={saved!r}" if STRATEGIES[saved].masks else "a dense run"
        raise ValueError(
            f"{checkpoint} was written by {written_by}, whose optimizer state does not fit `strategy={strategy!r}`. "
            "Start a new run from its weights: pass the folder as the model, with another `output_dir` and without "
            "`resume_from_checkpoint`."
        )


def skip_epochs(sampler: Iterable[int], checkpoint: str | Path) -> None:
    """
    Go through a shuffling sampler as often as the run that a checkpoint continues did. TRL's shuffles each epoch with
    what its random generator has become, and a new one would begin with the first epoch's order again.

    Args:
        sampler (`Iterable[int]`):
            Sampler of the training set, fresh.
        checkpoint (`str` or `Path`):
            Checkpoint folder.
    """
    state = json.loads(Path(checkpoint, TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    for _ in range(int(state["epoch"])):
        for _ in sampler:
            pass
