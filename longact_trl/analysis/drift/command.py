"""What `longact drift` does, prints and writes."""

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...method.projections import find_projections
from ...method.sparsity import check_sparsity_ratio
from ...models.reading import load_model, load_skeleton, window_of
from ...models.weight_files import WeightFiles
from ...pictures.heatmaps import COLORMAP, KINDS, kind_of, layer_of, padded_rows
from ...settings.whole_files import whole_file, write_json
from ..inspect.inspection import inspect_model
from ..options import check_magnitudes
from ..texts import read_texts
from .row_drift import BF16_TOLERANCE, Drift, find_masks, measure_drift, summarise


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_RATIO = 0.3
EXIT_OUTSIDE = 3  # so that a script can tell "rows moved outside the masks" from a mistake in the command


def compare_weights(
    base: str,
    trained: str,
    output: Path,
    *,
    sparsity_ratio: float | None,
    magnitudes: Path | None,
    weights_only: bool,
) -> int:
    """What the command does; its options are described in `longact drift --help`. Returns the exit code."""
    console = Console()
    if magnitudes and weights_only:
        raise ValueError("Write --magnitudes or --weights-only, not both.")
    if sparsity_ratio is not None:
        check_sparsity_ratio(sparsity_ratio)
    skeleton = load_skeleton(base)
    names = [p.name for p in find_projections(skeleton)]
    measured = read_magnitudes(magnitudes, names) if magnitudes else {}
    masks = find_masks(WeightFiles(trained).folder)
    drift = measure_drift(base, trained, lambda projections: track(projections, "Comparing weights"))
    ratio = sparsity_ratio or (masks.settings["sparsity_ratio"] if masks else DEFAULT_RATIO)
    if not measured and not weights_only:
        measured = measure_base(base, skeleton)
    summary = {"base": base, "trained": trained, **summarise(drift, masks, measured, ratio)}
    write(summary, drift, output)
    console.print(drift_table(summary))
    console.print(verdict(summary))
    console.print(f"Numbers by head and row, and the picture: [bold]{output}[/bold]")
    return EXIT_OUTSIDE if summary["outside_masks"] else 0


