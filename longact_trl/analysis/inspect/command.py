"""`longact inspect`: what the activations of a model look like, in numbers, pictures and a page to browse."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file

from ...method.magnitude import Magnitudes
from ...method.sparsity import num_selected
from ...models.reading import load_model, load_skeleton, window_of
from ...pictures.heatmaps import KINDS, layer_of
from ...settings.whole_files import whole_file, write_json
from ..chosen_projections import choose_projections
from ..texts import read_texts
from .activations import SITES, check_site
from .inspection import Inspection, inspect_model
from .page import write_page
from .paper_layout import paper_pictures
from .pictures import draw_layer, draw_overview, draw_statistics


def inspect_activations(
    model: str,
    output: Path,
    *,
    files: Sequence[Path],
    benchmark: str | None,
    length: str | None,
    layers: str | None,
    kinds: str,
    site: str,
    sparsity_ratio: float,
    layout: str,
) -> None:
    """What the command does; its options are described in `longact inspect --help`."""
    console = Console()
    skeleton = load_skeleton(model)
    chosen = choose_projections(skeleton, kinds.split(","), layers)
    for projection in chosen:
        num_selected(sparsity_ratio, projection.head_dim)
    check_site(skeleton, chosen, site)
    window = window_of(skeleton.config)
    texts = read_texts(model, files, benchmark, length, window)

    tokens = sum(map(len, texts.values()))
    console.print(f"{model}: {len(chosen)} projections, {SITES[site]}; {tokens:,} tokens in {', '.join(texts)}.")
    with console.status("Loading the weights"):
        loaded = load_model(model)
    projections = choose_projections(loaded, kinds.split(","), layers)
    inspection = inspect_model(
        loaded, model, texts, projections, sparsity_ratio, site, lambda named: track(named, "Measuring")
    )
    write(inspection, output, lambda pictures: track(pictures, "Drawing"), layout)
    console.print(concentration_table(inspection.summarise()))
    console.print(f"Open [bold]{output / 'index.html'}[/bold]. Pictures and numbers are beside it.")


def write(
    inspection: Inspection, output: Path, progress: Callable[[list], Iterable] = iter, layout: str = "ours"
) -> None:
    """
    Write numbers, pictures and the page.

    Args:
        inspection (`Inspection`):
            What was measured.
        output (`Path`):
            Folder, made where it is missing: `magnitudes.safetensors`, `inspect.json`, `overview.png`,
            `statistics.png`, `heatmaps.png`, `layers/*.png`, `index.html`.
        progress (`Callable`, *optional*):
            Wraps the list of pictures, e.g. `rich.progress.track`.
        layout (`str`, *optional*, defaults to `"ours"`):
            `"paper"` also draws `paper_figure_1.png`, `paper_figure_3.png`, …: heads across, channels upwards.
    """
    summary, mean = inspection.summarise(), inspection.mean()
    tensors = {
        f"{text}/{length}/{name}": magnitude.contiguous()
        for text, by_length in inspection.texts.items()
        for length, named in by_length.items()
        for name, magnitude in named.items()
    }
    with whole_file(output / "magnitudes.safetensors") as scratch:
        save_file(tensors, scratch, {"model": inspection.model, "site": inspection.site})
    write_json(output / "inspect.json", summary)

    layers: dict[str, Magnitudes] = {}
    for name, magnitude in mean.items():
        layers.setdefault(layer_of(name), {})[name] = magnitude
    subtitle = f"{Path(inspection.model).name}, {SITES[inspection.site]}, on {', '.join(inspection.texts)}"
    pictures = {
        "overview.png": lambda: draw_overview(mean, subtitle),
        "statistics.png": lambda: draw_statistics(summary, subtitle),
        "heatmaps.png": lambda: draw_layer(mean, subtitle),
    }
    if layout == "paper":
        for file, figure in paper_pictures(mean, inspection.model, ", ".join(inspection.texts)).items():
            pictures[file] = lambda figure=figure: figure
    width = max(map(len, layers))
    for layer, named in layers.items():
        file = f"layers/layer_{layer.rjust(width, '0')}.png"
        pictures[file] = lambda named=named: draw_layer(named, subtitle)
    for file in progress(list(pictures)):
        with whole_file(output / file) as scratch:
            pictures[file]().savefig(scratch)
    write_page(inspection, summary, output)


def concentration_table(summary: dict) -> Table:
    """One line a layer: what its channels hold, averaged over texts."""
    ratio, kinds = summary["sparsity_ratio"], list(summary["overlap_between_layers"])
    table = Table(title=f"Energy of the top {ratio:.0%} of channels, and max / median", title_justify="left")
    table.add_column("layer", justify="right")
    for kind in kinds:
        table.add_column(f"{KINDS[kind]} energy", justify="right")
        table.add_column(f"{KINDS[kind]} max / median", justify="right")
    layers: dict[str, dict[str, dict]] = {}
    for entry in summary["projections"].values():
        layers.setdefault(entry["layer"], {})[entry["kind"]] = entry
    for layer, by_kind in layers.items():
        cells = []
        for kind in kinds:
            if kind not in by_kind:
                cells += ["", ""]
                continue
            energy, peak = (list(by_kind[kind][key].values()) for key in ("energy_share", "max_over_median"))
            cells += [f"{sum(energy) / len(energy):.0%}", f"{sum(peak) / len(peak):.1f}"]
        table.add_row(layer, *cells)
    return table
