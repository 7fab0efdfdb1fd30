"""The report as a picture: a panel a table, a point a number with its interval, a diamond where the paper has one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..settings.whole_files import whole_file
from .tables import Evaluation, column_title, paper_tables, rows_of, tables_for


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "os^vP"  # after the last colour, the next one
SPREAD = 0.7  # of the distance between two columns, what the points of one share


def draw_report(evaluations: Sequence[Evaluation]) -> "Figure":
    """
    Draw every table for which there are results.

    Args:
        evaluations (`Sequence[Evaluation]`):
            As [`~tables.load_evaluations`] returns them.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        `ValueError`: If no table has results.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = []
    for number, table in tables_for(evaluations).items():
        rows = rows_of(table, evaluations)
        if any(row.ours for row in rows):
            title = f"Table {number}. {table['title']}" if number in paper_tables() else table["title"]
            panels.append((title, table, rows))
    if not panels:
        raise ValueError("These results have no number of any table.")
    figure = Figure((12, 3.6 * len(panels)), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (title, table, rows) in zip(axes, panels, strict=True):
        columns = [
            column for column in table["columns"] if any(column in row.ours or column in row.paper for row in rows)
        ]
        for i, row in enumerate(rows):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
            shift = SPREAD * ((i + 0.5) / len(rows) - 0.5)
            at = [columns.index(column) + shift for column in row.ours]
            values = [100 * interval.value for interval in row.ours.values()]
            below = [100 * max(interval.value - interval.low, 0.0) for interval in row.ours.values()]
            above = [100 * max(interval.high - interval.value, 0.0) for interval in row.ours.values()]
            label = row.name if row.ours else f"{row.name} (paper only)"
            axis.errorbar(at, values, [below, above], fmt=marker, color=colour, capsize=3, label=label)
            at = [columns.index(column) + shift for column in row.paper]
            axis.plot(at, list(row.paper.values()), "D", markerfacecolor="none", color=colour, markersize=9)
        handles, _ = axis.get_legend_handles_labels()
        if any(row.paper for row in rows):
            handles.append(Line2D([], [], color="0.3", marker="D", markerfacecolor="none", ls="", label="the paper"))
        axis.legend(handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        axis.set_xticks(
            range(len(columns)), [column_title(table, column).replace(" ", "\n") for column in columns], fontsize=8
        )
        axis.set_xlim(-0.5, len(columns) - 0.5)
        axis.set_ylim(-3, 103)
        axis.set_ylabel("score, percent")
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(axis="y", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def write_picture(evaluations: Sequence[Evaluation], path: str) -> None:
    """Draw the report into a file whose ending says the format."""
    with whole_file(path) as scratch:
        draw_report(evaluations).savefig(scratch)
