"""How the benchmarks shorten a prompt: its tokens without their middle.

The official scripts differ where the limit is odd, and one of them in a limit of 1; both are kept as they are.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def keep_ends(ids: Sequence[int], max_length: int) -> Sequence[int]:
    """
    Take the middle out of `ids`, as LongBench v2's `pred.py` and InfiniteBench's `eval_utils.py` do.

    Args:
        ids (`Sequence[int]`):
            Token ids.
        max_length (`int`):
            Tokens to keep; where it is odd, the tail is one longer than the head.

    Returns:
        `Sequence[int]`: `ids` itself if it fits, else `max_length` of them.
    """
    if len(ids) <= max_length:
        return ids
    return [*ids[: max_length // 2], *ids[-max_length // 2 :]]


def keep_equal_ends(ids: Sequence[int], max_length: int) -> Sequence[int]:
    """
    Take the middle out of `ids`, as InfiniteBench's scripts for completion models do (`eval_yarn_mistral.py`).

    Args:
        ids (`Sequence[int]`):
            Token ids.
        max_length (`int`):
            Tokens to keep; where it is odd, one fewer is kept, and for 1 all are (`ids[-0:]` is everything).

    Returns:
        `Sequence[int]`: `ids` itself if it fits, else its two ends.
    """
    if len(ids) <= max_length:
        return ids
    half = max_length // 2
    return [*ids[:half], *ids[-half:]]


def truncate_prompt(
    prompt: str,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    keep: Callable[[Sequence[int], int], Sequence[int]] = keep_ends,
    always_decode: bool = False,
) -> tuple[str, bool]:
    """
    Shorten a prompt to `max_length` tokens, before any chat template, as the official scripts do.

    Args:
        prompt (`str`):
            The whole prompt, question included.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's tokenizer. Its special tokens count, and are dropped when the rest is decoded again.
        max_length (`int`):
            Tokens allowed.
        keep (`Callable`, *optional*):
            [`keep_ends`] or [`keep_equal_ends`].
        always_decode (`bool`, *optional*, defaults to `False`):
            Whether a prompt that fits is decoded again too (InfiniteBench) or left as it is (LongBench v2).

    Returns:
        `tuple[str, bool]`: The prompt, and whether it was shortened.
    """
    ids = tokenizer.encode(prompt)
    kept = keep(ids, max_length)
    shortened = len(kept) < len(ids)
    if shortened or always_decode:
        prompt = tokenizer.decode(kept, skip_special_tokens=True)
    return prompt, shortened
