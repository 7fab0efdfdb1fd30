import pytest
import torch
from scipy.stats import spearmanr

from longact_trl.analysis.inspect.concentration import energy_share, max_over_median, overlap, rank_correlation


def random_magnitudes(seed: int, num_heads: int = 5, head_dim: int = 20) -> torch.Tensor:
    return torch.randn(num_heads, head_dim, generator=torch.Generator().manual_seed(seed)).exp()


def test_energy_share_against_a_sum_over_heads():
    magnitude = random_magnitudes(0)
    top = sum((head.sort(descending=True).values[:6] ** 2).sum() for head in magnitude)
    assert energy_share(magnitude, 0.3) == pytest.approx((top / (magnitude**2).sum()).item())
    assert energy_share(torch.ones(2, 10), 0.3) == pytest.approx(0.3)


def test_max_over_median():
    assert max_over_median(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 60.0]])) == 20.0


def test_overlap_is_counted_within_heads():
    one = torch.tensor([[9.0, 8.0, 1.0, 1.0], [1.0, 1.0, 8.0, 9.0]])
    assert overlap(one, one, 0.5) == 1.0
    assert overlap(one, one.flip(0), 0.5) == 0.0
    assert overlap(one, torch.tensor([[9.0, 1.0, 8.0, 1.0], [1.0, 1.0, 8.0, 9.0]]), 0.5) == 0.75


def test_overlap_of_strangers_is_the_ratio():
    shares = [overlap(random_magnitudes(i), random_magnitudes(100 + i), 0.3) for i in range(200)]
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.02)


def test_rank_correlation_against_scipy():
    one, other = random_magnitudes(0), random_magnitudes(1) + random_magnitudes(0)
    expected = sum(spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)) / len(one)
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
