"""Magnitudes of Q and K as the paper draws them (Fig. 1 and 3–5): heads down, channels across, one row a layer.

Shapes: H heads, D channels per head (head_dim).
"""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from .axes import plain_log_labels


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure
    from PIL.Image import Image

COLORMAP = "magma"  # even steps in lightness, so it reads with colour blindness and in print; massive channels glow
MAX_LAYERS = 6  # more do not fit a screen; they are spaced evenly from the first to the last
PANEL_WIDTH = 5.2  # inches
INCHES_PER_HEAD, MIN_HEIGHT, MAX_HEIGHT = 0.16, 1.25, 2.6  # height of a panel
DPI = 120
# Values below this quantile take the darkest colour: a channel that is nearly dead would stretch the scale for all.
LOWEST_QUANTILE = 0.03
DOT_SHARE = 0.35  # diameter of a dot, of a cell's width
KINDS = {"q": "Q", "k": "K", "k_shared": "K, shared head", "v": "V"}
"""What is drawn side by side. In a latent attention the rotated head of K, which all heads share, is by itself."""


def draw_heatmaps(magnitudes: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> "Figure":
    """
    Draw the magnitudes of Q and K with a dot on each selected channel.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes (Eq. 2), float32 of shape (H, D).
        masks (`dict[str, torch.Tensor]`):
            Name of a projection to its selected rows, bool of shape (H·D,). May be empty.

    Returns:
        `matplotlib.figure.Figure`: At most `MAX_LAYERS` layers, independent of pyplot and of any display.

    Raises:
        `ValueError`: If there are no magnitudes.
    """
    from matplotlib.figure import Figure

    layers = shown_layers(magnitudes)
    names = [name for named in layers.values() for name in named.values()]
    num_heads = max(len(magnitudes[name]) for name in names)
    height = min(max(INCHES_PER_HEAD * num_heads, MIN_HEIGHT), MAX_HEIGHT) + 0.35
    figure = Figure((2 * PANEL_WIDTH + 0.9, height * len(layers) + 0.9), dpi=DPI, layout="constrained")
    figure.suptitle("Magnitude of each channel of Q and K", fontsize=13, fontweight="bold")
    fill_heatmaps(figure, magnitudes, masks)
    return figure


def fill_heatmaps(
    figure: "Figure | SubFigure", magnitudes: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]
) -> None:
    """[`draw_heatmaps`] into a figure, or into the part of a larger one."""
    from matplotlib.cm import ScalarMappable

    layers = shown_layers(magnitudes)
    norm = shared_norm([magnitudes[name] for named in layers.values() for name in named.values()])
    kinds = sorted({kind for named in layers.values() for kind in named}, key=list(KINDS).index)
    axes = figure.subplots(len(layers), len(kinds), squeeze=False)
    for row, (layer, named) in enumerate(layers.items()):
        for column, kind in enumerate(kinds):
            if kind not in named:  # the layer has another layer's K, or rows that make V too
                axes[row, column].set_axis_off()
                continue
            name = named[kind]
            _draw_panel(axes[row, column], magnitudes[name], masks.get(name), norm)
            axes[row, column].set_title(f"Layer {layer} · {KINDS[kind]}", fontsize=10, loc="left")
        axes[row, 0].set_ylabel("head")
    for axis in axes[-1]:
        axis.set_xlabel("channel of the head")
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=axes, pad=0.012, aspect=14 * len(layers))
    long = "magnitude (Eq. 2): norm over tokens,\nmean over sequences"
    bar.set_label(long if len(layers) > 1 else "magnitude (Eq. 2)", fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, which="both")
    plain_log_labels(bar.ax)
    if masks:
        density = torch.cat([mask.flatten() for mask in masks.values()]).float().mean().item()
        text = f"•  row learns now: {density:.0%} of the rows of W_Q and W_K"
        axes[0, -1].set_title(text, fontsize=9, loc="right", color="0.25")


def shown_layers(magnitudes: Mapping[str, torch.Tensor]) -> dict[str, dict[str, str]]:
    """
    The layers that are drawn.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Keys are names as [`~longact_trl.method.projections.Projection`] has them.

    Returns:
        `dict[str, dict[str, str]]`: Number of a layer to its projections, kind to name.

    Raises:
        `ValueError`: If there are none.
    """
    if not magnitudes:
        raise ValueError("There are no magnitudes to draw: nothing was measured yet (`strategy` 'massive' or 'min').")
    layers: dict[str, dict[str, str]] = {}
    for name in magnitudes:
        layers.setdefault(layer_of(name), {})[kind_of(name)] = name
    last, count = len(layers) - 1, min(len(layers), MAX_LAYERS)
    chosen = {round(i * last / max(count - 1, 1)) for i in range(count)}
    return {layer: named for i, (layer, named) in enumerate(layers.items()) if i in chosen}


