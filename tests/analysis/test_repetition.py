import random

import pytest

from longact_trl.analysis.perturb.repetition import MAX_PERIOD, distinct_n, longest_repeat


def brute_force(tokens: list[int]) -> int:
    """Every stretch, every unit."""
    best = 0
    for start in range(len(tokens)):
        for end in range(start + 2, len(tokens) + 1):
            stretch = tokens[start:end]
            for period in range(1, min(MAX_PERIOD, len(stretch) // 2) + 1):
                if all(stretch[i] == stretch[i - period] for i in range(period, len(stretch))):
                    best = max(best, len(stretch))
    return best


@pytest.mark.parametrize(
    "tokens, longest",
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([1, 3, 3, 3, 3, 2], 4),
        ([5, 1, 2, 1, 2, 1, 2, 9], 6),
        ([1, 2, 1, 2, 1], 5),  # two repetitions and the beginning of a third
        (list(range(MAX_PERIOD)) * 2, 2 * MAX_PERIOD),
        (list(range(MAX_PERIOD + 1)) * 2, 0),
    ],
)
def test_longest_repeat(tokens, longest):
    assert longest_repeat(tokens) == longest == brute_force(tokens)


def test_longest_repeat_against_every_stretch():
    rng = random.Random(0)
    for _ in range(60):
        tokens = [rng.randrange(3) for _ in range(rng.randrange(30))]
        assert longest_repeat(tokens) == brute_force(tokens), tokens


def test_distinct_n():
    assert distinct_n([3, 3, 3, 3, 3], 2) == 1 / 4
    assert distinct_n([1, 2, 3, 4], 2) == 1.0
    assert distinct_n([1, 2, 1, 2, 1], 1) == 2 / 5
    assert distinct_n([7], 2) == 1.0
