"""
What packed attention hands to torch's CUDA kernels, on a machine that has none. In their place stand the CPU's, which
read their arguments as the CUDA kernels do (`mha_fwd` and `mha_bwd` of torch's flash_api.cpp): bfloat16 with channels
side by side, and the log-sum-exp as (H, L) from its first element on, whatever its strides say.
"""

from types import SimpleNamespace

import pytest
import torch

from longact_trl.packing import blocks
from longact_trl.packing.attention import packed_attention
from longact_trl.packing.layout import lay_out
from longact_trl.packing.schedule import take_turns


aten = torch.ops.aten


def check(*tensors: torch.Tensor) -> None:
    assert all(x.dtype == torch.bfloat16 and x.stride(-1) == 1 and x.size(-1) % 8 == 0 for x in tensors)
    query, key, value = tensors[:3]
    assert key.size(1) == value.size(1) and query.size(1) % key.size(1) == 0 and query.size(-1) <= 256


def flash(query, key, value, dropout, causal, return_debug_mask=False, *, scale=None):
    check(query, key, value)
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout, causal, scale=scale)
    return out, lse.contiguous(), None, None, query.size(2), key.size(2), None, None, None


def flash_backward(
    grad, query, key, value, out, lse, cum_q, cum_k, max_q, max_k, dropout, causal, seed, offset, *, scale=None
):
    check(query, key, value, grad, out)
    assert cum_q is None and cum_k is None and (max_q, max_k) == (query.size(2), key.size(2))
    assert lse.dtype == torch.float32
    _, heads, length, _ = query.shape
    read = lse.as_strided((1, heads, length), (heads * length, length, 1))
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad.contiguous(), query, key, value, out.contiguous(), read, dropout, causal, scale=scale
    )


@pytest.mark.parametrize("key_heads", [4, 2])
def test_gradients_are_those_of_the_cpu(monkeypatch, key_heads):
    """A slice of the merged log-sum-exp, handed on as it was, would have trained on wrong gradients on every GPU."""
    torch.manual_seed(0)
    ids, mask = torch.randint(128, (3, 28)), torch.ones(3, 28, dtype=torch.long)
    ids[:, :16] = ids[0, :16]
    [turn] = take_turns(ids[:, :16], mask[:, :16], [3], training=True)
    layout = lay_out(ids, mask, 16, turn)
    assert len(list(layout.blocks())) == 5
    tensors = [torch.randn(1, heads, len(layout.rows), 16) for heads in (4, key_heads, key_heads)]
    grad = torch.randn(1, 4, len(layout.rows), 16).bfloat16()

    def run() -> list[torch.Tensor]:
        inputs = [x.bfloat16().requires_grad_() for x in tensors]
        output = packed_attention(*inputs, layout)
        output.backward(grad)
        return [output.detach(), *(x.grad for x in inputs)]

    expected = run()
    monkeypatch.setattr(blocks, "_on_gpu", lambda query: True)
    names = {
        "_scaled_dot_product_flash_attention": flash,
        "_scaled_dot_product_flash_attention_backward": flash_backward,
    }
    monkeypatch.setattr(blocks, "aten", SimpleNamespace(_scaled_dot_product_flash_attention_for_cpu=None, **names))
    for ours, theirs in zip(run(), expected, strict=True):
        assert torch.equal(ours, theirs)
