"""All numbers of a measurement, ready for JSON: shares of the gradient by length, layer and λ, and what steps did."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from ...method.sparsity import num_selected
from ...pictures.heatmaps import KINDS, kind_of, layer_of
from .measurement import STEP_SIZE, Measured
from .restricted_step import DIRECTIONS
from .row_energy import STRATEGIES, chance, select, share


MOST = "most"
"""Beside the strategies: what as many rows of each head could hold at most, chosen by the gradient itself."""
DRAWS = 16  # of random rows, whose mean is one batch's share
RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def summarise(measured: Sequence[Measured], sparsity_ratio: float) -> dict:
    """
    Sum a measurement up.

    Args:
        measured (`Sequence[Measured]`):
            One entry a batch, of which at least one has a gradient.
        sparsity_ratio (`float`):
            λ.

    Returns:
        `dict`: `chance`; `lengths`, by tokens; `share_by_layer` and `share_by_ratio`, by kind. Where there is a list,
        it has one entry a batch that has a gradient.
    """
    with_gradient = [batch for batch in measured if batch.energy]
    names = list(with_gradient[0].energy)
    kinds = [kind for kind in KINDS if any(kind_of(name) == kind for name in names)]
    some = with_gradient[0].magnitudes
    return {
        "sparsity_ratio": sparsity_ratio,
        "chance": chance(some, select(some, sparsity_ratio, "massive")),
        "step_size": STEP_SIZE,
        "lengths": {
            tokens: _of_length([batch for batch in measured if batch.num_tokens == tokens], kinds, sparsity_ratio)
            for tokens in dict.fromkeys(batch.num_tokens for batch in measured)
        },
        "share_by_layer": {
            kind: {
                layer_of(name): {
                    strategy: _shares(with_gradient, [name], sparsity_ratio, strategy)
                    for strategy in (*STRATEGIES, MOST)
                }
                for name in names
                if kind_of(name) == kind
            }
            for kind in kinds
        },
        "share_by_ratio": {
            kind: {
                ratio: _shares(with_gradient, _of_kind(names, kind), ratio, "massive")
                for ratio in RATIOS
                if all(_selects(ratio, magnitude.shape[1]) for magnitude in some.values())
            }
            for kind in kinds
        },
    }


def _of_length(batches: Sequence[Measured], kinds: Sequence[str], sparsity_ratio: float) -> dict:
    with_gradient = [batch for batch in batches if batch.energy]
    summary = {
        "groups": sum(batch.num_groups for batch in batches),
        "groups_that_vary": sum(batch.num_varying for batch in batches),
        "reward": fmean(batch.reward for batch in batches),
        "completion_tokens": fmean(batch.completion_tokens for batch in batches),
    }
    if with_gradient:
        names = list(with_gradient[0].energy)
        summary["share"] = {
            kind: {
                strategy: _shares(with_gradient, _of_kind(names, kind), sparsity_ratio, strategy)
                for strategy in (*STRATEGIES, MOST)
            }
            for kind in kinds
        }
    if any(batch.steps for batch in with_gradient):
        summary["steps"] = {
            direction: {
                strategy: {
                    batch: [
                        getattr(step, batch)
                        for measured in with_gradient
                        for step in measured.steps
                        if (step.direction, step.strategy) == (direction, strategy)
                    ]
                    for batch in ("same", "held_out")
                }
                for strategy in (*STRATEGIES, "dense")
            }
            for direction in DIRECTIONS
        }
    return summary


def _shares(batches: Iterable[Measured], names: Sequence[str], sparsity_ratio: float, strategy: str) -> list[float]:
    return [_share(batch, tuple(names), sparsity_ratio, strategy) for batch in batches]


def _share(batch: Measured, names: tuple[str, ...], sparsity_ratio: float, strategy: str) -> float:
    if (names, sparsity_ratio, strategy) not in batch.shares:  # a batch is summed up again behind each that follows
        # The rows of largest gradient are what "massive" takes where gradients stand for magnitudes.
        by, chosen = (batch.energy, "massive") if strategy == MOST else (batch.magnitudes, strategy)
        by, energy = ({name: named[name] for name in names} for named in (by, batch.energy))
        seeds = range(DRAWS if strategy == "random" else 1)
        shares = (share(energy, select(by, sparsity_ratio, chosen, seed)) for seed in seeds)
        batch.shares[names, sparsity_ratio, strategy] = fmean(shares)
    return batch.shares[names, sparsity_ratio, strategy]


def _of_kind(names: Iterable[str], kind: str) -> list[str]:
    return [name for name in names if kind_of(name) == kind]


def _selects(ratio: float, head_dim: int) -> bool:
    try:
        return num_selected(ratio, head_dim) > 0
    except ValueError:
        return False
