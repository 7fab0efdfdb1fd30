"""How the axes of all pictures look."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tidy(axis: "Axes", title: str) -> None:
    """A title on the left, and a grid behind what is drawn in place of a frame."""
    axis.set_title(title, fontsize=11, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9)


def headline(figure: "Figure", title: str, subtitle: str) -> None:
    """A bold title over the whole figure, on the left, and a smaller line below it."""
    figure.suptitle(f"{title}\n", fontsize=14, fontweight="bold", x=0.01, ha="left", linespacing=2.0)
    figure.text(0.01, 1 - 0.42 / figure.get_figheight(), subtitle, fontsize=10, color="0.3", va="top")


def plain_log_labels(axis: "Axes", minor_decades: float = 3) -> None:
    """
    Label a logarithmic y-axis with 20, not 2 × 10¹.

    Args:
        axis (`Axes`):
            Whose y-axis is labelled.
        minor_decades (`float`, *optional*, defaults to `3`):
            Ticks between powers of ten are labelled on an axis of at most so many decades.
    """
    from matplotlib.ticker import LogFormatter

    for shown in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        shown(LogFormatter(minor_thresholds=(minor_decades, 0.5)))
