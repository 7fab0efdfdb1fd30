"""The picture of the report: what sharing saves, memory, row-sparse gradients, and the plan."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from longact_trl.pictures.axes import headline, tidy


def draw(report: Mapping, path: Path) -> None:
    """
    Draw what is there.

    Args:
        report (`dict`):
            As [`read_rows`] gives it.
        path (`Path`):
            PNG file.
    """
    about, parts = report["about"], report["parts"]
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for axis, (name, draw_part) in zip(axes, DRAWN.items(), strict=True):
        rows = [row for row in parts.get(name, {}).get("rows", ()) if "error" not in row]
        draw_part(axis, rows)
        if not axis.has_data():
            axis.text(0.5, 0.5, "nothing measured", ha="center", color="0.5", transform=axis.transAxes)
    on_gpu = about.get("type") == "cuda"
    note = f"torch {about.get('torch')}" if on_gpu else "in miniature: nothing here says anything of a GPU"
    headline(figure, f"longact-trl on {about.get('device', '?')}", note)
    figure.savefig(path, dpi=110)


def _grid(axis, rows: list[Mapping]) -> None:
    tidy(axis, "Shared prompts: times faster, and the bound")
    found = [row for row in rows if "ratio" in row]
    for size in sorted({row["rows"] for row in found}):
        chosen = [row for row in found if row["rows"] == size]
        axis.scatter(
            [r["bound"] for r in chosen], [r["ratio"] for r in chosen], label=f"{size} row{'s' * (size > 1)}", s=24
        )
    if found:
        most = max(row["bound"] for row in found)
        axis.plot([1, most], [1, most], color="0.6", linewidth=1, zorder=0)
        axis.legend(fontsize=8, frameon=False, title="micro-batch", title_fontsize=8)
    axis.set_xlabel("bound by operations")
    axis.set_ylabel("TRL's seconds over shared")


def _slope(axis, rows: list[Mapping]) -> None:
    tidy(axis, "Peak memory of a training pass")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        chosen = [row for row in rows if row["arm"] == arm and row.get("peak GiB") is not None]
        if chosen:
            axis.plot([r["P"] // 1024 for r in chosen], [r["peak GiB"] for r in chosen], marker=".", label=arm)
            axis.legend(fontsize=8, frameon=False)
    axis.set_xlabel("tokens of the prompt, thousands (1,024)")
    axis.set_ylabel("GiB")


def _row_sparse(axis, rows: list[Mapping]) -> None:
    tidy(axis, "Row-sparse over masked gradients, λ = 0.3")
    chosen = [row for row in rows if row.get("λ") == 0.3]
    for shape in dict.fromkeys(row["shape"] for row in chosen):
        line = [row for row in chosen if row["shape"] == shape]
        axis.plot([r["tokens"] for r in line], [r["row-sparse"] / r["masked"] for r in line], marker=".", label=shape)
    if chosen:
        axis.axhline(1, color="0.6", linewidth=1, zorder=0)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.legend(fontsize=8, frameon=False)
    axis.set_xlabel("tokens")
    axis.set_ylabel("ratio of seconds")


def _plan(axis, rows: list[Mapping]) -> None:
    tidy(axis, "Memory plan against measured peaks")
    if rows:
        axis.scatter([r["measured GiB"] for r in rows], [r["plan GiB"] for r in rows], s=24)
        most = max(max(r["measured GiB"], r["plan GiB"]) for r in rows)
        axis.plot([0, most], [0, most], color="0.6", linewidth=1, zorder=0)
    axis.set_xlabel("measured, GiB")
    axis.set_ylabel("planned, GiB")


DRAWN = {"prefix_grid": _grid, "memory_slope": _slope, "row_sparsity": _row_sparse, "plan": _plan}