def layer_of(name: str) -> str:
    """
    Number of the layer in a projection's name: `"7"` of `"model.layers.7.self_attn.q_proj"`; `"7.1"` where a layer has
    several attentions (LongCat), `"H7"` where a model has several stacks (HRM).
    """
    *path, _ = name.split(".")
    stack = "".join(part.removesuffix("_module") for part in path if part.endswith("_module"))
    return stack + ".".join(part for part in path if part.isdigit()) or ".".join(path)


def kind_of(name: str) -> str:
    """One of `KINDS` by a projection's name: `"….qkv_proj:k"`, `"….k_proj"`, `"….kv_a_proj_with_mqa:k"`."""
    projection = name.rpartition(".")[2]
    if projection == "kv_a_proj_with_mqa:k":
        return "k_shared"
    return projection.partition(":")[2] or projection[0]


def padded_rows(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """
    Matrices of different widths below each other.

    Args:
        values (`Sequence[torch.Tensor]`):
            Of shapes (R, C).

    Returns:
        `torch.FloatTensor` of shape (sum of R, largest C): NaN, which is not drawn, beside the narrower ones.
    """
    width = max(value.shape[1] for value in values)
    return torch.cat([nn.functional.pad(v.float(), (0, width - v.shape[1]), value=float("nan")) for v in values])


def shared_norm(magnitudes: list[torch.Tensor]) -> "Normalize":
    """Logarithmic: massive channels are tens of times stronger than the rest, in which differences must show too."""
    from matplotlib.colors import LogNorm

    values = torch.cat([m.flatten().float() for m in magnitudes]).sort().values
    values = values[values > 0]
    if not len(values):
        return LogNorm(0.1, 1.0)  # a model whose projections are all zero
    low, high = values[int(LOWEST_QUANTILE * len(values))].item(), values[-1].item()
    return LogNorm(low, high if high > low else 2 * low)


def _draw_panel(axis: "Axes", magnitude: torch.Tensor, mask: torch.Tensor | None, norm: "Normalize") -> None:
    num_heads, head_dim = magnitude.shape
    image = axis.imshow(magnitude.clamp(min=norm.vmin).numpy(), COLORMAP, norm, aspect="auto", interpolation="nearest")
    axis.set_xticks(_ticks(head_dim))
    axis.set_yticks(_ticks(num_heads))
    axis.tick_params(labelsize=8, length=2, color="0.5")
    axis.spines[:].set_visible(False)
    if num_heads <= 16:  # a hairline keeps heads apart; where there are more, it would hide them
        axis.hlines([h - 0.5 for h in range(1, num_heads)], -0.5, head_dim - 0.5, colors="white", linewidth=0.6)
    if mask is not None:
        heads, channels = mask.view(num_heads, head_dim).nonzero(as_tuple=True)
        red, green, blue = image.to_rgba(magnitude[heads, channels].numpy())[:, :3].T
        is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.45
        cell = 72 * PANEL_WIDTH * 0.9 / head_dim  # points
        axis.scatter(
            channels,
            heads,
            s=max(DOT_SHARE * cell, 1.0) ** 2,
            c=["black" if bright else "white" for bright in is_bright],
            linewidths=0,
            alpha=0.7,
        )


def _ticks(size: int) -> list[int]:
    """About four ticks, the last index among them."""
    step = max(size // 4, 1)
    return [*range(0, size - step // 2, step), size - 1] if size > 4 else list(range(size))


# Trackers


def log_heatmaps(
    magnitudes: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    churn: Mapping[str, float],
    step: int,
    trackers: Collection[str],
) -> None:
    """
    Log the heatmaps as the image `longact/heatmap`, and how much each layer's masks change as
    `longact/mask_churn/layer_N`. Call it on one rank.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            As in [`draw_heatmaps`].
        masks (`dict[str, torch.Tensor]`):
            As in [`draw_heatmaps`].
        churn (`dict[str, float]`):
            Name of a projection to the share of its selected rows that the last refresh exchanged. May be empty.
        step (`int`):
            Optimizer steps done. Logged beside the image as `train/global_step`, the axis that transformers'
            callbacks use; as wandb's own `step` it would collide with the one that they advance.
        trackers (`Collection[str]`):
            `"wandb"`, `"trackio"`, or both; their runs have been started, as `report_to` does.
    """
    image = render(draw_heatmaps(magnitudes, masks))
    record = {**churn_by_layer(churn), "train/global_step": step}
    if "wandb" in trackers:
        import wandb

        if wandb.run is not None:
            wandb.log({"longact/heatmap": wandb.Image(image), **record})
    if "trackio" in trackers:
        import trackio

        trackio.log({"longact/heatmap": trackio.Image(image), **record})


def churn_by_layer(churn: Mapping[str, float]) -> dict[str, float]:
    """Mean over the projections of each layer, under the name it is logged as."""
    layers: dict[str, list[float]] = {}
    for name, value in churn.items():
        layers.setdefault(f"longact/mask_churn/layer_{layer_of(name)}", []).append(value)
    return {layer: sum(values) / len(values) for layer, values in layers.items()}


def render(figure: "Figure") -> "Image":
    """The figure as a PIL image, drawn by Agg."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)
