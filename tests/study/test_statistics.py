"""The study's statistics against independent computations."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from longact_trl.evaluation.statistics import sign_flip_p
from longact_trl.study.outcome import crossed_bootstrap, detectable_difference, holm, smallest_p


def scores(
    effect: float = 0.0, seeds: int = 20, samples: int = 300, noise: float = 0.02, seed: int = 0
) -> torch.Tensor:
    """Right or wrong by seed and question: questions differ in difficulty, seeds in luck."""
    generator = np.random.default_rng(seed)
    difficulty = generator.uniform(0.2, 0.9, samples)
    luck = generator.normal(0, noise, (seeds, 1))
    return torch.tensor(generator.uniform(size=(seeds, samples)) < np.clip(difficulty + luck + effect, 0, 1)).float()


def test_seeds_alone_are_scipys_bootstrap():
    """With questions that all are alike only seeds are drawn."""
    by_seed = torch.linspace(0.4, 0.7, 15, dtype=torch.float64) ** 2
    ours = crossed_bootstrap([by_seed.unsqueeze(1).expand(15, 7)])
    theirs = scipy.stats.bootstrap([by_seed.numpy()], np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert ours.value == pytest.approx(by_seed.mean().item())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=2e-3)


def test_questions_alone_are_scipys_bootstrap():
    by_question = (torch.arange(40) % 3 == 0).double()
    ours = crossed_bootstrap([by_question.expand(5, 40)])
    theirs = scipy.stats.bootstrap([by_question.numpy()], np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.013)


def test_the_interval_covers_both():
    """Wider than over seeds or questions alone, and the mean of tasks is their plain mean."""
    both = scores(noise=0.1)
    interval = crossed_bootstrap([both])
    seeds_only = crossed_bootstrap([both.mean(1, keepdim=True).expand_as(both)])
    questions_only = crossed_bootstrap([both.mean(0, keepdim=True).expand_as(both)])
    width = interval.high - interval.low
    assert width > max(seeds_only.high - seeds_only.low, questions_only.high - questions_only.low)
    two = crossed_bootstrap([torch.zeros(4, 10), torch.ones(4, 90)])
    assert tuple(two) == pytest.approx((0.5, 0.5, 0.5))


def test_flipped_signs_are_scipys_permutation_test():
    differences = [0.03, 0.01, -0.02, 0.05, 0.02, 0.04, -0.01, 0.03]
    theirs = scipy.stats.permutation_test(
        [np.array(differences)], np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    exact = [np.mean(np.array(differences) * signs) for signs in itertools.product((1, -1), repeat=8)]
    assert theirs == pytest.approx(np.mean(np.abs(exact) >= np.mean(differences) - 1e-12))
    assert sign_flip_p([differences]) == pytest.approx(theirs)


@pytest.mark.parametrize(
    "differences",
    [
        [0.1],
        [0.1, -0.1],
        [0.2, 0.1, 0.1],
        [0.0] * 5,
        [0.0, 0.0, 0.1],
        [1.0] * 6,
        [1.0, -1.0, 0.0, 1.0],
        [0.1, 0.2, -0.3],
    ],
)
def test_few_seeds_and_ties_are_scipys_too(differences):
    """Among them a sum that is 0.30000000000000004 in one order and 0.3 in another."""
    exact = {"permutation_type": "samples", "n_resamples": np.inf, "alternative": "two-sided"}
    if len(differences) > 1:
        theirs = scipy.stats.permutation_test([np.array(differences)], np.sum, **exact).pvalue
        assert sign_flip_p([differences]) == pytest.approx(min(theirs, 1.0))
    assert sign_flip_p([differences]) >= smallest_p(len(differences))


def test_groups_and_weights_are_flipped_as_one():
    groups, weights = [[0.3, 0.1], [0.2, 0.4, 0.1]], [0.75, 0.25]
    parts = [w * x / len(g) for g, w in zip(groups, weights, strict=True) for x in g]
    sums = [np.dot(parts, signs) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean(np.abs(sums) >= sum(parts) - 1e-12)
    assert sign_flip_p(groups, weights) == pytest.approx(expected) == 2 / 32
    many = [[*groups[0] * 6], [*groups[1] * 6]]  # random signs
    assert sign_flip_p(many, weights) == pytest.approx(1 / 10_001)


def test_the_smallest_p_is_that_of_seeds_which_all_agree():
    for seeds in (1, 2, 6, 20):
        assert sign_flip_p([[0.01 * (i + 1) for i in range(seeds)]]) == pytest.approx(smallest_p(seeds))
    assert smallest_p(6) < 0.05 < smallest_p(5) and smallest_p(3, 8) == 1.0


def test_what_could_be_detected_is_detected_in_80_percent_of_studies():
    generator = np.random.default_rng(3)
    spread, seeds = 0.03, 20
    effect = detectable_difference((generator.normal(0, 1, seeds) * 0 + np.linspace(-1, 1, seeds) * spread).tolist())
    deviation = np.std(np.linspace(-1, 1, seeds) * spread, ddof=1)
    assert effect == pytest.approx(
        (scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)) * deviation / math.sqrt(seeds)
    )
    found = scipy.stats.ttest_1samp(generator.normal(effect, deviation, (4000, seeds)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.05)
    assert detectable_difference([0.1]) is None
    assert detectable_difference([0.1, 0.2, 0.3, 0.2, 0.1]) is None  # whose signs find nothing


def test_holm():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_a_planted_effect_is_found_and_a_null_is_not():
    base = scores(seed=1)
    planted = crossed_bootstrap([scores(0.05, seed=1) - base])
    assert planted.low > 0 and planted.value == pytest.approx(0.05, abs=0.02)
    null = [crossed_bootstrap([scores(seed=2 * i + 10) - scores(seed=2 * i + 11)]) for i in range(40)]
    # Different questions in both: the hardest null. Pigeonhole bootstraps are on the wide side.
    assert sum(interval.low > 0 or interval.high < 0 for interval in null) <= 4
