"""A training run in one picture: reward, held-out accuracy, masks over time, and what Q and K look like at its end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..evaluation.held_out import ALL
from ..evaluation.statistics import Interval
from ..pictures.axes import tidy
from ..pictures.heatmaps import DPI, fill_heatmaps
from ..training.checkpoints import TRAINER_STATE_NAME, newest_complete_checkpoint
from ..training.mask_file import has_masks, load_masks


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER = "#80868b", "#b5367a"  # AFTER is a colour of the heatmaps' magma
REWARDS = {
    "rewards/answer_reward/mean": ("answer is right", AFTER),
    "rewards/format_reward/mean": ("format is right", BEFORE),
}
SHARES = {
    "longact/energy_share": ("energy: squared magnitude in the selected rows", AFTER),
    "longact/density_q": ("density: rows selected", "#3b0f70"),
    "longact/mask_churn": ("churn: part of the mask that changed", "#f1605d"),
}


@dataclass
class Run:
    """
    What a run left in its newest complete checkpoint.

    Args:
        step (`int`):
            Optimizer steps done.
        log_history (`list[dict]`):
            What was logged, one entry each `logging_steps`.
        settings (`dict`):
            `strategy`, `sparsity_ratio`, `update_rule`, `saliency_source`, `num_refreshes`.
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes, float32 of shape (H, D). Empty for `random` and `dense`.
        masks (`dict[str, torch.Tensor]`):
            Name of a projection to the rows selected last, bool of shape (H·D,).
        ever_selected (`dict[str, torch.Tensor]`):
            The same for rows that were selected at any step. Both are empty for `dense`.
    """

    step: int
    log_history: list[dict]
    settings: dict
    magnitudes: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    ever_selected: dict[str, torch.Tensor]

    def rows(self) -> tuple[int, int, int]:
        """Rows of W_Q and W_K selected at the last step, at any step, and in all; zeros where nothing is masked."""
        if not self.masks:
            return 0, 0, 0
        last, ever = (torch.cat(list(named.values())) for named in (self.masks, self.ever_selected))
        return int(last.sum()), int(ever.sum()), last.numel()


def load_run(output_dir: str | Path) -> Run:
    """
    Read a run's newest complete checkpoint.

    Args:
        output_dir (`str` or `Path`):
            Directory that holds `checkpoint-N` folders.

    Returns:
        `Run`

    Raises:
        `ValueError`: If there is no complete checkpoint of a LongAct run.
    """
    checkpoint = newest_complete_checkpoint(output_dir)
    if checkpoint is None or not has_masks(checkpoint):
        raise ValueError(
            f"{output_dir} has no complete checkpoint of a LongAct run. Train with `save_strategy: steps`."
        )
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    saved = load_masks(checkpoint)
    return Run(
        step=state["global_step"],
        log_history=state["log_history"],
        settings=saved.settings,
        magnitudes=saved.magnitudes,
        masks=saved.masks,
        ever_selected=saved.ever_selected,
    )


def draw_run(run: Run, before: Mapping[str, Interval], after: Mapping[str, Interval]) -> "Figure":
    """
    Draw a run.

    Args:
        run (`Run`):
            As [`load_run`] returns it.
        before (`dict[str, Interval]`):
            Held-out accuracy by task before training, `"all"` among them.
        after (`dict[str, Interval]`):
            The same after training.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    figure = Figure((14, 9.6 if run.magnitudes else 4.6), dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    parts = figure.subfigures(2, 1, height_ratios=(1, 1.15)) if run.magnitudes else [figure]
    gain = f"{100 * before[ALL].value:.0f} % → {100 * after[ALL].value:.0f} % of held-out answers right"
    last, ever, total = run.rows()
    learning = f"{last:,} of {total:,} rows" if run.masks else "all rows"
    figure.suptitle(f"LongAct, {run.step} steps: {gain}", fontsize=17, fontweight="bold", x=0.01, ha="left")
    axes = parts[0].subplots(1, 3, width_ratios=(1, 1.05, 1.1))
    _draw_curves(axes[0], run.log_history, REWARDS, "Reward in training (temperature 1)")
    _draw_accuracy(axes[1], before, after)
    _draw_curves(axes[2], run.log_history, SHARES, f"Masks: {learning} of W_Q and W_K learn at a time")
    if run.magnitudes:
        parts[1].suptitle(
            f"Q and K at the last step. Masks follow the activations: {ever:,} of {total:,} rows learned at some step",
            fontsize=12,
            x=0.01,
            ha="left",
        )
        fill_heatmaps(parts[1], run.magnitudes, run.masks)
    return figure


def _draw_curves(axis: "Axes", log_history: list[dict], curves: dict[str, tuple[str, str]], title: str) -> None:
    _shares(axis, title)
    for key, (label, color) in curves.items():
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axis.plot(*zip(*points, strict=True), color=color, linewidth=2.2, marker="o", markersize=3.5, label=label)
    axis.set_xlabel("optimizer step")
    axis.locator_params(axis="x", integer=True)
    axis.set_ylim(0, 1.25)  # room for the legend
    if axis.lines:
        axis.legend(fontsize=9, frameon=False, loc="upper right", borderaxespad=0)


def _draw_accuracy(axis: "Axes", before: Mapping[str, Interval], after: Mapping[str, Interval]) -> None:
    _shares(axis, "Held-out accuracy (temperature 1), 95 % intervals")
    for offset, color, label, accuracy in ((-0.2, BEFORE, "before", before), (0.2, AFTER, "after", after)):
        places = [i + offset for i in range(len(accuracy))]
        values = [interval.value for interval in accuracy.values()]
        reach = [[i.value - i.low for i in accuracy.values()], [i.high - i.value for i in accuracy.values()]]
        axis.bar(places, values, 0.36, color=color, label=label)
        axis.errorbar(places, values, reach, fmt="none", ecolor="0.2", elinewidth=1.2, capsize=3)
        for place, interval in zip(places, accuracy.values(), strict=True):
            axis.text(
                place, interval.high + 0.02, f"{100 * interval.value:.0f}", ha="center", color=color, weight="bold"
            )
    axis.set_xticks(range(len(before)), [task.replace("_", " ") for task in before])
    axis.set_ylim(0, 1.25)  # room for the legend
    axis.legend(frameon=False, fontsize=9, ncols=2, loc="upper right", borderaxespad=0)


def _shares(axis: "Axes", title: str) -> None:
    tidy(axis, title)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
