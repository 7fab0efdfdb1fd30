"""A study in one picture: scores, differences to the baseline, reward curves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ..pictures.axes import tidy
from ..pictures.heatmaps import DPI
from .outcome import Arm
from .study_file import Study


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "#80868b"
COLOURS = ("#3b0f70", "#f1605d", "#2a788e", "#b5367a", "#d98a2b", "#3a8f5c")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
"""Of the curves: as many as six arms are told apart by colour, as many as eighteen by colour and dashes."""


def draw_study(study: Study, arms: Mapping[str, Arm]) -> "Figure":
    """
    Draw what a study shows.

    Args:
        study (`Study`):
            The study.
        arms (`Mapping[str, Arm]`):
            As [`outcome_of`] returns them.

    Returns:
        `Figure`
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 1.6 + max(2.6, 0.42 * len(arms))), dpi=DPI, layout="constrained")
    figure.suptitle(study.title.replace("$", r"\$"), x=0.01, ha="left")
    scores, differences, rewards = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    names = list(arms)
    others = [name for name in names if name != study.baseline]
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)} | {study.baseline: BASELINE}
    dashes = {name: DASHES[i // len(COLOURS) % len(DASHES)] for i, name in enumerate(others)} | {study.baseline: "-"}
    for y, name in enumerate(names):
        arm = arms[name]
        scores.plot([100 * s for s in arm.scores], [y] * len(arm.scores), "|", color=colour[name], alpha=0.5, ms=9)
        _interval(scores, y, arm.score, colour[name])
        if arm.difference is not None:
            _interval(differences, y, arm.difference, colour[name])
        _reward_curve(rewards, name, arm, colour[name], dashes[name])
    labels = [f"to {to}" if (to := study.against(name)) not in (study.baseline, name) else "" for name in names]
    for axes, title in (
        (scores, "accuracy in %, each seed a tick"),
        (differences, f"difference to {study.baseline} or as named, points"),
    ):
        axes.set_yticks(range(len(names)), names if axes is scores else labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        tidy(axes, title)
    differences.axvline(0, color=BASELINE, lw=0.8)
    rewards.set_xlabel("optimizer step")
    if rewards.lines:
        rewards.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), handlelength=2.6)
    else:
        rewards.text(0.5, 0.5, "no reward was logged", ha="center", transform=rewards.transAxes, color=BASELINE)
        rewards.set(xticks=[], yticks=[])
    tidy(rewards, "reward, mean and standard error over seeds")
    return figure


def _interval(axes: "Axes", y: float, interval, colour: str) -> None:
    axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=colour, lw=2)
    axes.plot(100 * interval.value, y, "o", color=colour, ms=5)


def _reward_curve(axes: "Axes", name: str, arm: Arm, colour: str, dashes) -> None:
    if not arm.steps:
        return
    curves = torch.tensor([curve[: len(arm.steps)] for curve in arm.rewards])
    mean = curves.mean(0)
    axes.plot(arm.steps, mean, color=colour, ls=dashes, lw=1.5, label=name)
    if len(curves) > 1:
        spread = curves.std(0) / len(curves) ** 0.5
        axes.fill_between(arm.steps, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
