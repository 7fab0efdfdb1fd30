"""The rules by which channels are selected, a record each. To add one, add a line (CONTRIBUTING.md)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:  # the names are asked for before torch is loaded
    import torch

Score = Callable[["torch.Tensor", "torch.Generator | None"], "torch.Tensor"]


class Strategy(NamedTuple):
    """
    A rule that ranks the channels of each head.

    Args:
        masks (`bool`):
            Whether any gradient is masked at all.
        measures (`bool`):
            Whether magnitudes decide (Eq. 2), so that forward passes have to be observed.
        score (`Callable`):
            From magnitudes of shape (H, D) and a CPU generator to scores of shape (H, D); the highest of each head
            are selected.
    """

    masks: bool
    measures: bool
    score: Score


def _drawn(magnitude: "torch.Tensor", generator: "torch.Generator | None") -> "torch.Tensor":
    import torch

    return torch.rand(magnitude.shape, generator=generator)


STRATEGIES: dict[str, Strategy] = {
    "massive": Strategy(masks=True, measures=True, score=lambda magnitude, generator: magnitude),
    "min": Strategy(masks=True, measures=True, score=lambda magnitude, generator: -magnitude),
    "random": Strategy(masks=True, measures=False, score=_drawn),
    "dense": Strategy(
        masks=False, measures=False, score=lambda magnitude, generator: magnitude.new_zeros(magnitude.shape)
    ),
}
