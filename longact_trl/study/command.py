"""What `longact study` does and prints."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..check.verdict import CannotCheck
from ..evaluation.statistics import Interval
from ..settings.gpus import GPUS, Gpu
from ..settings.whole_files import whole_file, write_json, write_whole
from .execution import claim, commands, execute, is_finished
from .outcome import LEVEL, Arm, as_json, outcome_of, smallest_p
from .picture import draw_study
from .slurm import check_gpus, sbatch_line
from .study_file import Run, Study, read_study


OUTCOME, TABLE, PICTURE = "study.json", "study.md", "study.png"


def run_study(
    file: str,
    output_dir: str | None = None,
    devices: Sequence[str] | None = None,
    dry_run: bool = False,
    sbatch: int | None = None,
    gpu: Gpu = GPUS["h100"],
    price: float | None = None,
    console: Console | None = None,
) -> None:
    """
    Run a study to its end, or say how; then evaluate what is finished.

    Args:
        file (`str`):
            Path of a study, or a name in `studies/`.
        output_dir (`str`, *optional*):
            Folder of all runs, instead of the file's.
        devices (`Sequence[str]`, *optional*):
            Groups of GPUs of which each takes one run at a time, such as `"0,1,2,3"`. Default: one run at a time.
        dry_run (`bool`, *optional*, defaults to `False`):
            Print the commands, and what they would take, only.
        sbatch (`int`, *optional*):
            Print a line for Slurm for each unfinished run, with so many GPUs in all.
        gpu (`Gpu`, *optional*):
            What runs are on, for the hours of a dry run. Default an H100.
        price (`float`, *optional*):
            Of a GPU for an hour.
        console (`Console`, *optional*):
            Where to print.

    Raises:
        `ValueError`: If the file is no study, a folder holds other runs, or a command fails.
    """
    console = console or Console()
    study = read_study(file, output_dir)
    runs = study.runs()
    finished = [run for run in runs if is_finished(run)]  # refuses a changed arm before anything starts
    console.print(introduction(study, len(finished)), soft_wrap=True, highlight=False, markup=False)
    groups = devices or [None]
    for number in [sbatch] * bool(sbatch) + [group.count(",") + 1 for group in groups if group]:
        check_gpus(study, number)
    if dry_run or sbatch:
        todo = [run for run in runs if run not in finished]
        for run in todo:
            _print_commands(console, run, sbatch)
            if not dry_run:
                claim(run)  # Slurm writes its log there, and what it leaves is known to be this run's
        if dry_run:
            _print_hours(console, todo, gpu, price)
        elif not todo:
            write_outcome(study, console)
        return
    console.print(f"{len(runs) - len(finished)} runs to go; each writes log.txt in its folder.")
    done = len(finished)

    def report(run: Run, what: str) -> None:
        nonlocal done
        done += what == "finished"
        if what != "was finished":
            console.print(f"  {done}/{len(runs)}  {run.arm}, seed {run.seed}: {what}", highlight=False)

    execute(runs, groups, report)
    write_outcome(study, console)


def write_outcome(study: Study, console: Console) -> None:
    """Print the table, and write `study.json`, `study.md` and `study.png` beside the runs."""
    arms = outcome_of(study)
    folder = Path(study.output_dir)
    write_json(folder / OUTCOME, as_json(study, arms))
    write_whole(folder / TABLE, markdown(study, arms))
    with whole_file(folder / PICTURE) as scratch:
        draw_study(study, arms).savefig(scratch)
    console.print(table(study, arms))
    said = f"Expected: {study.expected.strip()}\nDecides:  {study.decides.strip()}"
    files = f"Table, numbers and picture: {folder}/study.{{md,json,png}}"
    console.print(f"{said}\n{files}", soft_wrap=True, highlight=False, markup=False)


def introduction(study: Study, num_finished: int) -> str:
    """What the study is, in a few lines."""
    lines = [study.title, f"expected: {study.expected.strip()}", f"decides:  {study.decides.strip()}"]
    lines += [f"{len(study.arms)} arms × {len(study.seeds)} seeds, {num_finished} runs are finished."]
    return "\n".join([*lines, *_no_p(study)])


def _no_p(study: Study) -> list[str]:
    """Says so where there are too few seeds for any p to decide."""
    differences = sum(study.against(arm) != arm for arm in study.arms)
    lowest = smallest_p(len(study.seeds), differences)
    if not differences or lowest <= LEVEL:
        return []
    enough = next(n for n in range(1, 100) if smallest_p(n, differences) <= LEVEL)
    return [
        f"With {len(study.seeds)} seed{'s' * (len(study.seeds) != 1)} no p can be below {lowest:.3g} after Holm's "
        f"adjustment for {differences} difference{'s' * (differences != 1)}, whatever comes out: intervals say "
        f"something, p from {enough} seeds on."
    ]


HEAD = ("arm", "seeds", "score", "difference", "p (Holm)", "detectable", "tokens", "minutes")
NARROW = 5
"""Columns that a terminal shows."""


def rows_of(study: Study, arms: Mapping[str, Arm]) -> list[tuple[str, ...]]:
    """The table's rows: percent and points, 95 % intervals."""
    return [
        (
            name,
            str(len(arm.seeds)),
            _with_interval(arm.score),
            "baseline" if name == study.against(name) else _difference(study, name, arm),
            "" if arm.p is None else rounded(arm.p),
            "" if arm.detectable is None else f"{100 * arm.detectable:.1f}",
            f"{arm.tokens / 1e6:.2f}M" if arm.tokens else "",
            f"{arm.seconds / 60:.1f}" if arm.seconds else "",
        )
        for name, arm in arms.items()
    ]


