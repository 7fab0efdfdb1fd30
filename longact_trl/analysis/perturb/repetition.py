"""How much a text repeats itself: what a model does that has lost its context ("3333…")."""

from collections.abc import Sequence


MAX_PERIOD = 16  # tokens of the longest unit whose repetition is looked for: a short sentence


def distinct_n(tokens: Sequence[int], n: int = 2) -> float:
    """
    Share of a text's n-grams that are different (arXiv:1510.03055).

    Args:
        tokens (`Sequence[int]`):
            Token ids.
        n (`int`, *optional*, defaults to `2`):
            Length of the n-grams.

    Returns:
        `float`: 1 where nothing repeats, also for a text shorter than n.
    """
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def longest_repeat(tokens: Sequence[int]) -> int:
    """
    The longest stretch that is one unit of at most `MAX_PERIOD` tokens again and again, without a gap.

    Args:
        tokens (`Sequence[int]`):
            Token ids.

    Returns:
        `int`: Tokens of that stretch, all its repetitions together; 0 if no unit follows itself.
    """
    longest = 0
    for period in range(1, MAX_PERIOD + 1):
        same = 0  # tokens in a row that equal the one a period before
        for i in range(period, len(tokens)):
            same = same + 1 if tokens[i] == tokens[i - period] else 0
            if same >= period:
                longest = max(longest, same + period)
    return longest
