"""
The prompt as the model sees it, its length in tokens, and the sample size that fills a token budget.

RULER tokenises some 15 whole prompts in a binary search. Length is so nearly proportional to size that one or two
whole prompts do: the next size is read off the line through the last two, and a bracket keeps that safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..chat_template import render_chat


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Where a next size aims, and from where on a sample is long enough, as shares of the budget. Between the two the
# tokens of random words may vary without another tokenisation.
AIM, ENOUGH = 0.993, 0.98


class NothingFits(ValueError):
    """Not even the smallest sample fits."""


class Draft(NamedTuple):
    """A sample before it is measured."""

    input: str
    answer_prefix: str
    outputs: list[str]
    haystack: str  # what surrounds the answers; a stand-in says that it is one


def render(tokenizer: PreTrainedTokenizerBase, input: str, answer_prefix: str, thinking: bool = False) -> str:
    """
    The whole prompt as text: the tokenizer's own chat template around `input`, then `answer_prefix` as the beginning
    of the assistant's answer. Without a chat template it is a plain continuation (RULER's `base`). A template that
    knows `enable_thinking` is told whether the model may think.
    """
    if tokenizer.chat_template is None:
        return input + answer_prefix
    return render_chat(tokenizer, [{"role": "user", "content": input}], thinking) + answer_prefix


def count_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    """
    Tokens of a rendered prompt. A beginning-of-sequence token counts where the engine will add one: where the prompt
    does not begin with it. (RULER counts none, and one such token too many is a refused request.)
    """
    has_bos = tokenizer.bos_token is not None and prompt.startswith(tokenizer.bos_token)
    tokens = tokenizer(prompt, add_special_tokens=not has_bos, return_attention_mask=False, verbose=False)
    return len(tokens["input_ids"])


def fit(
    draft: Callable[[int], Draft], measure: Callable[[Draft], int], budget: int, smallest: int, guess: int
) -> tuple[Draft, int, int]:
    """
    A sample whose prompt fills `budget` tokens to at least `ENOUGH`, or as far as its units allow.

    Args:
        draft (`Callable`): Sample of a size, in whatever unit the task grows by.
        measure (`Callable`): Tokens of a sample's prompt.
        budget (`int`): Tokens that the prompt may have.
        smallest (`int`): Smallest size there is.
        guess (`int`): Size to try first.

    Returns:
        The sample, its tokens and its size.

    Raises:
        `NothingFits`: If not even the smallest sample fits.
    """
    size = max(guess, smallest)
    below = above = None  # (size, tokens) of the nearest sizes known to fit and not to fit
    previous = (0, 0)
    while True:
        sample = draft(size)
        tokens = measure(sample)
        if tokens <= budget:
            below, best = (size, tokens), sample
        else:
            above = (size, tokens)
        if below and (tokens == below[1] and tokens >= ENOUGH * budget or above and above[0] - below[0] <= 1):
            return best, below[1], below[0]
        if above and above[0] == smallest:
            raise NothingFits(f"the shortest sample has {tokens} tokens, and {budget} are left for it")
        slope = (tokens - previous[1]) / (size - previous[0])
        if slope <= 0:  # two sizes so close that chance outweighs them
            slope = tokens / size
        previous = (size, tokens)
        size += round((AIM * budget - tokens) / slope) or (1 if tokens <= budget else -1)
        lowest, highest = below[0] + 1 if below else smallest, above[0] - 1 if above else size
        size = min(max(size, lowest), highest)
