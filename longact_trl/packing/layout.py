"""
A micro-batch without its repetitions: every prompt once, its completions behind it, all in one row without padding.

    padded    . . p p p p | c c c .          packed    p p p | p c c c | p c c      prefix | segment | segment
              . . p p p p | c c . .

Prefix: a prompt without its last token. Segment: that last token and a completion. Prefix and segment together are a
row, each token once, and every completion token is predicted from within its own segment. The repeated token costs one
position a row. A prompt that stands in one row only has no prefix: its segment is the whole row. A prefix that other
forward passes share is a [`KeptPrefix`]: its tokens may be in the row, in part or not at all.

Shapes: B rows, S columns of the padded batch; T packed tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from trl.trainer.utils import split_tensor_dict

from .kept import KeptPrefix
from .schedule import Turn, prompt_numbers


@dataclass(frozen=True)
class Group:
    """
    The rows that share a prompt.

    Args:
        prefix (`slice`):
            Packed tokens that all rows of the group begin with; may be empty.
        segments (`tuple[slice, ...]`):
            What follows in each row. Segments follow the prefix and one another without a gap.
        kept (`KeptPrefix`, *optional*):
            What the group has in common with other forward passes.
        seen (`int`, *optional*, defaults to `0`):
            Tokens of `kept` that stand before all of the group's and are not in the row: read from there. The
            packed prefix, if there is one, is what follows them in `kept`.
    """

    prefix: slice
    segments: tuple[slice, ...]
    kept: KeptPrefix | None = None
    seen: int = 0

    @property
    def tokens(self) -> slice:
        """All packed tokens of the group."""
        return slice(self.prefix.start, self.segments[-1].stop if self.segments else self.prefix.stop)

    @property
    def after_prefix(self) -> slice:
        """The packed tokens of all segments."""
        return slice(self.prefix.stop, self.tokens.stop)


class Block(NamedTuple):
    """Queries that attend to keys: packed tokens, or where `kept` is given, keys of that prefix."""

    queries: slice
    keys: slice
    causal: bool
    kept: KeptPrefix | None = None


@dataclass(frozen=True)
class PackedLayout:
    """
    Where each packed token stands in the padded batch.

    Args:
        rows (`torch.Tensor` of shape (T,)):
            Its row; for a prefix, the first row of its group.
        columns (`torch.Tensor` of shape (T,)):
            Its column, which is also its position: what the model would number it by in the padded batch.
        groups (`tuple[Group, ...]`):
            The groups, in packed order.
        writes (`bool`, *optional*, defaults to `False`):
            Whether K and V of the packed prefixes are to be kept. Otherwise the gradients that were kept for them are
            added to theirs.
        whole (`bool`, *optional*, defaults to `False`):
            Whether prefixes run to the end of the last layer, and not to K and V there only.
        attended (`Callable[[], None]`, *optional*):
            In the last layer, where prefixes end with K and V: called after attention.
        masks (`dict`, *optional*):
            FlexAttention's masks of this layout, by what they hide.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    groups: tuple[Group, ...]
    writes: bool = False
    whole: bool = False
    attended: Callable[[], None] | None = None
    masks: dict = field(default_factory=dict)

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """From (B, S) to (1, T)."""
        return padded[self.rows, self.columns].unsqueeze(0)

    def segments_of(self, packed: torch.Tensor) -> torch.Tensor:
        """
        From (1, T, …) to (1, tokens of segments, …): nothing is predicted in a prefix. Where there are only
        prefixes, to the last token, so that the LM head has something to run on.
        """
        segments = [packed[:, segment] for group in self.groups for segment in group.segments]
        return torch.cat(segments, dim=1) if segments else packed[:, -1:]

    def spread(self, segments: torch.Tensor) -> torch.Tensor:
        """From what `segments_of` gives back to (1, T, …), zero in prefixes."""
        num_tokens = len(self.rows)
        places = [g.after_prefix for g in self.groups if g.segments] or [slice(num_tokens - 1, num_tokens)]
        # Views and `cat` save nothing for backward: with gradient checkpointing, whatever does makes the layer run
        # again there and then, and ranks of ZeRO-3 that have no prefix would gather weights in another order.
        parts, end = [], 0
        for place, part in zip(places, segments.split([p.stop - p.start for p in places], dim=1), strict=True):
            parts += [segments.new_zeros(1, place.start - end, *segments.shape[2:]), part]
            end = place.stop
        return torch.cat([*parts, segments.new_zeros(1, num_tokens - end, *segments.shape[2:])], dim=1)

    def unpack(self, segments: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """From (1, tokens of segments) to `shape` (B, S), zero where nothing comes from. Differentiable."""
        places = (self.segments_of(self.rows.unsqueeze(0))[0], self.segments_of(self.columns.unsqueeze(0))[0])
        return segments.new_zeros(shape).index_put(places, segments.squeeze(0))

    def tokens_of_rows(self) -> torch.Tensor:
        """Packed tokens (tokens of all rows,) row by row: those of a prefix once for each row that begins with it."""
        tokens = torch.arange(len(self.rows), device=self.rows.device)
        parts = (part for group in self.groups for segment in group.segments for part in (group.prefix, segment))
        return torch.cat([tokens[part] for part in parts])

    def blocks(self) -> Iterator[Block]:
        """
        What attends to what: a group to what it has seen, a prefix to itself, all segments to their prefix, each
        segment to itself. In the last layer, a prefix to nothing.

        Yields:
            `Block`: Queries, keys, and whether attention between them is causal.
        """
        for group in self.groups:
            ends = self.attended is not None
            if group.seen and (group.segments or not ends):
                queries = group.after_prefix if ends else group.tokens
                yield Block(queries, slice(0, group.seen), False, group.kept)
            if group.prefix.start < group.prefix.stop:
                if not ends:
                    yield Block(group.prefix, group.prefix, True)
                if group.segments:
                    yield Block(group.after_prefix, group.prefix, False)
            for segment in group.segments:
                yield Block(segment, segment, True)

    def kept_prefixes(self) -> Iterator[Group]:
        """The groups of which a kept prefix is in the row, in whole or in part."""
        return (group for group in self.groups if group.kept is not None and group.prefix.start < group.prefix.stop)


def lay_out(input_ids: torch.Tensor, attention_mask: torch.Tensor, prompt_length: int, turn: Turn) -> PackedLayout:
    """
    Lay out a micro-batch.

    Args:
        input_ids (`torch.Tensor` of shape (B, S)):
            Prompts, padded on the left, and completions, padded on the right.
        attention_mask (`torch.Tensor` of shape (B, S)):
            Nonzero where a token is real.
        prompt_length (`int`):
            Columns of the prompts.
        turn (`Turn`):
            What the micro-batch shares with others.

    Returns:
        `PackedLayout`: The layout, on the device of `input_ids`.
    """
    members: dict[int, list[int]] = {}
    for row, number in enumerate(turn.numbers):
        members.setdefault(number, []).append(row)
    real = [row.nonzero().flatten() for row in attention_mask.cpu()]
    rows, columns, groups, end = [], [], [], 0

    def add(row: int, tokens: torch.Tensor) -> slice:
        nonlocal end
        rows.append(torch.full_like(tokens, row))
        columns.append(tokens)
        start, end = end, end + len(tokens)
        return slice(start, end)

    for number, together in members.items():
        kept = turn.kept.get(number)
        shared = kept is not None or len(together) > 1
        num_shared = int((real[together[0]] < prompt_length).sum()) - 1 if shared else 0
        seen = num_shared if kept is not None and number not in turn.in_row else 0
        prefix = add(together[0], real[together[0]][seen:num_shared])
        segments = tuple(add(row, real[row][num_shared:]) for row in together)
        groups.append(Group(prefix, segments, kept, seen))
    device = input_ids.device
    return PackedLayout(torch.cat(rows).to(device), torch.cat(columns).to(device), tuple(groups), turn.writes)


def regroup(batches: list[dict[str, torch.Tensor]], window: int) -> list[dict[str, torch.Tensor]]:
    """
    Bring rows of one prompt together, exchanging them only between micro-batches of one optimizer step.

    Args:
        batches (`list[dict[str, torch.Tensor]]`):
            TRL's micro-batches of one generation, with `prompt_ids` and `prompt_mask` of shape (B, P). Scalars belong
            to the whole generation.
        window (`int`):
            Consecutive micro-batches that always fall into the same optimizer step; divides their number.

    Returns:
        `list[dict[str, torch.Tensor]]`: As many micro-batches of the same size, of the same rows.
    """
    regrouped = []
    for start in range(0, len(batches), window):
        parts = batches[start : start + window]
        joined = {key: _join([part[key] for part in parts]) for key in parts[0]}
        order = prompt_numbers(joined["prompt_ids"], joined["prompt_mask"]).argsort(stable=True)
        joined = {key: _in_order(value, order) for key, value in joined.items()}
        regrouped += split_tensor_dict(joined, window)
    return regrouped


def _join(values: list) -> torch.Tensor | list | None:
    """What TRL can shuffle: rows of a tensor or a list, and what is not of rows."""
    if torch.is_tensor(values[0]):
        return torch.cat(values) if values[0].dim() else values[0]
    return None if values[0] is None else list(chain(*values))


def _in_order(value: torch.Tensor | list | None, order: torch.Tensor) -> torch.Tensor | list | None:
    if torch.is_tensor(value):
        return value[order] if value.dim() else value
    return None if value is None else [value[i] for i in order.tolist()]
