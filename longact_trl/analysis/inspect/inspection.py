"""Magnitudes of a model on some texts, measured and summed up."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...method.magnitude import Magnitudes
from ...method.projections import Projection
from ...pictures.heatmaps import KINDS, kind_of, layer_of
from .activations import measure_text
from .concentration import energy_share, max_over_median, overlap, rank_correlation


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


def _between_layers(magnitudes: Sequence[torch.Tensor], sparsity_ratio: float) -> list[list[float | None]]:
    """`None` between layers whose heads are not alike."""
    return [
        [overlap(one, other, sparsity_ratio) if one.shape == other.shape else None for other in magnitudes]
        for one in magnitudes
    ]


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
