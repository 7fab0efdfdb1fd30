"""`longact inspect`: what the activations of a model look like, in numbers, pictures and a page to browse."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import nn

from ...method.magnitude import Magnitudes
from ...method.masks import num_selected
from ...method.projections import Projection
from ...models.reading import load_model, load_skeleton, load_tokenizer, window_of
from ...pictures.heatmaps import KINDS, kind_of, layer_of
from ..chosen_projections import choose_projections
from ..questions import benchmark_texts, check_task
from ..texts import built_in_texts, file_texts, parse_length
from .activations import SITES, check_site, measure_text
from .concentration import energy_share, max_over_median, overlap, rank_correlation


DEFAULT_LENGTH = 2048  # tokens of a built-in text
PREFIXES = (16, 8, 4, 2)  # a text is also measured at its first sixteenth, eighth, …
MIN_PREFIX = 16  # tokens


@dataclass
class Inspection:
    """
    Magnitudes of a model on some texts, and what they say.

    Args:
        model (`str`):
            Hub id or folder.
        site (`str`):
            Where in the attention layer: one of [`~longact_trl.analysis.inspect.activations.SITES`].
        sparsity_ratio (`float`):
            λ, share of each head's channels that counts as selected.
        texts (`dict[str, dict[int, Magnitudes]]`):
            Name of a text to number of tokens, ascending, to magnitudes; the largest number is the whole text.
    """

    model: str
    site: str
    sparsity_ratio: float
    texts: dict[str, dict[int, Magnitudes]]

    def whole(self) -> dict[str, Magnitudes]:
        """Magnitudes of each whole text."""
        return {text: by_length[max(by_length)] for text, by_length in self.texts.items()}

    def mean(self) -> Magnitudes:
        """Magnitudes over all whole texts (LongAct, Eq. 2)."""
        named = list(self.whole().values())
        return {name: torch.stack([m[name].double() for m in named]).mean(0).float() for name in named[0]}

    def summarise(self) -> dict:
        """All numbers but the magnitudes themselves, ready for JSON."""
        whole, mean, ratio = self.whole(), self.mean(), self.sparsity_ratio
        projections = {}
        for name, magnitude in mean.items():
            over_lengths = {
                text: {length: (m[name], by_length[max(by_length)][name]) for length, m in by_length.items()}
                for text, by_length in self.texts.items()
            }
            projections[name] = {
                "layer": layer_of(name),
                "kind": kind_of(name),
                "heads": len(magnitude),
                "head_dim": magnitude.shape[1],
                "energy_share": {text: energy_share(m[name], ratio) for text, m in whole.items()},
                "max_over_median": {text: max_over_median(m[name]) for text, m in whole.items()},
                "overlap_between_texts": {
                    f"{one} | {other}": overlap(whole[one][name], whole[other][name], ratio)
                    for one, other in itertools.combinations(whole, 2)
                },
                "overlap_with_whole_text": {
                    text: {length: overlap(*pair, ratio) for length, pair in pairs.items()}
                    for text, pairs in over_lengths.items()
                },
                "rank_correlation_with_whole_text": {
                    text: {length: rank_correlation(*pair) for length, pair in pairs.items()}
                    for text, pairs in over_lengths.items()
                },
            }
        return {
            "model": self.model,
            "site": self.site,
            "sparsity_ratio": ratio,
            "tokens": {text: max(by_length) for text, by_length in self.texts.items()},
            "projections": projections,
            "overlap_between_layers": {
                kind: _between_layers([m for name, m in mean.items() if kind_of(name) == kind], ratio)
                for kind in KINDS
                if any(kind_of(name) == kind for name in mean)
            },
        }


def _between_layers(magnitudes: Sequence[torch.Tensor], sparsity_ratio: float) -> list[list[float]]:
    return [[overlap(one, other, sparsity_ratio) for other in magnitudes] for one in magnitudes]


def inspect_model(
    model: nn.Module,
    name: str,
    texts: Mapping[str, torch.Tensor],
    projections: Sequence[Projection],
    sparsity_ratio: float = 0.3,
    site: str = "projection",
    progress: Callable[[list], Iterable] = iter,
) -> Inspection:
    """
    Measure a model on texts, each one and its beginnings in one pass.

    Args:
        model (`PreTrainedModel`):
            A causal language model.
        name (`str`):
            What to call it.
        texts (`dict[str, torch.LongTensor]`):
            Name to token ids of shape (S,).
        projections (`Sequence[Projection]`):
            What to measure.
        sparsity_ratio (`float`, *optional*, defaults to `0.3`):
            λ.
        site (`str`, *optional*, defaults to `"projection"`):
            Where in the attention layer.
        progress (`Callable`, *optional*):
            Wraps the list of texts, e.g. `rich.progress.track`.

    Returns:
        `Inspection`
    """
    measured = {}
    for text in progress(list(texts)):
        lengths = [len(texts[text]) // part for part in PREFIXES]
        lengths = [length for length in lengths if length >= MIN_PREFIX]
        measured[text] = measure_text(model, texts[text], projections, lengths, site)
    return Inspection(name, site, sparsity_ratio, measured)


def main(
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
    write(inspection, output, lambda pictures: track(pictures, "Drawing"))
    console.print(concentration_table(inspection.summarise()))
    console.print(f"Open [bold]{output / 'index.html'}[/bold]. Pictures and numbers are beside it.")


def read_texts(
    model: str, files: Sequence[Path], benchmark: str | None, length: str | None, window: int | None
) -> dict[str, torch.Tensor]:
    """
    The texts that a user asked for, or the built-in ones.

    Args:
        model (`str`):
            Hub id or folder, for its tokenizer.
        files (`Sequence[Path]`):
            A user's texts; empty for none.
        benchmark (`str` or `None`):
            Name of a benchmark, e.g. `"ruler/cwe"`.
        length (`str` or `None`):
            Tokens of each text, e.g. `"4k"`.
        window (`int` or `None`):
            Tokens that the model can read; `None` is no limit.

    Returns:
        `dict[str, torch.LongTensor]`: Name to token ids of shape (S,).

    Raises:
        `ValueError`: If both files and a benchmark are named, or a text does not fit.
    """
    if files and benchmark:
        raise ValueError("Write --text or --benchmark, not both.")
    num_tokens = parse_length(length) if length else None
    window = sys.maxsize if window is None else window
    if num_tokens and num_tokens > window:
        raise ValueError(f"--length {length} is more than the {window:,} tokens that {model} can read.")
    if benchmark:
        check_task(benchmark)
    tokenizer = load_tokenizer(model)
    if files:
        texts = file_texts(tokenizer, files, num_tokens)
    elif benchmark:
        texts = benchmark_texts(tokenizer, benchmark, num_tokens or min(DEFAULT_LENGTH, window))
    else:
        texts = built_in_texts(tokenizer, num_tokens or min(DEFAULT_LENGTH, window))
    for name, ids in texts.items():
        if len(ids) > window:
            raise ValueError(
                f"{name!r} has {len(ids):,} tokens, {model} can read {window:,}. Cut it with --length {window}."
            )
    return texts


def write(inspection: Inspection, output: Path, progress: Callable[[list], Iterable] = iter) -> None:
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
    """
    from .page import write_page
    from .pictures import draw_layer, draw_overview, draw_statistics

    (output / "layers").mkdir(parents=True, exist_ok=True)
    summary, mean = inspection.summarise(), inspection.mean()
    tensors = {
        f"{text}/{length}/{name}": magnitude.contiguous()
        for text, by_length in inspection.texts.items()
        for length, named in by_length.items()
        for name, magnitude in named.items()
    }
    save_file(tensors, output / "magnitudes.safetensors", {"model": inspection.model, "site": inspection.site})
    (output / "inspect.json").write_text(json.dumps(summary, indent=1))

    layers: dict[str, Magnitudes] = {}
    for name, magnitude in mean.items():
        layers.setdefault(layer_of(name), {})[name] = magnitude
    subtitle = f"{Path(inspection.model).name}, {SITES[inspection.site]}, on {', '.join(inspection.texts)}"
    pictures = {
        "overview.png": lambda: draw_overview(mean, subtitle),
        "statistics.png": lambda: draw_statistics(summary, subtitle),
        "heatmaps.png": lambda: draw_layer(mean, subtitle),
    }
    width = max(map(len, layers))
    for layer, named in layers.items():
        file = f"layers/layer_{layer.rjust(width, '0')}.png"
        pictures[file] = lambda named=named: draw_layer(named, subtitle)
    for file in progress(list(pictures)):
        pictures[file]().savefig(output / file)
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
            energy, peak = (list(by_kind[kind][key].values()) for key in ("energy_share", "max_over_median"))
            cells += [f"{sum(energy) / len(energy):.0%}", f"{sum(peak) / len(peak):.1f}"]
        table.add_row(layer, *cells)
    return table
