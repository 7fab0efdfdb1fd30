"""
Attention over packed groups, in memory that grows with tokens and not with their square.

Attention to a prefix and attention within a segment are two kernel calls whose results merge by their log-sum-exp.
The backward pass of a flash kernel needs of its forward pass only each query's output and log-sum-exp, so calling it
for each block with the merged ones gives exact gradients; ring attention (arXiv:2310.01889) does so across devices. No
prompt's K or V is copied for its completions. A prefix that other passes share is one more block of keys, read from a
`KeptPrefix`, to which the block's gradients go.

Windows and soft-caps are torch's own operations on a CPU (`blocks.py`) and FlexAttention on a GPU (`flex.py`). An
attention sink adds one score that no value answers to the log-sum-exp of each head, after all blocks.

Shapes: T packed tokens, H query heads, K key heads, D channels per head.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .blocks import Columns, Scores, attend, attend_backward
from .flex import flex_packed_attention
from .layout import Block, PackedLayout


SUFFIX = "_shared_prefix"
"""What is appended to the name of an attention implementation that also understands packed groups."""


def register(implementation: str) -> str:
    """
    Register an attention function that is `implementation` where there is no packed layout.

    Args:
        implementation (`str`):
            Name of a registered attention function, e.g. `"sdpa"`, or `"eager"`.

    Returns:
        `str`: Name of the new one.
    """
    name = implementation + SUFFIX
    AttentionInterface.register(name, partial(_attention, implementation))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


@contextmanager
def usual_attention_in(config: PretrainedConfig) -> Iterator[None]:
    """
    Let a model have its own attention function, while the context lasts.

    Args:
        config (`PretrainedConfig`):
            Its configuration, with a registered function of ours or without.
    """
    config = config.get_text_config()
    name = config._attn_implementation
    config._attn_implementation = name.removesuffix(SUFFIX)
    try:
        yield
    finally:
        config._attn_implementation = name


def _attention(implementation, module, query, key, value, attention_mask, scaling=None, shared_prefix=None, **kwargs):
    if shared_prefix is None:
        config = module.config
        if implementation == "eager":  # not registered: each model file has its own
            usual = sys.modules[type(module).__module__].eager_attention_forward
        else:
            usual = ALL_ATTENTION_FUNCTIONS[implementation]
        name, config._attn_implementation = config._attn_implementation, implementation
        try:  # flash attention looks its kernel up by this name
            return usual(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        finally:
            config._attn_implementation = name
    if kwargs.get("dropout"):  # which a configuration calls by a name that is not looked for
        raise ValueError(
            f"{type(module).__name__} drops {kwargs['dropout']:.0%} of its attention, which packed attention does not "
            "compute. Write `shared_prefix: 'off'`."
        )
    if torch.is_autocast_enabled(query.device.type):  # as SDPA itself would: q_norm in float32 leaves q and k so
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    cap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    if implementation == "sdpa":  # has neither, and the model is as if it had none
        cap = sinks = None
    window = kwargs.get("sliding_window", getattr(module, "sliding_window", None))
    scores = Scores(query.size(-1) ** -0.5 if scaling is None else scaling, window or None, cap)
    return packed_attention(query, key, value, shared_prefix, scores, module, sinks).transpose(1, 2), None


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    scores: Scores | None = None,
    module: nn.Module | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Attention in which each row of a packed batch sees its own prefix and segment, causally.

    Args:
        query (`torch.Tensor` of shape (1, H, T, D)):
            Queries; on a GPU bfloat16 or float16.
        key (`torch.Tensor` of shape (1, K, T, D)):
            Keys.
        value (`torch.Tensor` of shape (1, K, T, C)):
            Values, of as many channels as keys or, in latent attention, of others.
        layout (`PackedLayout`):
            Where rows begin and end.
        scores (`Scores`, *optional*):
            Scale, window and soft-cap; a scale of 1/√D alone by default.
        module (`nn.Module`, *optional*):
            The attention layer, under which prefixes shared with other passes are kept.
        sinks (`torch.Tensor` of shape (H,), *optional*):
            A score in each head that no value answers.

    Returns:
        `torch.Tensor` of shape (1, H, T, C): Outputs, contiguous if heads and tokens are exchanged.
    """
    scores, size = scores or Scores(query.size(-1) ** -0.5), value.size(-1)
    if _by_flex_attention(query.device, scores):
        return flex_packed_attention(query, key, value, layout, scores, module, sinks)
    if missing := query.size(-1) - size:  # kernels want one size; channels of zeros change nothing
        query, key = (nn.functional.pad(x, (0, max(-missing, 0))) for x in (query, key))
        value = nn.functional.pad(value, (0, max(missing, 0)))
    return _PackedAttention.apply(query, key, value, sinks, layout, scores, module)[..., :size]