def read_magnitudes(file: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """
    Magnitudes that `longact inspect` wrote for the base model, averaged over its texts.

    Args:
        file (`Path`):
            `magnitudes.safetensors`.
        names (`list[str]`):
            The projections that are needed.

    Returns:
        `dict[str, torch.Tensor]`: By projection name, of shape (H, D).

    Raises:
        `ValueError`: If it cannot be read, or a projection is missing.
    """
    check_magnitudes(file)
    longest: dict[tuple[str, str], tuple[int, torch.Tensor]] = {}
    try:
        with safe_open(file, "pt") as saved:
            if (saved.metadata() or {}).get("site", "projection") != "projection":
                raise ValueError(f"{str(file)!r} was measured behind norm or rotation: inspect without --after-….")
            for key in saved.keys():
                text, length, name = key.rsplit("/", 2)
                if int(length) > longest.get((text, name), (0, None))[0]:
                    longest[text, name] = (int(length), saved.get_tensor(key))
    except SafetensorError as error:
        raise ValueError(f"Cannot read {str(file)!r}: {error}") from error
    found: dict[str, list[torch.Tensor]] = {}
    for (_, name), (_, magnitude) in longest.items():
        found.setdefault(name, []).append(magnitude)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{str(file)!r} has no magnitudes of {missing[0]}: inspect the base model with all layers.")
    return {name: torch.stack(found[name]).mean(0) for name in names}


def measure_base(base: str, skeleton: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Magnitudes of the base model on the built-in texts. Needs the memory that the model needs to run."""
    texts = read_texts(base, [], None, None, window_of(skeleton.config))
    model = load_model(base)
    progress = partial(track, description="Measuring the base model")
    return inspect_model(model, base, texts, find_projections(model), DEFAULT_RATIO, progress=progress).mean()


def write(summary: dict, drift: Mapping[str, Drift], output: Path) -> None:
    """
    Write `drift.json`, `drift.safetensors` and `drift.png` into a folder.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.drift.row_drift.summarise`] returns it.
        drift (`dict[str, Drift]`):
            By projection name.
        output (`Path`):
            Folder, made where it is missing.
    """
    write_json(output / "drift.json", summary)
    tensors = {f"changed/{name}": d.changed for name, d in drift.items()}
    tensors |= {f"update_norm/{name}": d.update_norm for name, d in drift.items()}
    with whole_file(output / "drift.safetensors") as scratch:
        save_file(tensors, scratch)
    with whole_file(output / "drift.png") as scratch:
        draw_drift(summary, drift).savefig(scratch)


def drift_table(summary: dict) -> Table:
    """One line a layer."""
    entries = summary["projections"].values()
    has_masks = summary["outside_masks"] is not None
    has_massive = any("changed_in_massive" in entry for entry in entries)
    table = Table(title="What training moved", title_justify="left")
    table.add_column("layer", justify="right")
    kinds = [kind for kind in KINDS if any(kind_of(name) == kind for name in summary["projections"])]
    for kind in kinds:
        label = KINDS[kind].partition(",")
        table.add_column(f"{KINDS[kind]} rows", justify="right")
        table.add_column(f"‖Δ{label[0]}‖/‖{label[0]}‖{label[1]}{label[2]}", justify="right")
        if has_massive:
            table.add_column(f"Δ{label[0]}² in massive{label[1]}{label[2]}", justify="right")
    if has_masks:
        table.add_column("outside masks", justify="right")
    layers: dict[str, dict[str, dict]] = {}
    for name, entry in summary["projections"].items():
        layers.setdefault(entry["layer"], {})[kind_of(name)] = entry
    for layer, by_kind in layers.items():
        cells = []
        for kind in kinds:
            if kind not in by_kind:
                cells += [""] * (3 if has_massive else 2)
                continue
            entry = by_kind[kind]
            cells += [f"{entry['changed'] / entry['rows']:.0%}", f"{entry['relative_update']:.1e}"]
            if has_massive:
                cells.append(f"{entry['update_energy_in_massive']:.0%}" if entry["changed"] else "")
        if has_masks:
            cells.append(str(sum(entry["outside_masks"] for entry in by_kind.values())))
        table.add_row(layer, *cells)
    return table


def verdict(summary: dict) -> str:
    """In words: how much moved, how much of it in massive rows, and whether masks allowed it."""
    lines = [f"{summary['changed']:,} of {summary['rows']:,} rows of W_Q and W_K changed."]
    entries = [e for e in summary["projections"].values() if e.get("changed")]
    lines.append(
        f"{summary['weights_moved'] / summary['weights']:.1%} of their weights moved, in bfloat16 "
        f"{summary['weights_moved_bf16'] / summary['weights']:.1%} by more than {BF16_TOLERANCE:g}, the measure of "
        "arXiv:2505.11711."
    )
    if entries and "changed_in_massive" in entries[0]:

        def mean(name: str, weight: Callable[[dict], float]) -> float:
            return sum(e[name] * weight(e) for e in entries) / sum(map(weight, entries))

        energy = mean("update_energy_in_massive", lambda e: sum(norm**2 for norm in e["update_norm_by_head"]))
        lines.append(
            f"{mean('changed_in_massive', itemgetter('changed')):.0%} of the changed rows are among the base model's "
            f"massive rows, the top {summary['sparsity_ratio']:.0%} of each head by magnitude, and with them "
            f"{energy:.1%} of the squared change. Of as many rows of each head that moved most, "
            f"{mean('most_moved_in_massive', itemgetter('rows')):.1%} are massive. Chance would put λ there, rounded "
            "down to whole channels."
        )
        if moved := summary["weights_moved_bf16"]:
            inside = sum(e["weights_moved_bf16_in_massive"] for e in entries)
            lines.append(f"{inside / moved:.0%} of the weights that moved in bfloat16 are in those rows.")
    masks = summary["masks"]
    if masks is None:
        lines.append("No longact/masks.safetensors lies beside the trained model, so what masks allowed is not known.")
    elif summary["outside_masks"] is None:
        lines.append(f"The run trained with strategy={masks['strategy']!r}: every row was allowed to move.")
    else:
        at = f"step {masks['step']}" if masks["step"] is not None else masks["checkpoint"]
        what = f"the {masks['rows_ever_selected']:,} rows that its masks selected at some time (up to {at})"
        outside = summary["outside_masks"]
        lines.append(
            f"[green]No row moved outside {what}.[/green]"
            if outside == 0
            else f"[red]{outside:,} rows moved outside {what}.[/red]"
        )
    return "\n".join(lines)


def draw_drift(summary: dict, drift: Mapping[str, Drift]) -> "Figure":
    """
    Share of changed rows, and size of the change, by layer and head.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.drift.row_drift.summarise`] returns it.
        drift (`dict[str, Drift]`):
            By projection name.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    by_kind = {kind: [name for name in drift if kind_of(name) == kind] for kind in KINDS}
    by_kind = {kind: names for kind, names in by_kind.items() if names}
    num_layers = max(map(len, by_kind.values()))
    heads = [max(len(drift[name].changed) for name in names) for names in by_kind.values()]
    figure = Figure((12, 2 * (1.2 + max(1.0, min(0.16 * num_layers, 5.0))) + 0.5), dpi=100, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    title = f"{Path(summary['trained']).name} against {Path(summary['base']).name}: what training moved"
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(2, len(by_kind), width_ratios=[max(h, 4) for h in heads], squeeze=False)
    rows = {
        "rows that changed": (lambda d: d.changed.float().mean(1), "{x:.0%}", (0, 1)),
        "size of the change, ‖ΔW‖ / ‖W‖": (lambda d: d.relative_update(), "{x:.1e}", (0, None)),
    }
    for axis_row, (label, (value, form, (low, high))) in zip(axes, rows.items(), strict=True):
        shown = [padded_rows([value(drift[name])[None] for name in names]) for names in by_kind.values()]
        high = high or max(values.nan_to_num().max().item() for values in shown) or 1.0
        for axis, kind, values in zip(axis_row, by_kind, shown, strict=True):
            image = axis.imshow(values, COLORMAP, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            _label(axis, f"{KINDS[kind]}: {label}", [layer_of(name) for name in by_kind[kind]], values.shape[1])
        bar = figure.colorbar(image, ax=list(axis_row), pad=0.015, format=form)
        bar.outline.set_visible(False)
    return figure


def _label(axis: "Axes", title: str, layers: list[str], num_heads: int) -> None:
    axis.set_title(title, fontsize=11, loc="left")
    every_layer, every_head = -(-len(layers) // 12), -(-num_heads // 16)
    axis.set_yticks(range(0, len(layers), every_layer), layers[::every_layer])
    axis.set_xticks(range(0, num_heads, every_head))
    axis.set_ylabel("layer")
    axis.set_xlabel("head")
    axis.spines[:].set_visible(False)
