"""Tables of completions, as many as wanted: TRL's, and beside them those that dynamic sampling threw away."""

import os
from pathlib import Path

import pandas
from pyarrow import parquet
from trl import GRPOTrainer


TRAINED, THROWN_AWAY = "completions", "thrown_away"
"""Folders in `output_dir`: what GRPOTrainer writes at each logged step, and what was generated and not trained on."""
MAGIC = b"PAR1"
REASON = "reason"
"""The column that says why a completion was thrown away."""


class CompletionTablesTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] whose tables (`log_completions`) stay within `max_logged_completions` rows, and which writes
    the completions that were generated and thrown away, with the reason.
    """

    is_pushing = False
    """Whether files of `output_dir` are being sent in the background, as [`HubMixin`] knows: then none is removed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._thrown_away: list[dict] = []  # of the newest generation
        self._rows: dict[int, int] = {}  # of the tables, by step

    def log(self, logs, start_time=None):
        trains = self.model.training
        super().log(logs, start_time)
        if not (self.log_completions and self.accelerator.is_main_process):
            return
        folder, step = Path(self.args.output_dir), self.state.global_step
        if trains and self._thrown_away:
            (folder / THROWN_AWAY).mkdir(parents=True, exist_ok=True)
            pandas.DataFrame(self._thrown_away).to_parquet(table_file(folder, THROWN_AWAY, step))
        self._rows.pop(step, None)
        self._rows |= {s: rows_of(folder, s) for s in tables(folder) if s not in self._rows}
        if self.is_pushing:  # at a later step
            return
        kept = steps_to_keep(self._rows, self.args.max_logged_completions, self.state.logging_steps)
        for gone in self._rows.keys() - kept:
            for kind in (TRAINED, THROWN_AWAY):
                table_file(folder, kind, gone).unlink(missing_ok=True)
            del self._rows[gone]


def steps_to_keep(rows: dict[int, int], most: int, every: int) -> set[int]:
    """
    The steps whose tables stay: the newest, and of the others every one, every second, every fourth, ….

    Args:
        rows (`dict[int, int]`):
            Rows of each step's tables.
        most (`int`):
            Rows that may stay. The newest step stays whatever it has.
        every (`int`):
            Steps between two tables.

    Returns:
        `set[int]`
    """
    newest, stride = max(rows, default=0), 1
    kept = set(rows)
    while len(kept) > 1 and sum(rows[step] for step in kept) > most:
        stride *= 2
        kept = {step for step in kept if step // every % stride == 0 or step == newest}
        if stride > newest:
            kept &= {newest}
    return kept


def tables(folder: str | Path, kind: str = TRAINED) -> dict[int, Path]:
    """
    The tables of a run.

    Args:
        folder (`str` or `Path`):
            Its `output_dir`.
        kind (`str`, *optional*):
            `TRAINED` or `THROWN_AWAY`.

    Returns:
        `dict[int, Path]`: By step, in order; without one that is still written, or that a kill has cut off.
    """
    files = filter(is_whole, Path(folder, kind).glob("completions_*.parquet"))
    found = {int(step): file for file in files if (step := file.stem.rpartition("_")[2]).isdecimal()}
    return dict(sorted(found.items()))


def is_whole(file: Path) -> bool:
    """Whether there is a Parquet file with its end: the format's four letters, which also are its beginning."""
    if not file.is_file() or file.stat().st_size <= 2 * len(MAGIC):
        return False
    with file.open("rb") as content:
        content.seek(-len(MAGIC), os.SEEK_END)
        return content.read() == MAGIC


def table_file(folder: Path, kind: str, step: int) -> Path:
    """The file of a step, named as GRPOTrainer names its own."""
    return folder / kind / f"completions_{step:05d}.parquet"


def rows_of(folder: Path, step: int) -> int:
    """Rows of a step's tables, without reading them."""
    files = [table_file(folder, kind, step) for kind in (TRAINED, THROWN_AWAY)]
    return sum(parquet.read_metadata(file).num_rows for file in files if is_whole(file))
