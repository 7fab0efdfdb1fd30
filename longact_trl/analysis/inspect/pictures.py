"""The pictures of `longact inspect`: heatmaps as in the paper's Fig. 1 and 3–5, all layers at once, and statistics."""

from collections.abc import Mapping
from math import nan
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from ...method.sparsity import num_selected
from ...pictures.axes import headline, plain_log_labels, tidy
from ...pictures.heatmaps import (
    COLORMAP,
    DPI,
    INCHES_PER_HEAD,
    KINDS,
    MAX_HEIGHT,
    MIN_HEIGHT,
    PANEL_WIDTH,
    fill_heatmaps,
    kind_of,
    layer_of,
    padded_rows,
    shared_norm,
    shown_layers,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision; line styles tell the kinds apart in print.
COLORS = {"q": "#0072B2", "k": "#D55E00", "k_shared": "#CC79A7", "v": "#009E73"}
STYLES = {"q": "-", "k": "--", "k_shared": "-.", "v": ":"}
OVERVIEW_HEAD, OVERVIEW_MIN, OVERVIEW_MAX = 0.12, 4.0, 10.0  # inches: of one head, and limits of the whole


def draw_layer(magnitudes: Mapping[str, torch.Tensor], subtitle: str) -> "Figure":
    """
    Heatmaps, head by channel, one row a layer; of many layers, a few that are spaced evenly.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes of shape (H, D).
        subtitle (`str`):
            Model, place and texts.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    layers = shown_layers(magnitudes)
    kinds = {kind for named in layers.values() for kind in named}
    num_heads = max(len(magnitudes[name]) for named in layers.values() for name in named.values())
    height = min(max(INCHES_PER_HEAD * num_heads, MIN_HEIGHT), MAX_HEIGHT) + 0.4
    figure = Figure((len(kinds) * PANEL_WIDTH + 0.9, height * len(layers) + 1.0), dpi=DPI, layout="constrained")
    headline(figure, f"Magnitude of each channel of {_listed(kinds)}", subtitle)
    fill_heatmaps(figure, magnitudes, {})
    return figure


def draw_overview(magnitudes: Mapping[str, torch.Tensor], subtitle: str) -> "Figure":
    """
    All layers at once: heads of all layers from top to bottom, channels from left to right.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes of shape (H, D).
        subtitle (`str`):
            Model, place and texts.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if any(kind_of(name) == kind for name in magnitudes)]
    norm = shared_norm(list(magnitudes.values()))
    num_heads = max(sum(len(m) for name, m in magnitudes.items() if kind_of(name) == kind) for kind in kinds)
    height = min(max(OVERVIEW_HEAD * num_heads + 1.5, OVERVIEW_MIN), OVERVIEW_MAX)
    figure = Figure((3.4 * len(kinds) + 1.4, height), dpi=DPI, layout="constrained")
    headline(figure, f"All heads of all layers: magnitude of {_listed(kinds)}", subtitle)
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        named = {name: m for name, m in magnitudes.items() if kind_of(name) == kind}
        stacked = padded_rows(list(named.values())).clamp(min=norm.vmin)
        axis.imshow(stacked.numpy(), COLORMAP, norm, aspect="auto", interpolation="nearest")
        starts = torch.tensor([0, *map(len, named.values())]).cumsum(0).tolist()
        axis.hlines([s - 0.5 for s in starts[1:-1]], -0.5, stacked.shape[1] - 0.5, colors="white", linewidth=0.5)
        layers = [layer_of(name) for name in named]
        every = -(-len(layers) // 20)  # at most 20 labels
        centers = [(a + b - 1) / 2 for a, b in zip(starts, starts[1:], strict=False)]
        axis.set_yticks(centers[::every], layers[::every], fontsize=8)
        axis.tick_params(length=0, labelsize=8)
        axis.spines[:].set_visible(False)
        heads = "–".join(map(str, sorted({min(map(len, named.values())), max(map(len, named.values()))})))
        axis.set_title(f"{KINDS[kind]} · {heads} heads a layer", fontsize=10, loc="left")
        axis.set_xlabel("channel of the head")
    axes[0].set_ylabel("layer (its heads from top to bottom)")
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=axes, pad=0.02, aspect=45)
    bar.set_label("magnitude (Eq. 2), mean over texts", fontsize=9)
    bar.outline.set_visible(False)
    plain_log_labels(bar.ax)
    bar.ax.tick_params(labelsize=8, which="both")
    return figure


