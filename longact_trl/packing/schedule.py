"""
Which forward pass has a prompt in it, when several micro-batches hold its completions.

    scoring     [prefix + rows]      [rows]      [rows]               the first writes K and V, the others read them
    training    [prefix]  [rows]     [rows]      [prefix + rows]      K and V come first, without gradient; the last
                                                                      micro-batch has the prefix in its graph
    in chunks   [a][b][c] [rows]     [rows]      [rows] [c][b][a]     so never more than a chunk of it has a graph
    dropout     [prefix]  [rows]     [rows]      [rows] [prefix]      alone, so that it can be drawn again

Every micro-batch stays one ordinary pass of the wrapped model over its own rows. What is around it (`before`, `after`)
is passes over stretches of a prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .kept import KeptPrefix


class Stretch(NamedTuple):
    """Tokens `start` to `stop` of a prefix that go through the model alone."""

    kept: KeptPrefix
    start: int
    stop: int


@dataclass
class Turn:
    """
    What one micro-batch does about its prompts.

    Args:
        numbers (`list[int]`):
            The prompt of each row: equal where prompts are.
        kept (`dict[int, KeptPrefix]`):
            The prompts that it shares with other passes, by number.
        in_row (`set[int]`):
            Those of them whose prefix is packed with the rows.
        writes (`bool`):
            Whether K and V of these prefixes are kept, or the gradients kept for them are added to theirs.
        before (`list[Stretch | None]`):
            Passes without gradient that keep K and V, before the rows. `None` keeps step with other ranks.
        after (`list[Stretch | None]`):
            Passes with gradient that add the gradients kept, after the backward of the rows.
    """

    numbers: list[int]
    kept: dict[int, KeptPrefix] = field(default_factory=dict)
    in_row: set[int] = field(default_factory=set)
    writes: bool = False
    before: list[Stretch | None] = field(default_factory=list)
    after: list[Stretch | None] = field(default_factory=list)


def prompt_numbers(prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
    """
    Number the distinct prompts of a batch.

    Args:
        prompt_ids (`torch.Tensor` of shape (B, P)):
            Prompts, padded.
        prompt_mask (`torch.Tensor` of shape (B, P)):
            Nonzero where a token is real.

    Returns:
        `torch.Tensor` of shape (B,): Equal where prompts are.
    """
    return torch.unique(prompt_ids.masked_fill(prompt_mask == 0, -1), dim=0, return_inverse=True)[1]


def take_turns(
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    sizes: Sequence[int],
    training: bool,
    chunk_size: int | None = None,
    offload: bool = False,
    known: dict[bytes, KeptPrefix] | None = None,
    dropout: bool = False,
) -> list[Turn]:
    """
    Share the prompts of consecutive micro-batches between which no weight changes.

    Args:
        prompt_ids (`torch.Tensor` of shape (B, P)):
            Prompts of all rows, padded on the left.
        prompt_mask (`torch.Tensor` of shape (B, P)):
            Nonzero where a token is real.
        sizes (`Sequence[int]`):
            Rows of each micro-batch; their sum is B.
        training (`bool`):
            Whether the passes have gradients.
        chunk_size (`int`, *optional*):
            Tokens of a prefix that have a graph at a time; default all.
        offload (`bool`, *optional*, defaults to `False`):
            Whether K, V and their gradients are kept in the host's memory.
        known (`dict[bytes, KeptPrefix]`, *optional*):
            What other passes of the same weights have kept, by prompt and positions. What is used is taken out of it:
            the gradients in it are those of one backward pass of the prefix.
        dropout (`bool`, *optional*, defaults to `False`):
            Whether the model drops at random. A prefix with a graph then runs alone, drawing what it drew before.

    Returns:
        `list[Turn]`: One for each micro-batch.
    """
    numbers = prompt_numbers(prompt_ids, prompt_mask)
    turns = [Turn(part.tolist(), writes=not training) for part in numbers.cpu().split(list(sizes))]
    numbers = numbers.tolist()
    for number in dict.fromkeys(numbers):
        row = numbers.index(number)
        prompt = prompt_mask[row].nonzero().flatten()
        ids, columns = prompt_ids[row, prompt], prompt[:-1]
        where = [turn for turn in turns if number in turn.numbers]
        in_chunks = chunk_size is not None and len(columns) > chunk_size
        if len(columns) == 0 or (len(where) == 1 and not in_chunks):
            continue
        in_chunks = in_chunks or (training and dropout)
        kept = (known or {}).pop(key_of(ids, columns), None) or KeptPrefix(ids, columns, offload)
        for turn in where:
            turn.kept[number] = kept
        stretches = _stretches(kept, chunk_size)
        first, last = where[0], where[-1]
        if not training and not in_chunks:
            first.in_row.add(number)
        elif not kept.is_written:
            first.before += stretches
        if training and in_chunks:
            last.after += reversed(stretches)
        elif training:
            last.in_row.add(number)
    return turns


def key_of(ids: torch.Tensor, columns: torch.Tensor) -> bytes:
    """A prompt's tokens and its prefix's columns, which are other positions in a generation of another width, as the
    key of a dictionary."""
    return torch.cat([ids, columns]).cpu().numpy().tobytes()


def _stretches(kept: KeptPrefix, chunk_size: int | None) -> list[Stretch]:
    size = chunk_size or len(kept)
    return [Stretch(kept, start, min(start + size, len(kept))) for start in range(0, len(kept), size)]