def table(study: Study, arms: Mapping[str, Arm]) -> Table:
    """The table, for a terminal of 80 columns: without what is in `study.md` only."""
    effects = [100 * arm.detectable for arm in arms.values() if arm.detectable is not None]
    power = f"80 % of such studies find a difference of {max(effects):.1f} points." if effects else None
    shown = Table(title=escape(study.title), title_justify="left", caption=power, caption_justify="left")
    for column in HEAD[:NARROW]:
        shown.add_column(column, justify="left" if column == "arm" else "right")
    for row in rows_of(study, arms):
        shown.add_row(*row[:NARROW])
    return shown


def markdown(study: Study, arms: Mapping[str, Arm]) -> str:
    """The table, for a file."""
    lines = [HEAD, ("---",) * len(HEAD), *rows_of(study, arms)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = (
        "Scores in %, differences in points, with 95 % intervals over seeds and questions at once. p: signs of the "
        "seeds' differences flipped, adjusted for the number of arms (Holm). detectable: the difference that a study "
        "of these seeds finds in 80 % of cases."
    )
    note = "\n\n".join([note, *_no_p(study)])
    said = f"Expected: {study.expected.strip()}\n\nDecides: {study.decides.strip()}"
    return f"# {study.title}\n\n{said}\n\n{text}\n\n{note}\n\n![scores, differences, rewards]({PICTURE})\n"


def rounded(p: float) -> str:
    """A p-value as tables have it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _difference(study: Study, name: str, arm: Arm) -> str:
    to = study.against(name)
    return _with_interval(arm.difference, "+") + (f" to {to}" if to != study.baseline and arm.difference else "")


def _with_interval(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return ""
    return f"{100 * interval.value:{sign}.1f} ({100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f})"


def _print_commands(console: Console, run: Run, sbatch: int | None) -> None:
    lines = [sbatch_line(run, sbatch)] if sbatch else [shlex.join(command) for command in commands(run)]
    console.print("\n".join([f"# {run.arm}, seed {run.seed}", *lines]), soft_wrap=True, highlight=False, markup=False)


def _print_hours(console: Console, runs: list[Run], gpu: Gpu, price: float | None) -> None:
    from .hours import hours_of_runs, hours_table  # seconds to load, for a dry run alone

    try:
        console.print(hours_table(runs, hours_of_runs(runs, gpu), gpu, price))
    except CannotCheck as reason:
        console.print(f"Hours: {reason}.", soft_wrap=True)
