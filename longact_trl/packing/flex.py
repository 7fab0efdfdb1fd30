"""
Windows and soft-caps over packed groups on a GPU: one FlexAttention call, whose mask says who sees whom.

    keys      kept prefix | prefix | segment | segment          a query sees keys of its group, in the prefix or in its
    queries                 prefix | segment | segment          own segment, up to its column and within its window

K and V of a kept prefix stand before the packed ones, and FlexAttention gives their gradients with the others'. It has
not run on a GPU so far: on a CPU, uncompiled, it is compared with `packing/blocks.py` (`tests/packing/test_flex.py`).

Shapes: T packed tokens, N of kept prefixes, H query heads, K key heads, D channels per head.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from .blocks import Scores
from .layout import Group, PackedLayout


def flex_packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    scores: Scores,
    module: nn.Module | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    What [`packed_attention`] computes, by FlexAttention.

    Args:
        query (`torch.Tensor` of shape (1, H, T, D)):
            Queries.
        key, value (`torch.Tensor` of shape (1, K, T, D)):
            Keys and values.
        layout (`PackedLayout`):
            Where rows begin and end.
        scores (`Scores`):
            Scale, window and soft-cap.
        module (`nn.Module`, *optional*):
            The attention layer, under which prefixes shared with other passes are kept.
        sinks (`torch.Tensor` of shape (H,), *optional*):
            A score in each head that no value answers.

    Returns:
        `torch.Tensor` of shape (1, H, T, D): Outputs.
    """
    if layout.writes:
        for group in layout.kept_prefixes():
            group.kept.write(module, group.seen, key[:, :, group.prefix], value[:, :, group.prefix])
    elif torch.is_grad_enabled():
        key, value = _AddKeptGradients.apply(key, value, layout, module)
    before = [_read(group, module, query.device) for group in layout.groups if group.seen]
    key, value = (torch.cat([*(kept[i] for kept in before), x], 2) for i, x in enumerate((key, value)))

    def capped(score, batch, head, query_index, key_index):
        return scores.softcap * torch.tanh(score / scores.softcap)

    out, others = _kernel(query.is_cuda)(
        query,
        key,
        value,
        score_mod=None if scores.softcap is None else capped,
        block_mask=_mask(layout, scores.window, query.device),
        scale=scores.scale,
        enable_gqa=query.size(1) != key.size(1),
        return_aux=AuxRequest(lse=True),
    )
    if sinks is not None:
        out = out * (others.lse - sinks.view(1, -1, 1)).sigmoid().unsqueeze(-1).to(out.dtype)
    if layout.attended is not None:
        layout.attended()
    return out


@cache
def _kernel(compiled: bool) -> Callable:
    return torch.compile(flex_attention) if compiled else flex_attention


def _mask(layout: PackedLayout, window: int | None, device: torch.device) -> BlockMask:
    """Who sees whom, once for all layers of a kind."""
    ends = layout.attended is not None  # in the last layer, where prefixes see nothing
    if (window, ends) in layout.masks:
        return layout.masks[window, ends]
    tokens, kept = len(layout.rows), sum(group.seen for group in layout.groups)
    groups, segments = torch.zeros(2, kept + tokens, dtype=torch.long)  # of keys; 0 is the segment of a prefix
    columns, start = [], 0
    for number, group in enumerate(layout.groups):
        if group.seen:
            groups[start : start + group.seen] = number
            columns.append(group.kept.columns[: group.seen].to(device))
            start += group.seen
        groups[kept + group.tokens.start : kept + group.tokens.stop] = number
        for i, segment in enumerate(group.segments, 1):
            segments[kept + segment.start : kept + segment.stop] = i
    keys = groups.to(device), segments.to(device), torch.cat([*columns, layout.columns.to(device)])
    queries = [x[kept:] for x in keys]  # no number of this layout, for which torch would compile anew

    def sees(batch, head, query_index, key_index):
        (group, segment, column), (of_group, of_segment, of_column) = (
            [x[index] for x in tensors] for tensors, index in ((queries, query_index), (keys, key_index))
        )
        seen = (group == of_group) & ((of_segment == 0) | (of_segment == segment)) & (column >= of_column)
        if window is not None:
            seen = seen & (column - of_column < window)
        return seen & (segment > 0) if ends else seen

    mask = create_block_mask(sees, None, None, tokens, kept + tokens, device, _compile=device.type == "cuda")
    layout.masks[window, ends] = mask
    return mask


def _read(group: Group, module: nn.Module, device: torch.device) -> tuple[torch.Tensor, ...]:
    """K and V that another pass has kept, whose gradients go there."""
    kept = group.kept.read(module, group.seen, device)
    if not torch.is_grad_enabled():
        return kept
    return _ToKept.apply(*(x.detach().requires_grad_() for x in kept), group.kept, module)


class _ToKept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, key, value, kept, module):
        ctx.add = partial(kept.add_gradients, module)
        return key.view_as(key), value.view_as(value)

    @staticmethod
    def backward(ctx, *grads):
        ctx.add(grads)
        return None, None, None, None


class _AddKeptGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, key, value, layout, module):
        ctx.layout, ctx.module = layout, module
        return key.view_as(key), value.view_as(value)

    @staticmethod
    def backward(ctx, *grads):
        grads = [grad.clone() for grad in grads]
        for group in ctx.layout.kept_prefixes():
            stop = group.seen + group.prefix.stop - group.prefix.start
            from_elsewhere = group.kept.gradients(ctx.module, group.seen, stop, grads[0].device)
            if from_elsewhere is not None:
                for total, part in zip(grads, from_elsewhere, strict=True):
                    total[:, :, group.prefix] += part
        return *grads, None, None
