import pytest
import torch

from longact_trl.method.masks import STRATEGIES, select_rows
from longact_trl.method.sparsity import num_selected


APPENDIX_A = torch.tensor([[0.8, 0.2, 0.9, 0.5], [0.3, 0.7, 0.6, 0.4]])


def rows(mask: torch.Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def test_appendix_a():
    mask = select_rows(APPENDIX_A, 0.3)
    assert mask.dtype == torch.bool and mask.shape == (8,)
    assert rows(mask) == [2, 5]
    assert rows(select_rows(APPENDIX_A, 0.3, "min")) == [1, 4]
    assert rows(select_rows(APPENDIX_A, 0.5)) == [0, 2, 5, 6]


@pytest.mark.parametrize("head_dim", [4, 10, 20, 32, 64, 80, 96, 100, 128])
def test_floor_is_taken_of_the_decimal_that_was_typed(head_dim):
    for percent in range(1, 101):
        exact = percent * head_dim // 100
        if exact == 0:
            with pytest.raises(ValueError, match="smallest usable"):
                num_selected(percent / 100, head_dim)
        else:
            assert num_selected(percent / 100, head_dim) == exact, percent


@pytest.mark.parametrize("head_dim", [4, 10, 32, 80, 96, 128])
@pytest.mark.parametrize("ratio", [0.001, 0, -0.3, 1.01, 30, float("nan")])
def test_an_unusable_ratio_names_the_smallest_usable_one(ratio, head_dim):
    with pytest.raises(ValueError, match="smallest usable value") as error:
        num_selected(ratio, head_dim)
    assert str(ratio) in str(error.value)
    smallest = next(n for n in range(1, 10_001) if n * head_dim >= 10_000) / 10_000
    assert f" is {smallest}" in str(error.value)
    assert num_selected(smallest, head_dim) == 1
    with pytest.raises(ValueError):
        num_selected(round(smallest - 1e-4, 4), head_dim)


def test_ties_go_to_the_lower_channel():
    tied = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0, 0.0], [3.0] * 6])
    assert rows(select_rows(tied, 0.34)) == [1, 2, 6, 7]
    assert rows(select_rows(tied, 0.34, "min")) == [4, 5, 6, 7]
    assert rows(select_rows(tied, 0.2, "min")) == [4, 6]
    assert rows(select_rows(torch.ones(3, 128), 0.3)) == [h * 128 + d for h in range(3) for d in range(38)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_head_gets_the_same_number_of_rows(strategy):
    magnitude = torch.rand(5, 32, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6).unsqueeze(1)
    mask = select_rows(magnitude, 0.3, strategy).view(5, 32)
    assert mask.sum(1).tolist() == [32 if strategy == "dense" else 9] * 5
    if strategy in ("massive", "min"):
        sign = 1 if strategy == "massive" else -1
        for selected, values in zip(mask, sign * magnitude, strict=True):
            assert values[selected].min() > values[~selected].max()


def test_random_draws_anew_and_alike_on_every_rank():
    one, other = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    shape = torch.empty(4, 64)
    draws = [select_rows(shape, 0.3, "random", one) for _ in range(20)]
    for draw in draws:
        assert torch.equal(draw, select_rows(shape, 0.3, "random", other))
    assert len({tuple(draw.tolist()) for draw in draws}) == 20
    assert not torch.equal(draws[0].view(4, 64)[0], draws[0].view(4, 64)[1])
    assert torch.stack(draws).any(0).float().mean() > 0.95  # every channel has its chance


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_magnitude_that_is_not_finite_raises(value):
    magnitude = APPENDIX_A.clone()
    magnitude[1, 3] = value
    for strategy in ("massive", "min"):
        with pytest.raises(ValueError, match="1 of 8 magnitudes are NaN or infinite"):
            select_rows(magnitude, 0.3, strategy)
    select_rows(magnitude, 0.3, "random")  # does not look at it
    select_rows(magnitude, 0.3, "dense")


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(ValueError, match=f"'top'.*{', '.join(map(repr, STRATEGIES))}"):
        select_rows(APPENDIX_A, 0.3, "top")
