"""Shares and means with 95 % intervals, and whether a difference between two models may be chance."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch


Z = 1.959964  # 97.5 % quantile of the normal distribution: two-sided 95 %
NUM_RESAMPLES = 10_000  # an end of the interval then moves by less than 0.1 points from one seed to another
EXACT = 20  # differences whose 2^20 signs are all tried
TIE = 1e-12  # sums of the same numbers in another order


class Interval(NamedTuple):
    """A value and its 95 % interval: shares from 0 to 1, their differences, or losses in nats."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f}–{100 * self.high:.0f})"


def wilson_interval(num_right: int, total: int) -> Interval:
    """
    Wilson's score interval of a share: unlike value ± 1.96 standard errors it never leaves 0 to 1.

    Args:
        num_right (`int`):
            Answers that are right.
        total (`int`):
            Answers, at least 1.

    Returns:
        `Interval`

    Raises:
        `ValueError`: If there are no answers.
    """
    if total < 1:
        raise ValueError("An accuracy needs at least one answer.")
    share = num_right / total
    center = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return Interval(share, max(center - half, 0.0), min(center + half, 1.0))


def paired_difference(before: Iterable[bool], after: Iterable[bool]) -> Interval:
    """
    Gain in accuracy on the same prompts, with a bootstrap interval over prompts. Pairs make it far narrower than the
    two accuracies' own intervals suggest.

    Args:
        before (`Iterable[bool]`):
            Whether each answer was right before.
        after (`Iterable[bool]`):
            Whether the answer to the same prompt is right after.

    Returns:
        `Interval`: Of the difference of the shares, from -1 to 1.
    """
    return bootstrap_mean([[float(b) - float(a) for a, b in zip(before, after, strict=True)]])


def bootstrap_mean(groups: Sequence[Sequence[float]], weights: Sequence[float] | None = None) -> Interval:
    """
    Mean of the groups' means, with a bootstrap interval over the members of each group.

    Args:
        groups (`Sequence[Sequence[float]]`):
            Values of each group, e.g. the scores of each task's samples. No group is empty.
        weights (`Sequence[float]`, *optional*):
            Share of each group, together 1; default equal ones.

    Returns:
        `Interval`
    """
    generator = torch.Generator().manual_seed(0)
    value, resampled = 0.0, torch.zeros(NUM_RESAMPLES)
    for group, weight in zip(groups, _shares(groups, weights), strict=True):
        values = torch.tensor(group, dtype=torch.float)  # a benchmark's zeros may be whole numbers
        drawn = torch.randint(len(values), (NUM_RESAMPLES, len(values)), generator=generator)
        value += weight * values.mean().item()
        resampled += weight * values[drawn].mean(1)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Interval(value, low, high)


def sign_flip_p(groups: Sequence[Sequence[float]], weights: Sequence[float] | None = None) -> float:
    """
    Two-sided p-value of a paired permutation test: how often the mean of the groups' means is at least as far from 0
    when each difference may as well have had the other sign. All signs are tried for up to 20 differences, and
    10,000 random ones for more.

    Args:
        groups (`Sequence[Sequence[float]]`):
            Differences between two models on the same samples, by group. No group is empty.
        weights (`Sequence[float]`, *optional*):
            Share of each group, together 1; default equal ones.

    Returns:
        `float`: At least 2 / 2^n for n differences, and at least 1 / 10,001.
    """
    if sum(map(len, groups)) <= EXACT:
        means = zip(groups, _shares(groups, weights), strict=True)
        parts = [weight * value / len(group) for group, weight in means for value in group]
        sums = torch.tensor(parts[:1], dtype=torch.float64)  # its other sign turns all others around
        for part in parts[1:]:
            sums = torch.cat([sums + part, sums - part])
        return (sums.abs() >= abs(math.fsum(parts)) - TIE).double().mean().item()
    generator = torch.Generator().manual_seed(0)
    observed, flipped = 0.0, torch.zeros(NUM_RESAMPLES, dtype=torch.float64)
    for group, weight in zip(groups, _shares(groups, weights), strict=True):
        values = torch.tensor(group, dtype=torch.float64)
        signs = torch.randint(2, (NUM_RESAMPLES, len(values)), generator=generator, dtype=torch.int8) * 2 - 1
        observed += weight * values.mean().item()
        flipped += weight * (signs * values).mean(1)
    as_far = (flipped.abs() >= abs(observed) - TIE).sum().item()
    return (1 + as_far) / (1 + NUM_RESAMPLES)


def _shares(groups: Sequence, weights: Sequence[float] | None) -> Sequence[float]:
    return [1 / len(groups)] * len(groups) if weights is None else weights