def _by_flex_attention(device: torch.device, scores: Scores) -> bool:
    """Whether a GPU has to compute what its flash kernel does not."""
    return device.type == "cuda" and (scores.window is not None or scores.softcap is not None)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, sinks, layout, scores, module):
        out = torch.zeros_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        lse = query.new_zeros(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        end = 0  # of the queries that have attended to something
        for block, columns in _blocks(layout, scores):
            queries = block.queries
            keys = _keys(block, key, value, module)
            attended = attend(query[:, :, queries], *keys, block.causal, scores, columns)
            if queries.stop > end:
                out[:, :, queries], lse[:, :, queries] = attended
                end = queries.stop
            else:
                _merge(out[:, :, queries], lse[:, :, queries], *attended)
        if sinks is not None:
            total = torch.logaddexp(lse, sinks.to(lse.dtype).view(1, -1, 1))
            out.mul_((lse - total).exp().unsqueeze(-1))
            lse = total
        if layout.writes:
            for group in layout.kept_prefixes():
                group.kept.write(module, group.seen, key[:, :, group.prefix], value[:, :, group.prefix])
        if layout.attended is not None:
            layout.attended()
        ctx.save_for_backward(query, key, value, sinks, out, lse)
        ctx.layout, ctx.scores, ctx.module = layout, scores, module
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, sinks, out, lse = ctx.saved_tensors
        layout, module = ctx.layout, ctx.module
        grads = [torch.zeros_like(x) for x in (query, key, value)]
        for block, columns in _blocks(layout, ctx.scores):
            queries = block.queries
            of = [query[:, :, queries], *_keys(block, key, value, module), out[:, :, queries], lse[:, :, queries]]
            grad_query, *others = attend_backward(grad[:, :, queries], *of, block.causal, ctx.scores, columns)
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
        grad_sinks = None
        if sinks is not None:
            share = (sinks.to(lse.dtype).view(1, -1, 1) - lse).exp()  # of a token's attention that the sink takes
            grad_sinks = -(share * (grad.to(lse.dtype) * out).sum(-1)).sum((0, 2)).to(sinks.dtype)
        return *grads, grad_sinks, None, None, None


def _blocks(layout: PackedLayout, scores: Scores) -> Iterator[tuple[Block, Columns | None]]:
    """What attends to what, with columns where they matter."""
    columns = None if scores.window is None and scores.softcap is None else layout.columns.cpu()
    for block in layout.blocks():
        if columns is None:
            yield block, None
        else:
            keys = columns if block.kept is None else block.kept.columns.cpu()
            yield block, Columns(columns[block.queries], keys[block.keys])


def _keys(block: Block, key: torch.Tensor, value: torch.Tensor, module: nn.Module) -> tuple[torch.Tensor, ...]:
    if block.kept is None:
        return key[:, :, block.keys], value[:, :, block.keys]
    return block.kept.read(module, block.keys.stop, key.device)


def _merge(out: torch.Tensor, lse: torch.Tensor, block_out: torch.Tensor, block_lse: torch.Tensor) -> None:
    """Add the attention over more keys to `out` (1, H, L, D) and `lse` (1, H, L), in place."""
    total = torch.logaddexp(lse, block_lse)
    # Neither, where a query has seen nothing yet: both are -inf.
    old, new = ((part - total).exp().nan_to_num(0.0).unsqueeze(-1) for part in (lse, block_lse))
    out.copy_(out * old + block_out * new)
    lse.copy_(total)
