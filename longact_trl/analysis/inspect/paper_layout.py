"""Magnitudes as the paper draws them (Fig. 1 and 3–5): heads across, channels upwards, only the first of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...pictures.heatmaps import COLORMAP, DPI, KINDS, kind_of, layer_of


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADS, CHANNELS = 8, 64  # "the first 8 attention heads and the first 64 dimensions within each head"
COLUMNS = 6  # panels in a row
WORDS = {"q": "query", "k": "key", "v": "value"}
FIGURES = {"q": 3, "k": 4, "v": 5}
"""Figures of the paper that show one kind each; Fig. 1 shows Q and K."""


def paper_pictures(magnitudes: Mapping[str, torch.Tensor], model: str, texts: str) -> dict[str, "Figure"]:
    """
    Fig. 1 and 3–5 of a model.

    The paper does not say which layer Fig. 1 shows: here it is the middle one of those measured. Nor does it say how
    values become colours: here each panel's scale is linear, from 0 to the panel's largest magnitude.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes (Eq. 2) of shape (H, D).
        model (`str`):
            Hub id or folder.
        texts (`str`):
            What was read.

    Returns:
        `dict[str, matplotlib.figure.Figure]`: By file name; those whose kinds were measured.
    """
    by_kind: dict[str, dict[str, torch.Tensor]] = {}
    for name, magnitude in magnitudes.items():
        by_kind.setdefault(kind_of(name), {})[name] = magnitude
    on = f"{Path(model).name} on {texts}"
    pictures = {}
    if {"q", "k"} <= by_kind.keys():
        pair = {}
        for kind in "qk":
            names = list(by_kind[kind])
            pair[f"{KINDS[kind]}, layer {layer_of(names[len(names) // 2])}"] = by_kind[kind][names[len(names) // 2]]
        title = "Query and key representation magnitudes (the paper's Fig. 1)"
        pictures["paper_figure_1.png"] = _draw(pair, title, on, width=3.6, height=4.6)
    for kind, number in FIGURES.items():
        if kind in by_kind:
            panels = {f"layer {layer_of(name)}": magnitude for name, magnitude in by_kind[kind].items()}
            title = f"Representation of {KINDS[kind]} (the paper's Fig. {number}): {WORDS[kind]} magnitudes by layer"
            pictures[f"paper_figure_{number}.png"] = _draw(panels, title, on, width=1.75, height=2.9)
    return pictures


def _draw(panels: Mapping[str, torch.Tensor], title: str, subtitle: str, width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((max(columns * width + 0.5, 6.4), rows * height + 0.9), dpi=DPI, layout="constrained")
    figure.suptitle(f"{title}\n", fontsize=12, fontweight="bold", x=0.01, ha="left", linespacing=2.0)
    top = 1 - 0.40 / figure.get_figheight()
    figure.text(0.01, top, subtitle, fontsize=9, color="0.3", va="top")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for number, (axis, (name, magnitude)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        _draw_panel(axis, name, magnitude)
        if number % columns == 0:
            axis.set_ylabel("dimension of the head", fontsize=9)
        if number + columns >= len(panels):
            axis.set_xlabel("head", fontsize=9)
    return figure


def _draw_panel(axis: "Axes", name: str, magnitude: torch.Tensor) -> None:
    shown = magnitude[:HEADS, :CHANNELS]
    scale = {"vmin": 0, "vmax": shown.max().item() or 1.0}
    image = axis.imshow(shown.T.numpy(), COLORMAP, aspect="auto", interpolation="nearest", origin="lower", **scale)
    axis.set_title(name, fontsize=9, loc="left")
    axis.set_xticks(range(len(shown)))
    axis.set_yticks(range(0, shown.shape[1], max(shown.shape[1] // 8, 1)))
    axis.tick_params(labelsize=7, length=2, color="0.5")
    axis.spines[:].set_visible(False)
    bar = axis.figure.colorbar(image, ax=axis, pad=0.03, aspect=30, format="%.3g")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
