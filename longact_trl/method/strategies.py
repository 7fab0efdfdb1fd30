"""The rules by which channels are selected, a record each. To add one, add a line (CONTRIBUTING.md)."""

from collections.abc import Callable
from typing import NamedTuple

import torch


Score = Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]


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


STRATEGIES: dict[str, Strategy] = {
    "massive": Strategy(masks=True, measures=True, score=lambda magnitude, generator: magnitude),
    "min": Strategy(masks=True, measures=True, score=lambda magnitude, generator: -magnitude),
    "random": Strategy(
        masks=True, measures=False, score=lambda magnitude, generator: torch.rand(magnitude.shape, generator=generator)
    ),
    "dense": Strategy(masks=False, measures=False, score=lambda magnitude, generator: torch.zeros(magnitude.shape)),
}
