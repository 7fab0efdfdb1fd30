"""What `longact page` does."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..settings.whole_files import write_whole
from .content import page_of
from .run_files import read_run


MAX_ROLLOUTS = 10_000


def write_run_page(
    runs: Sequence[str], output: str | None = None, max_rollouts: int = MAX_ROLLOUTS, console: Console | None = None
) -> Path:
    """
    Write a page about one run, or several beside each other.

    Args:
        runs (`Sequence[str]`):
            Their `output_dir`s.
        output (`str`, *optional*):
            HTML file; default `page.html` in the first run's folder.
        max_rollouts (`int`, *optional*, defaults to `10000`):
            Completions in the page at most, of all runs together.
        console (`Console`, *optional*):
            Where to print.

    Returns:
        `Path`: The file.

    Raises:
        `ValueError`: If a folder holds no run.
    """
    console = console or Console()
    with console.status("Reading the runs"):
        read = [read_run(run, max_rollouts // len(runs)) for run in runs]
        file = Path(output or runs[0])
        file = file / "page.html" if file.is_dir() else file
        page = page_of(read)
        try:
            write_whole(file, page)
        except OSError as error:
            raise ValueError(f"{file} cannot be written ({error}): give another `--output`.") from error
    for run in read:
        shown = sum(map(len, [*run.rollouts.values(), *run.thrown_away.values()]))
        console.print(
            f"{run.folder}: {len(run.log)} logged steps, {shown:,} rollouts of {len(run.rollouts)} steps, masks of "
            f"{len(run.masks)} checkpoints",
            highlight=False,
        )
        if not run.rollouts:
            console.print("  no rollouts: train with `log_completions: true`", highlight=False)
    console.print(f"Open [bold]{file}[/bold]", soft_wrap=True, highlight=False)
    return file
