"""Eq. 9, λ: how many channels of a head are selected. Plain arithmetic, checked before torch is loaded."""

from decimal import Decimal


def num_selected(sparsity_ratio: float, head_dim: int) -> int:
    """
    Number of channels selected in each head, k = floor(λ·D) (LongAct, Eq. 9).

    λ is a decimal that somebody typed, so the floor is taken in decimal arithmetic: λ = 0.29 of D = 100 is 29, where
    binary floats give 28.

    Args:
        sparsity_ratio (`float`):
            λ, share of channels to select, in (0, 1].
        head_dim (`int`):
            D, channels per head.

    Returns:
        `int`: k, at least 1.

    Raises:
        `ValueError`: If λ is outside (0, 1], or selects no channel at all.
    """
    check_sparsity_ratio(sparsity_ratio, head_dim)
    k = int(Decimal(str(sparsity_ratio)) * head_dim)
    if k == 0:
        raise ValueError(
            f"`sparsity_ratio`={sparsity_ratio} selects none of the {head_dim} channels of a head: "
            f"floor({sparsity_ratio}·{head_dim}) = 0. The smallest usable value is {_smallest_ratio(head_dim)}."
        )
    return k


def check_sparsity_ratio(sparsity_ratio: float, head_dim: int = 128) -> None:
    """
    Check that λ is a share.

    Args:
        sparsity_ratio (`float`):
            λ.
        head_dim (`int`, *optional*, defaults to `128`):
            D, for the message only.

    Raises:
        `ValueError`: If λ is outside (0, 1].
    """
    if not 0 < sparsity_ratio <= 1:
        raise ValueError(
            f"`sparsity_ratio` must be in (0, 1], got {sparsity_ratio}. The smallest usable value for "
            f"head_dim={head_dim} is {_smallest_ratio(head_dim)}; the paper uses 0.3."
        )


def _smallest_ratio(head_dim: int) -> float:
    """Smallest λ of at most four decimals that selects one channel."""
    return -(-10_000 // head_dim) / 10_000
