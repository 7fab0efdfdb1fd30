"""Where the gradient is and what steps do, in one picture."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from ...pictures.axes import headline, tidy
from ...pictures.heatmaps import DPI, KINDS
from .summary import MOST


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"massive": "#b5367a", "random": "#80868b", "min": "#2a788e", "dense": "#3b0f70"}
LABELS = {"massive": "massive", "random": "random", "min": "low", "dense": "all", MOST: "at most"}
STYLES = {"q": "-", "k": "--"}


def draw_gradients(summary: dict, title: str, subtitle: str) -> "Figure":
    """
    Draw a measurement: share of the gradient by layer, by context length and by λ, and the loss after steps.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.gradients.summary.summarise`] returns it.
        title, subtitle (`str`):
            What stands above: the model; what it was asked and rewarded for.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    figure = Figure((15, 8.6), dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    headline(figure, title, subtitle)
    axes = iter(figure.subplots(2, 3).flatten())
    for kind in summary["share_by_layer"]:
        _by_layer(next(axes), summary, kind)
    _by_length(next(axes), summary)
    _by_ratio(next(axes), summary)
    _steps(next(axes), summary, "same", "Loss after one step, on the batch of its gradient")
    _steps(next(axes), summary, "held_out", "Loss after one step, on another batch")
    for axis in axes:  # of a model whose Q or K alone can be told
        axis.set_axis_off()
    return figure


def _by_layer(axis: "Axes", summary: dict, kind: str) -> None:
    layers = summary["share_by_layer"][kind]
    x = [int(layer) if layer.isdigit() else i for i, layer in enumerate(layers)]
    most = [fmean(of_layer[MOST]) for of_layer in layers.values()]
    axis.plot(x, most, color="0.55", linewidth=1.2, linestyle=":", label="at most")
    for strategy in ("massive", "random", "min"):
        _band(axis, x, [of_layer[strategy] for of_layer in layers.values()], COLOURS[strategy], "-", LABELS[strategy])
    axis.set_xlabel("layer")
    axis.locator_params(axis="x", integer=True)
    _finish(axis, f"Share of the gradient of W_{KINDS[kind]} in selected rows", summary)


def _by_length(axis: "Axes", summary: dict) -> None:
    lengths = {tokens: found for tokens, found in summary["lengths"].items() if "share" in found}
    x = list(map(int, lengths))
    for kind in summary["share_by_layer"]:
        for strategy in ("massive", "min"):
            values = [found["share"][kind][strategy] for found in lengths.values()]
            label = f"W_{KINDS[kind]}, {LABELS[strategy]}"
            _band(axis, x, values, COLOURS[strategy], STYLES[kind], label)
    axis.set_xscale("log", base=2)
    axis.set_xticks(x, [f"{tokens:,}" for tokens in x])
    axis.minorticks_off()
    axis.set_xlabel("tokens of a prompt")
    _finish(axis, "All layers together, by length of the context", summary)


def _by_ratio(axis: "Axes", summary: dict) -> None:
    for kind, by_ratio in summary["share_by_ratio"].items():
        x = list(map(float, by_ratio))
        _band(axis, x, list(by_ratio.values()), COLOURS["massive"], STYLES[kind], f"W_{KINDS[kind]}, massive")
    axis.plot([0, 0.5], [0, 0.5], color="0.45", linewidth=1)
    axis.text(0.5, 0.5, "chance ", color="0.35", fontsize=9, ha="right", va="bottom")
    axis.set_xlabel("λ, share of each head's channels")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _finish(axis, "All layers together, by λ", summary, line=False)


def _band(axis: "Axes", x: list, values: list[list[float]], colour: str, style: str, label: str) -> None:
    """Mean over batches, and from the least to the greatest."""
    axis.fill_between(x, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, linewidth=0)
    look = {"color": colour, "linestyle": style, "marker": "o", "markersize": 3.5, "linewidth": 2}
    axis.plot(x, list(map(fmean, values)), label=label, **look)


def _finish(axis: "Axes", title: str, summary: dict, line: bool = True) -> None:
    tidy(axis, title)
    if line:
        axis.axhline(summary["chance"], color="0.45", linewidth=1)
        axis.text(axis.get_xlim()[1], summary["chance"], "chance ", color="0.35", fontsize=9, ha="right", va="top")
    axis.set_ylim(0, 1.2)  # room for the legend
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend(fontsize=9, frameon=False, loc="upper right", ncols=2, handlelength=3.6)


def _steps(axis: "Axes", summary: dict, batch: str, title: str) -> None:
    """A bar for each strategy and direction, a dot for each RL batch, in units of what the dense step takes off."""
    if not drops(summary, "gradient", "dense", batch):  # there was no other batch
        axis.set_axis_off()
        return
    labels, places = [], []
    for number, direction in enumerate(("gradient", "sign")):
        for position, strategy in enumerate(COLOURS):
            values = drops(summary, direction, strategy, batch)
            place = number * (len(COLOURS) + 0.8) + position
            labels.append(LABELS[strategy])
            places.append(place)
            if values:
                axis.bar(place, fmean(values), 0.8, color=COLOURS[strategy], alpha=0.75)
                spread = [place + 0.5 * (i + 0.5) / len(values) - 0.25 for i in range(len(values))]
                axis.plot(spread, values, "o", color="0.15", markersize=2.5)
        middle = number * (len(COLOURS) + 0.8) + (len(COLOURS) - 1) / 2
        text = {"gradient": "along the gradient", "sign": "its signs (AdamW's first step)"}[direction]
        axis.text(middle, 1.02, text, ha="center", va="bottom", fontsize=8.5, transform=axis.get_xaxis_transform())
    axis.axhline(0, color="0.45", linewidth=1)
    axis.set_xticks(places, labels, rotation=30)
    tidy(axis, f"{title}\n")
    axis.set_ylabel("taken off, in what the dense step takes\noff the batch of its gradient", fontsize=9)


def drops(summary: dict, direction: str, strategy: str, batch: str) -> list[float]:
    """
    What steps took off the loss, in units of what the dense one took off the batch whose gradient it was.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.gradients.summary.summarise`] returns it.
        direction, strategy (`str`):
            Which steps.
        batch (`str`):
            `"same"` or `"held_out"`.

    Returns:
        `list[float]`: One entry a batch, without those that had no other beside them.
    """
    found: list[float] = []
    for of_length in summary["lengths"].values():
        if "steps" in of_length:
            steps: dict[str, dict[str, Sequence[float]]] = of_length["steps"][direction]
            found += [
                after / dense
                for after, dense in zip(steps[strategy][batch], steps["dense"]["same"], strict=True)
                if not math.isnan(after) and dense
            ]
    return found
