"""
Attention of a block of queries to a block of keys, and its backward from merged outputs and log-sum-exps.

Flash kernels where nothing but causality is asked for. Sliding windows and soft-caps are computed in torch's own
operations, for as many queries at a time as bounds the memory, with the keys that any of them can see.

Shapes: L queries, N keys, H query heads, K key heads, D channels per head.
"""

from typing import NamedTuple

import torch


QUERIES = 512
"""Queries whose scores exist at once: H·QUERIES·N floats, and no more keys than the window and QUERIES are long."""

aten = torch.ops.aten


class Scores(NamedTuple):
    """
    How queries and keys make scores.

    Args:
        scale (`float`):
            Factor of their products.
        window (`int`, *optional*):
            A query sees keys fewer than so many columns before it, its own among them. Default all.
        softcap (`float`, *optional*):
            Scores s become softcap·tanh(s / softcap).
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


class Columns(NamedTuple):
    """Columns of a block's queries (L,) and of its keys (N,), which ascend; on the CPU, that no GPU waits."""

    queries: torch.Tensor
    keys: torch.Tensor


def attend(
    query, key, value, causal: bool, scores: Scores, columns: Columns | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (1, H, L, D) and log-sum-exp (1, H, L), -inf where a query sees none of the keys."""
    if _is_plain(scores, columns):
        kernel = aten._scaled_dot_product_flash_attention_for_cpu
        if _on_gpu(query):
            kernel = aten._scaled_dot_product_flash_attention
        return kernel(query, key, value, 0.0, causal, scale=scores.scale)[:2]
    out = query.new_zeros(*query.shape[:3], value.shape[3])
    exact = torch.promote_types(query.dtype, torch.float32)
    lse = query.new_full(query.shape[:3], -torch.inf, dtype=exact)
    for part, seen, visible in _parts(scores, columns, query.device):
        scored, _ = _scored(query[:, :, part].to(exact), key[:, :, seen].to(exact), visible, scores)
        total = scored.logsumexp(-1)
        weights = (scored - total.unsqueeze(-1)).exp().nan_to_num(0.0)  # of a query that sees nothing
        out[:, :, part] = _from_keys(weights, value[:, :, seen].to(exact))
        lse[:, :, part] = total
    return out, lse


def attend_backward(
    grad, query, key, value, out, lse, causal: bool, scores: Scores, columns: Columns | None
) -> tuple[torch.Tensor, ...]:
    """Gradients of query, key and value, from outputs and log-sum-exps over all keys of the queries."""
    if _is_plain(scores, columns):
        if _on_gpu(query):
            unused = torch.empty(2, dtype=torch.uint64, device=query.device)  # state of a dropout that there is not
            lengths = None, None, query.size(2), key.size(2)
            lse = lse.contiguous()  # the kernel reads (H, L) from where it begins, whatever the strides are
            return aten._scaled_dot_product_flash_attention_backward(
                grad, query, key, value, out, lse, *lengths, 0.0, causal, unused, unused, scale=scores.scale
            )
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scores.scale
        )
    exact = lse.dtype
    grads = [torch.zeros_like(x, dtype=exact) for x in (query, key, value)]
    for part, seen, visible in _parts(scores, columns, query.device):
        q, k, v = query[:, :, part].to(exact), key[:, :, seen].to(exact), value[:, :, seen].to(exact)
        g, o = grad[:, :, part].to(exact), out[:, :, part].to(exact)
        scored, slope = _scored(q, k, visible, scores)
        weights = (scored - lse[:, :, part].unsqueeze(-1)).exp()
        grad_scored = weights * (_to_keys(g, v) - (g * o).sum(-1, keepdim=True)) * slope
        grads[0][:, :, part] += _from_keys(grad_scored, k) * scores.scale
        grads[1][:, :, seen] += _onto_keys(grad_scored, q, k.size(1)) * scores.scale
        grads[2][:, :, seen] += _onto_keys(weights, g, v.size(1))
    return tuple(total.to(x.dtype) for total, x in zip(grads, (query, key, value), strict=True))


def _on_gpu(query: torch.Tensor) -> bool:
    return query.is_cuda


def _is_plain(scores: Scores, columns: Columns | None) -> bool:
    if scores.softcap is not None:
        return False
    return scores.window is None or int(columns.queries.max()) - int(columns.keys[0]) < scores.window


def _parts(scores: Scores, columns: Columns, device: torch.device):
    """Queries at a time, the keys that any of them sees, and (queries, keys) of which is seen by which."""
    for start in range(0, len(columns.queries), QUERIES):
        part = slice(start, min(start + QUERIES, len(columns.queries)))
        queries = columns.queries[part]
        first = 0
        if scores.window is not None:
            first = int(torch.searchsorted(columns.keys, queries.min() - scores.window + 1))
        last = int(torch.searchsorted(columns.keys, queries.max(), right=True))
        if first < last:
            distance = queries.unsqueeze(1) - columns.keys[first:last]
            visible = distance >= 0
            if scores.window is not None:
                visible &= distance < scores.window
            yield part, slice(first, last), visible.to(device)


def _scored(query, key, visible: torch.Tensor, scores: Scores) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Scores (1, H, L, N), -inf where not visible, and their derivatives by the products."""
    scored, slope = _to_keys(query, key) * scores.scale, 1.0
    if scores.softcap is not None:
        capped = (scored / scores.softcap).tanh()
        scored, slope = capped * scores.softcap, 1 - capped.square()
    return scored.masked_fill(~visible, -torch.inf), slope


# Heads of queries share those of keys: (1, H, L, …) with (1, K, N, …), H / K of them side by side.


def _to_keys(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(1, H, L, D) and (1, K, N, D) to (1, H, L, N)."""
    return (queries.unflatten(1, (keys.size(1), -1)) @ keys.unsqueeze(2).mT).flatten(1, 2)


def _from_keys(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(1, H, L, N) and (1, K, N, D) to (1, H, L, D)."""
    return (weights.unflatten(1, (values.size(1), -1)) @ values.unsqueeze(2)).flatten(1, 2)


def _onto_keys(weights: torch.Tensor, queries: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(1, H, L, N) and (1, H, L, D) to (1, K, N, D)."""
    return (weights.unflatten(1, (num_heads, -1)).mT @ queries.unflatten(1, (num_heads, -1))).sum(2)
