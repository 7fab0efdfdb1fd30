"""
A micro-batch without its repetitions: every prompt once, its completions behind it, all in one row without padding.

    padded    . . p p p p | c c c .          packed    p p p | p c c c | p c c      prefix | segment | segment
              . . p p p p | c c . .

Prefix: a prompt without its last token. Segment: that last token and a completion. Prefix and segment together are a
row, each token once, and every completion token is predicted from within its own segment. The repeated token costs one
position a row. A prompt that stands in one row only has no prefix: its segment is the whole row.

Shapes: B rows, S columns of the padded batch; T packed tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from trl.trainer.utils import split_tensor_dict


@dataclass(frozen=True)
class Group:
    """
    The rows that share a prompt.

    Args:
        prefix (`slice`):
            Packed tokens that all rows of the group begin with; may be empty.
        segments (`tuple[slice, ...]`):
            What follows in each row. Segments follow the prefix and one another without a gap.
    """

    prefix: slice
    segments: tuple[slice, ...]


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
    """

    rows: torch.Tensor
    columns: torch.Tensor
    groups: tuple[Group, ...]

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """From (B, S) to (1, T)."""
        return padded[self.rows, self.columns].unsqueeze(0)

    def segments_of(self, packed: torch.Tensor) -> torch.Tensor:
        """From (1, T, …) to (1, tokens of segments, …): nothing is predicted in a prefix."""
        return torch.cat([packed[:, segment] for group in self.groups for segment in group.segments], dim=1)

    def unpack(self, segments: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """From (1, tokens of segments) to `shape` (B, S), zero where nothing comes from. Differentiable."""
        places = (self.segments_of(self.rows.unsqueeze(0))[0], self.segments_of(self.columns.unsqueeze(0))[0])
        return segments.new_zeros(shape).index_put(places, segments.squeeze(0))

    def blocks(self) -> Iterator[tuple[slice, slice, bool]]:
        """
        What attends to what: a prefix to itself, all segments of a group to its prefix, each segment to itself.

        Yields:
            `tuple[slice, slice, bool]`: Queries, keys, and whether attention between them is causal.
        """
        for group in self.groups:
            if group.prefix.start < group.prefix.stop:
                yield group.prefix, group.prefix, True
                yield slice(group.segments[0].start, group.segments[-1].stop), group.prefix, False
            for segment in group.segments:
                yield segment, segment, True


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


def plan(input_ids: torch.Tensor, attention_mask: torch.Tensor, prompt_length: int) -> PackedLayout:
    """
    Lay out a micro-batch.

    Args:
        input_ids (`torch.Tensor` of shape (B, S)):
            Prompts, padded on the left, and completions, padded on the right.
        attention_mask (`torch.Tensor` of shape (B, S)):
            Nonzero where a token is real.
        prompt_length (`int`):
            Columns of the prompts.

    Returns:
        `PackedLayout`: The layout, on the device of `input_ids`.
    """
    numbers = prompt_numbers(input_ids[:, :prompt_length], attention_mask[:, :prompt_length]).tolist()
    members: dict[int, list[int]] = {}
    for row, number in enumerate(numbers):
        members.setdefault(number, []).append(row)
    real = [row.nonzero().flatten() for row in attention_mask.cpu()]
    rows, columns, groups, end = [], [], [], 0

    def add(row: int, tokens: torch.Tensor) -> slice:
        nonlocal end
        rows.append(torch.full_like(tokens, row))
        columns.append(tokens)
        start, end = end, end + len(tokens)
        return slice(start, end)

    for together in members.values():
        num_shared = int((real[together[0]] < prompt_length).sum()) - 1 if len(together) > 1 else 0
        prefix = add(together[0], real[together[0]][:num_shared])
        groups.append(Group(prefix, tuple(add(row, real[row][num_shared:]) for row in together)))
    device = input_ids.device
    return PackedLayout(torch.cat(rows).to(device), torch.cat(columns).to(device), tuple(groups))


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
        joined = {
            key: value if value.dim() == 0 else torch.cat([p[key] for p in parts]) for key, value in parts[0].items()
        }
        order = prompt_numbers(joined["prompt_ids"], joined["prompt_mask"]).argsort(stable=True)
        joined = {key: value if value.dim() == 0 else value[order] for key, value in joined.items()}
        regrouped += split_tensor_dict(joined, window)
    return regrouped
