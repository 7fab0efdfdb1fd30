"""The reward over a run's steps, small enough for a model card."""

from typing import TYPE_CHECKING

from .axes import tidy
from .heatmaps import DPI


if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOTAL = "#b5367a"  # a colour of the heatmaps' magma
PARTS = (("0.25", "--"), ("0.45", ":"), ("0.6", "-."))
"""Grey and dashes for the single rewards: to be told apart without colour."""


def draw_rewards(log_history: list[dict]) -> "Figure | None":
    """
    Draw the mean reward of each step, and that of each reward function where there are several.

    Args:
        log_history (`list[dict]`):
            What was logged, one entry each `logging_steps`, as in [`~transformers.TrainerState`].

    Returns:
        `matplotlib.figure.Figure`, or `None` where no reward was logged.
    """
    from matplotlib.figure import Figure

    logs = [entry for entry in log_history if "reward" in entry]
    if not logs:
        return None
    figure = Figure((7.6, 3), dpi=DPI, layout="constrained", facecolor="white")
    axis = figure.subplots()
    steps = [entry["step"] for entry in logs]
    marker = {"marker": "o", "markersize": 3} if len(logs) < 40 else {}
    axis.plot(steps, [entry["reward"] for entry in logs], color=TOTAL, linewidth=2.2, label="reward", **marker)
    names = sorted(key for key in logs[-1] if key.startswith("rewards/") and key.endswith("/mean"))
    for i, name in enumerate(names if len(names) > 1 else []):
        color, dashes = PARTS[i % len(PARTS)]
        values = [entry.get(name, float("nan")) for entry in logs]
        axis.plot(steps, values, color=color, linestyle=dashes, label=name.split("/")[1])
    tidy(axis, "Reward in training, mean of each step")
    axis.set_xlabel("optimizer step")
    axis.locator_params(axis="x", integer=True)
    axis.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
