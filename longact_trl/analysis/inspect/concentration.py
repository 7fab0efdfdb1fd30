"""How concentrated magnitudes are, and how stable: between texts, between lengths, between layers.

Shapes: H heads, D channels per head, k selected channels per head.
"""

import torch

from ...method.masks import select_rows


def energy_share(magnitude: torch.Tensor, sparsity_ratio: float) -> float:
    """
    Share of the energy (squared magnitude) that each head's top channels hold.

    Where all channels are alike it is k/D: λ, rounded down to whole channels.

    Args:
        magnitude (`torch.Tensor` of shape (H, D)):
            Magnitudes (LongAct, Eq. 2).
        sparsity_ratio (`float`):
            λ, share of each head's channels.

    Returns:
        `float`: From 0 to 1.
    """
    energy = magnitude.double().square().flatten()
    return (energy[select_rows(magnitude, sparsity_ratio)].sum() / energy.sum()).item()


def max_over_median(magnitude: torch.Tensor) -> float:
    """
    The largest magnitude of a projection in units of its median.

    Args:
        magnitude (`torch.Tensor` of shape (H, D)):
            Magnitudes.

    Returns:
        `float`
    """
    return (magnitude.max() / magnitude.median()).item()


def overlap(one: torch.Tensor, other: torch.Tensor, sparsity_ratio: float) -> float:
    """
    Share of the selected rows that two measurements have in common; λ where they know nothing of each other.

    Args:
        one (`torch.Tensor` of shape (H, D)):
            Magnitudes.
        other (`torch.Tensor` of shape (H, D)):
            Magnitudes of the same heads elsewhere.
        sparsity_ratio (`float`):
            λ, share of each head's channels that is selected.

    Returns:
        `float`: From 0 to 1.
    """
    rows, other_rows = (select_rows(magnitude, sparsity_ratio) for magnitude in (one, other))
    return ((rows & other_rows).sum() / rows.sum()).item()


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """
    Spearman's correlation of the channels' order within each head, averaged over heads. Ties, which float magnitudes
    do not have, would go by position.

    Args:
        one (`torch.Tensor` of shape (H, D)):
            Magnitudes.
        other (`torch.Tensor` of shape (H, D)):
            Magnitudes of the same heads elsewhere.

    Returns:
        `float`: From -1 to 1.
    """
    num_channels = one.shape[1]
    ranks = [m.argsort(dim=1, stable=True).argsort(dim=1).double() for m in (one, other)]
    squares = (ranks[0] - ranks[1]).square().sum(1)
    return (1 - 6 * squares / (num_channels * (num_channels**2 - 1))).mean().item()
