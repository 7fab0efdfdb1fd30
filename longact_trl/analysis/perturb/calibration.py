"""What clamping needs to know of a model, measured on the very sequences that it then reads with channels clamped."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...method.magnitude import MagnitudeObserver, Magnitudes
from ...method.masks import select_rows
from ...method.projections import find_projections
from .perturbation import measure_means


CLAMPS = {
    "sample": "the mean of the layer's Q or K on the question's own prompt",
    "pooled": "the mean of the layer's Q or K over the prompts of all questions",
}
"""Readings of the paper's "global mean value, calculated by averaging the entire query (or key) tensor" (sec. 5)."""
STRATEGIES = {"top": "massive", "random": "random", "bottom": "min"}
CONDITIONS = ("none", *STRATEGIES)


@dataclass
class Calibration:
    """
    What is known of the unperturbed model on some sequences: all that clamping needs.

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Name of a projection to its magnitudes (LongAct, Eq. 2) of shape (H, D).
        means (`dict[str, torch.Tensor]`):
            Name of a projection to the mean of its whole output on each sequence, float64 of shape (N,).
        tokens (`torch.Tensor` of shape (N,)):
            Tokens of each sequence.
    """

    magnitudes: Magnitudes
    means: dict[str, torch.Tensor]
    tokens: torch.Tensor

    def clamp_values(self, clamp: str = "pooled", sequences: Sequence[int] = ()) -> dict[str, torch.Tensor]:
        """
        What channels are clamped to.

        Args:
            clamp (`str`, *optional*, defaults to `"pooled"`):
                One of `CLAMPS`.
            sequences (`Sequence[int]`, *optional*):
                For `"sample"`: numbers of the sequences that are read together.

        Returns:
            `dict[str, torch.Tensor]`: By projection name, one value (`"pooled"`) or one a sequence.
        """
        if clamp == "sample":
            return {name: means[list(sequences)] for name, means in self.means.items()}
        shares = self.tokens / self.tokens.sum()
        return {name: (means * shares).sum() for name, means in self.means.items()}

    def rows(self, condition: str, sparsity_ratio: float, seed: int = 0) -> dict[str, torch.Tensor]:
        """Rows to clamp under a condition, by projection name; none under `"none"`."""
        if condition == "none":
            return {}
        generator = torch.Generator().manual_seed(seed)
        return {
            name: select_rows(magnitude, sparsity_ratio, STRATEGIES[condition], generator)
            for name, magnitude in self.magnitudes.items()
        }


def calibrate(model: nn.Module, sequences: Sequence[torch.Tensor], kinds: Sequence[str]) -> Calibration:
    """
    Measure magnitudes and means in one pass.

    Args:
        model (`PreTrainedModel`):
            A causal language model.
        sequences (`Sequence[torch.LongTensor]`):
            Token ids, each of shape (S,): the very sequences that will be read with channels clamped.
        kinds (`Sequence[str]`):
            Which of `"q"`, `"k"` and `"v"`.

    Returns:
        `Calibration`
    """
    observer = MagnitudeObserver(find_projections(model, kinds))
    with observer.observe(model):
        means = measure_means(model, [{"input_ids": ids[None].to(model.device)} for ids in sequences], tuple(kinds))
    return Calibration(observer.compute(), means, torch.tensor([len(ids) for ids in sequences], dtype=torch.float64))