def draw_statistics(summary: dict, subtitle: str) -> "Figure":
    """
    How concentrated and how stable magnitudes are: five curves, and one matrix a kind.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.inspect.inspection.Inspection.summarise`] returns it.
        subtitle (`str`):
            Model, place and texts.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    ratio = summary["sparsity_ratio"]
    head_dim = next(iter(summary["projections"].values()))["head_dim"]
    by_chance = num_selected(ratio, head_dim) / head_dim
    figure = Figure((19, 8.2), dpi=80, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    headline(figure, f"How concentrated and how stable: the top {ratio:.0%} of each head's channels", subtitle)
    axes = iter(figure.subplots(2, -(-(5 + len(summary["overlap_between_layers"])) // 2)).flatten())
    _by_layer(next(axes), summary, "energy_share", f"Energy in the top {ratio:.0%}", chance=by_chance)
    peaks = next(axes)
    _by_layer(peaks, summary, "max_over_median", "Largest magnitude over the median")
    peaks.set_yscale("log")
    plain_log_labels(peaks, minor_decades=2)
    if len(summary["tokens"]) > 1:
        _by_layer(next(axes), summary, "overlap_between_texts", "Same rows selected by two texts", chance=by_chance)
    title = "Same rows selected by a text's beginning"
    _by_length(next(axes), summary, "overlap_with_whole_text", title, chance=by_chance)
    _by_length(next(axes), summary, "rank_correlation_with_whole_text", "Rank correlation with the whole text")
    for kind, matrix in summary["overlap_between_layers"].items():
        axis = next(axes)
        layers = [e["layer"] for e in summary["projections"].values() if e["kind"] == kind]
        shares = torch.tensor([[nan if share is None else share for share in row] for row in matrix])
        image = axis.imshow(shares, "cividis", vmin=0, vmax=1)
        every = -(-len(layers) // 8)
        for ticks in (axis.set_xticks, axis.set_yticks):
            ticks(range(0, len(layers), every), layers[::every], fontsize=9)
        axis.set_title(f"Same rows of {KINDS[kind]} selected in two layers", fontsize=11, loc="left")
        axis.set_xlabel("layer")
        bar = figure.colorbar(image, ax=axis, pad=0.02, format=lambda value, _: f"{value:.0%}")
        bar.outline.set_visible(False)
        bar.ax.axhline(by_chance, color="white", linewidth=2)
        bar.ax.text(1.25, by_chance, "chance", va="center", fontsize=9, transform=bar.ax.get_yaxis_transform())
    for axis in axes:
        axis.set_axis_off()
    return figure


def _by_layer(axis: "Axes", summary: dict, key: str, title: str, chance: float | None = None) -> None:
    """A curve for each kind over layers, its mean over texts and their spread."""
    for kind in summary["overlap_between_layers"]:
        entries = [e for e in summary["projections"].values() if e["kind"] == kind]
        values = [list(entry[key].values()) for entry in entries]
        x = [int(entry["layer"]) if entry["layer"].isdigit() else i for i, entry in enumerate(entries)]
        _curve(axis, kind, x, values)
    axis.set_xlabel("layer")
    axis.locator_params(axis="x", integer=True)
    _finish(axis, title, chance)


def _by_length(axis: "Axes", summary: dict, key: str, title: str, chance: float | None = None) -> None:
    """A curve for each kind over the tokens read, its mean over texts and layers and their spread."""
    for kind in summary["overlap_between_layers"]:
        points: dict[int, list[float]] = {}
        for entry in summary["projections"].values():
            if entry["kind"] == kind:
                for by_length in entry[key].values():
                    for length, value in by_length.items():
                        points.setdefault(int(length), []).append(value)
        x = sorted(points)
        _curve(axis, kind, x, [points[length] for length in x])
    axis.set_xscale("log", base=2)
    axis.set_xticks(x, [f"{length:,}" for length in x], fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel("tokens read")
    _finish(axis, title, chance)


def _curve(axis: "Axes", kind: str, x: list[int], values: list[list[float]]) -> None:
    axis.fill_between(x, list(map(min, values)), list(map(max, values)), color=COLORS[kind], alpha=0.15, linewidth=0)
    style = {"color": COLORS[kind], "linestyle": STYLES[kind], "marker": "o", "markersize": 3.5, "linewidth": 2}
    axis.plot(x, list(map(fmean, values)), label=KINDS[kind], **style)


def _finish(axis: "Axes", title: str, chance: float | None) -> None:
    tidy(axis, title)
    axis.legend(fontsize=10, frameon=False, loc="best")
    if chance is not None:
        axis.axhline(chance, color="0.45", linewidth=1)
        axis.text(axis.get_xlim()[1], chance, "chance ", color="0.35", fontsize=9, ha="right", va="bottom")
        axis.set_ylim(0, 1.02)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _listed(kinds) -> str:
    names = [KINDS[kind] for kind in KINDS if kind in kinds]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
