"""From a run's files to one HTML file, whose bulk is in parts that are unpacked when somebody looks at them."""

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from ..training.parts import PARTS, REST
from .masks_over_time import projections_of
from .rollouts import groups_of, is_number, rewards_in
from .run_files import RunFiles


TEMPLATES = Path(__file__).parents[1] / "assets" / "run"
SCRIPTS = ("base.js", "curves.js", "parts.js", "rollouts.js", "masks.js", "main.js")
CURVES = (
    ("reward", "Reward"),
    ("rewards/answer_reward/mean", "Answer right"),
    ("rewards/format_reward/mean", "Format right"),
    ("completions/mean_length", "Tokens of a completion"),
    ("entropy", "Entropy"),
    ("frac_reward_zero_std", "Groups without advantage"),
    ("longact/frac_groups_degenerate", "Groups replaced by dynamic sampling"),
    ("longact/groups_degenerate_left", "Groups that could not be replaced"),
    ("longact/mask_churn", "Mask churn"),
    ("longact/energy_share", "Energy in selected rows"),
    ("longact/density_q", "Density of W_Q"),
    ("longact/grad_norm_selected_share", "Gradient in selected rows"),
    ("grad_norm", "Gradient norm"),
    ("loss", "Loss"),
    ("step_time", "Seconds a step"),
    ("longact/refresh_seconds", "Seconds of a mask refresh"),
    ("num_tokens", "Tokens so far"),
    ("learning_rate", "Learning rate"),
)
"""Logged quantities, in the order in which a reader asks for them."""
NUM_REWARDS = 3


def page_of(runs: list[RunFiles]) -> str:
    """
    One HTML file about runs, which needs neither a server nor a network.

    Args:
        runs (`list[RunFiles]`):
            One run, or several to be laid over each other.

    Returns:
        `str`
    """
    parts: list[str] = []
    names, curves = names_of([run.folder for run in runs]), curves_of(runs)
    described = [_run(i, name, run, parts, curves) for i, (name, run) in enumerate(zip(names, runs, strict=True))]
    content = json.dumps({"curves": curves, "parts": [*PARTS, REST], "runs": described})
    content = content.replace("<", "\\u003c")  # neither `</script>` nor `<!--` means anything then
    page = _read("page.html").replace("__STYLE__", _read("style.css"))
    page = page.replace("__SCRIPT__", "\n".join(map(_read, SCRIPTS)))
    return page.replace("__PARTS__", "\n".join(parts)).replace("__DATA__", content)


def curves_of(runs: Sequence[RunFiles]) -> list[tuple[str, str]]:
    """[`CURVES`], and after those of this package's rewards the mean of each other one."""
    logged = rewards_in(entry for run in runs for entry in run.log)
    more = [(name, function) for name, function in logged.items() if name not in dict(CURVES)]
    return [*CURVES[:NUM_REWARDS], *more, *CURVES[NUM_REWARDS:]]


def names_of(folders: Sequence[Path]) -> list[str]:
    """
    What tells the paths apart, without what all begin or end with: each run of a study lies in a folder `model`.

    Args:
        folders (`Sequence[Path]`):
            Folders of runs.

    Returns:
        `list[str]`
    """
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) == 1:
        return [paths[0][-1]] * len(paths)
    begin, end = (_shared_at_the_beginning(some) for some in (paths, [path[::-1] for path in paths]))
    names = ["/".join(path[begin : len(path) - end]) for path in paths]
    return names if all(names) else list(map(str, folders))


def _shared_at_the_beginning(paths: Sequence[Sequence[str]]) -> int:
    return next((i for i, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1), min(map(len, paths)))


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _run(number: int, name: str, run: RunFiles, parts: list[str], curves: list[tuple[str, str]]) -> dict:
    steps = {}
    for step, table in run.rollouts.items():
        thrown_away = run.thrown_away.get(step)
        content = {"groups": groups_of(table), "thrown": [] if thrown_away is None else groups_of(thrown_away)}
        steps[step] = [len(table), 0 if thrown_away is None else len(thrown_away)]
        parts.append(_part(f"rollouts-{number}-{step}", content))
    if run.masks:
        parts.append(_part(f"masks-{number}", projections_of(run.masks)))
    return {
        "name": name,
        "configuration": _texts(run.configuration),
        "log": {name: _curve(run, name) for name, _ in curves},
        "seconds": {part: _curve(run, f"longact/seconds_{part}") for part in (*PARTS, REST)},
        "gib": {part: _curve(run, f"longact/gib_{part}") for part in PARTS},
        "rollouts": steps,
        "masks": sorted(run.masks),
    }


def _curve(run: RunFiles, name: str) -> list[list[float]]:
    return [[entry["step"], entry[name]] for entry in run.log if is_number(entry.get(name))]


def _texts(configuration: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Settings as one reads them in a YAML file."""
    return {
        title: {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        for title, settings in configuration.items()
    }


def _part(name: str, content: object) -> str:
    packed = gzip.compress(json.dumps(content).encode(), mtime=0)
    return f'<script type="text/plain" id="{name}">{base64.b64encode(packed).decode()}</script>'
