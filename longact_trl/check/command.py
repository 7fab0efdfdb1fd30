"""What `longact check` prints, and its exit code."""

from collections.abc import Callable, Sequence

from datasets.utils.logging import disable_progress_bar
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..settings.gpus import GPUS, Gpu
from . import data, machine, settings
from .hours import hours_of, hours_table
from .launch import LaunchError
from .memory.plan import GIB, RESERVE, MemoryPlan, plan_memory
from .shown_prompts import shown_prompts
from .subject import Subject, read_subject
from .verdict import FAIL, PASS, UNKNOWN, WARN, CannotCheck, Verdict, verdict_of


CHECKS: dict[str, Callable[[Subject], str]] = {
    "batch": settings.batch,
    "versions": machine.versions,
    "sharding": settings.sharding,
    "starts from": machine.start,
    "model and λ": settings.model,
    "rope and window": settings.rope,
    "attention": settings.attention,
    "shared prompts": settings.shared_prompts,
    "rewards": data.rewards,
    "end of turn": data.turns,
    "dataset": data.dataset,
    "gold answers": data.gold_answers,
    "prompt lengths": data.prompts,
    "memory": machine.memory,
    "disk": machine.disk,
    "tracker": machine.tracker,
    "Hub": machine.hub,
    "resume": machine.resume,
}
RL_ONLY = {"shared prompts", "starts from", "rewards", "gold answers", "prompt lengths"}
COLOURS = {PASS: "green", WARN: "yellow", FAIL: "bold red", UNKNOWN: "cyan"}
BINS, BAR = 10, 40


def check(
    config: str,
    overrides: Sequence[str] = (),
    gpus: int | None = None,
    gpu_memory: float = 80.0,
    accelerate_config: str | None = None,
) -> tuple[Subject | None, list[Verdict]]:
    """
    Make every check.

    Args:
        config, overrides, gpus, gpu_memory, accelerate_config:
            As in [`~longact_trl.check.subject.read_subject`].

    Returns:
        `tuple[Subject | None, list[Verdict]]`: The run, `None` if its configuration is wrong, and the verdicts.
    """
    try:
        subject = read_subject(config, overrides, gpus, gpu_memory, accelerate_config)
    except ValueError as error:
        return None, [Verdict("sharding" if isinstance(error, LaunchError) else "configuration", FAIL, str(error))]
    chosen = {name: check for name, check in CHECKS.items() if subject.is_rl or name not in RL_ONLY}
    return subject, [verdict_of(name, lambda check=check: check(subject)) for name, check in chosen.items()]


def check_run(
    *args, gpu: Gpu = GPUS["h100"], price: float | None = None, console: Console | None = None, **kwargs
) -> int:
    """
    Check a run and print the report.

    Args:
        args, kwargs:
            As in [`check`].
        gpu (`Gpu`, *optional*):
            What it trains on, for the hours that it takes. Default an H100.
        price (`float`, *optional*):
            Of a GPU for an hour.
        console (`Console`, *optional*):
            Where to print.

    Returns:
        `int`: 1 if a check failed, else 0.
    """
    disable_progress_bar()
    console = console or Console()
    subject, verdicts = check(*args, **kwargs)
    if subject is not None:
        console.print(resolved(subject))
        lengths, window = subject.known.get("prompt_lengths"), subject.known.get("window")
        if lengths and lengths[0] and window and window[0]:
            console.print(histogram(lengths[0], window[0]))
        if lengths and lengths[0] and subject.known.get("reward_functions"):
            try:
                console.print(shown_prompts(subject))
            except (CannotCheck, ValueError):
                pass  # a gold answer is unusable, and a verdict says so
        if shape := subject.known.get("shape"):
            try:
                console.print(
                    memory_table(subject, plan_memory(shape[0], subject.placement, subject.load(), subject.gpu_bytes))
                )
            except (CannotCheck, ValueError):
                pass  # the window or the prompts are wrong, and a verdict says so
            try:
                console.print(hours_table(hours_of(subject, gpu), gpu, price))
            except CannotCheck as reason:
                console.print(Text(f"Hours: {reason}", style="italic"), soft_wrap=True)
            except ValueError:
                pass
    console.print(verdict_table(verdicts))
    counts = {status: sum(v.status == status for v in verdicts) for status in COLOURS}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return int(counts[FAIL] > 0)


def resolved(subject: Subject) -> Table:
    """The settings of YAML and command line, and what follows from them."""
    table = Table(title="Configuration, resolved", show_header=False, title_justify="left")
    for name, value in subject.settings.items():
        table.add_row(name, str(getattr(value, "value", value)))
    if subject.is_rl:
        for name in ("generation_batch_size", "steps_per_generation"):
            if name not in subject.settings:
                table.add_row(f"{name} (follows)", str(getattr(subject.args, name)))
    return table


def histogram(lengths: list[int], window: int) -> Group:
    """Bars of prompt lengths; what is over the window in red."""
    width = -(-max(lengths) // BINS)
    counts = [sum(width * i < length <= width * (i + 1) for length in lengths) for i in range(BINS)]
    lines = [Text(f"Prompt lengths in tokens ({len(lengths):,} prompts; window {window:,})", style="italic")]
    for i, count in enumerate(counts):
        bar = "█" * -(-BAR * count // max(counts))
        over = width * i >= window
        line = f"{width * i + 1:>9,} – {width * (i + 1):>7,} {bar:<{BAR}} {count:,}" + (
            " over" if over and count else ""
        )
        lines.append(Text(line, style="red" if over else ""))
    over = sum(length > window for length in lengths)
    lines.append(Text(f"{over:,} of {len(lengths):,} are longer than the window.\n"))
    return Group(*lines)


def memory_table(subject: Subject, result: MemoryPlan) -> Group:
    """What one GPU holds while it trains and while it generates."""
    load = subject.load()
    unit, name = (GIB, "GiB") if result.peak > GIB else (GIB // 1024, "MiB")
    where = "this machine" if subject.on_cpu else "one GPU"
    title = f"Memory of {where} in {name}, {load.batch} × {load.prompt + load.completion:,} tokens"
    if subject.is_rl and not subject.known.get("prompt_lengths"):
        title += ": the whole window, since prompts could not be measured"
    table = Table(title=Text(f"Training peaks in: {result.moment}", style="italic"), title_justify="left")
    table.add_column("")
    columns = ("training", "generating") if result.generation else ("training",)
    for column in columns:
        table.add_column(column, justify="right")
    names = dict.fromkeys([*result.parts, *result.generation])
    rows = {name: (result.parts.get(name, 0), result.generation.get(name, 0)) for name in names}
    if not subject.on_cpu:
        rows["reserve (assumed)"] = (RESERVE, RESERVE)
    for name, sizes in rows.items():
        if any(sizes):
            table.add_row(name, *(f"{size / unit:.1f}" if size else "–" for size in sizes[: len(columns)]))
    totals = [sum(column) for column in zip(*rows.values(), strict=True)]
    table.add_row("peak", *(f"{total / unit:.1f}" for total in totals[: len(columns)]), style="bold")
    return Group(Text(title, style="italic"), table)


def verdict_table(verdicts: list[Verdict]) -> Table:
    """One line a check."""
    table = Table(title="Checks", title_justify="left", show_lines=False)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found")
    for verdict in verdicts:
        table.add_row(verdict.check, Text(verdict.status, style=COLOURS[verdict.status]), Text(verdict.text))
    return table
