"""
Attention over packed groups, in memory that grows with tokens and not with their square.

Attention to a prefix and attention within a segment are two kernel calls whose results merge by their log-sum-exp.
The backward pass of a flash kernel needs of its forward pass only each query's output and log-sum-exp, so calling it
for each block with the merged ones gives exact gradients; ring attention (arXiv:2310.01889) does so across devices. No
prompt's K or V is copied for its completions. A prefix that other passes share is one more block of keys, read from a
`KeptPrefix`, to which the block's gradients go.

Shapes: T packed tokens, H query heads, K key heads, D channels per head.
"""

from functools import partial

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layout import Block, PackedLayout


SUFFIX = "_shared_prefix"
"""What is appended to the name of an attention implementation that also understands packed groups."""

aten = torch.ops.aten


def register(implementation: str) -> str:
    """
    Register an attention function that is `implementation` where there is no packed layout.

    Args:
        implementation (`str`):
            Name of a registered attention function, e.g. `"sdpa"`.

    Returns:
        `str`: Name of the new one.
    """
    name = implementation + SUFFIX
    AttentionInterface.register(name, partial(_attention, ALL_ATTENTION_FUNCTIONS[implementation]))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _attention(usual, module, query, key, value, attention_mask, scaling=None, shared_prefix=None, **kwargs):
    if shared_prefix is None:
        config = module.config
        name, config._attn_implementation = (
            config._attn_implementation,
            config._attn_implementation.removesuffix(SUFFIX),
        )
        try:  # flash attention looks its kernel up by this name
            return usual(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        finally:
            config._attn_implementation = name
    if torch.is_autocast_enabled(query.device.type):  # as SDPA itself would: q_norm in float32 leaves q and k so
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return packed_attention(query, key, value, shared_prefix, scaling, module).transpose(1, 2), None


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    scale: float | None = None,
    module: nn.Module | None = None,
) -> torch.Tensor:
    """
    Attention in which each row of a packed batch sees its own prefix and segment, causally.

    Args:
        query (`torch.Tensor` of shape (1, H, T, D)):
            Queries; on a GPU bfloat16 or float16.
        key (`torch.Tensor` of shape (1, K, T, D)):
            Keys.
        value (`torch.Tensor` of shape (1, K, T, D)):
            Values.
        layout (`PackedLayout`):
            Where rows begin and end.
        scale (`float`, *optional*):
            Factor of the scores, 1/√D by default.
        module (`nn.Module`, *optional*):
            The attention layer, under which prefixes shared with other passes are kept.

    Returns:
        `torch.Tensor` of shape (1, H, T, D): Outputs, contiguous if heads and tokens are exchanged.
    """
    return _PackedAttention.apply(query, key, value, layout, scale, module)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, layout, scale, module):
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
        end = 0  # of the queries that have attended to something
        for block in layout.blocks():
            queries = block.queries
            attended = _attend(query[:, :, queries], *_keys(block, key, value, module), block.causal, scale)
            if queries.stop > end:
                out[:, :, queries], lse[:, :, queries] = attended
                end = queries.stop
            else:
                _merge(out[:, :, queries], lse[:, :, queries], *attended)
        if layout.writes:
            for group in layout.kept_prefixes():
                group.kept.write(module, group.seen, key[:, :, group.prefix], value[:, :, group.prefix])
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale, ctx.module = layout, scale, module
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, lse = ctx.saved_tensors
        layout, module = ctx.layout, ctx.module
        grads = [torch.zeros_like(x) for x in (query, key, value)]
        for block in layout.blocks():
            queries = block.queries
            of = [query[:, :, queries], *_keys(block, key, value, module), out[:, :, queries], lse[:, :, queries]]
            grad_query, *others = _attend_backward(grad[:, :, queries], *of, block.causal, ctx.scale)
            grads[0][:, :, queries] += grad_query
            if block.kept is None:
                for total, part in zip(grads[1:], others, strict=True):
                    total[:, :, block.keys] += part
            else:
                block.kept.add_gradients(module, others)
        for group in layout.kept_prefixes():
            stop = group.seen + group.prefix.stop - group.prefix.start
            from_elsewhere = group.kept.gradients(module, group.seen, stop, query.device)
            if from_elsewhere is not None:
                for total, part in zip(grads[1:], from_elsewhere, strict=True):
                    total[:, :, group.prefix] += part
        return *grads, None, None, None


def _keys(block: Block, key: torch.Tensor, value: torch.Tensor, module: nn.Module) -> tuple[torch.Tensor, ...]:
    if block.kept is None:
        return key[:, :, block.keys], value[:, :, block.keys]
    return block.kept.read(module, block.keys.stop, key.device)


def _merge(out: torch.Tensor, lse: torch.Tensor, block_out: torch.Tensor, block_lse: torch.Tensor) -> None:
    """Add the attention over more keys to `out` (1, H, L, D) and `lse` (1, H, L), in place."""
    total = torch.logaddexp(lse, block_lse)
    old, new = (lse - total).exp().unsqueeze(-1), (block_lse - total).exp().unsqueeze(-1)
    out.copy_(out * old + block_out * new)
    lse.copy_(total)


def _attend(query, key, value, causal: bool, scale: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (1, H, L, D) and log-sum-exp (1, H, L)."""
    if query.is_cuda:
        return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)[:2]
    return aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)


def _attend_backward(grad, query, key, value, out, lse, causal: bool, scale: float | None) -> tuple[torch.Tensor, ...]:
    """Gradients of query, key and value."""
    if query.is_cuda:
        unused = torch.zeros(2, dtype=torch.uint64, device=query.device)  # state of a dropout that there is not
        lengths = None, None, query.size(2), key.size(2)
        return aten._scaled_dot_product_flash_attention_backward(
            grad, query, key, value, out, lse, *lengths, 0.0, causal, unused, unused, scale=scale
        )
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, out, lse, 0.0, causal, scale=scale
    )
