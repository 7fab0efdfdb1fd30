"""What of torch is private and this package stands on."""

import pytest
import torch

from helpers.contracts import Contract


CONTRACTS = [
    Contract("torch.ops.aten._scaled_dot_product_flash_attention", "(query, key, value, dropout_p, is_causal, return_debug_mask, scale)", "packed attention on a GPU: output and log-sum-exp"),
    Contract("torch.ops.aten._scaled_dot_product_flash_attention_backward", "(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, philox_seed, philox_offset, scale)", "its gradients, from the merged output and log-sum-exp"),
    Contract("torch.ops.aten._scaled_dot_product_flash_attention_for_cpu", "(query, key, value, dropout_p, is_causal, attn_mask, scale)", "packed attention on a CPU"),
    Contract("torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward", "(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask, scale)", "its gradients"),
    Contract("torch.nn.attention.flex_attention.flex_attention", "(query, key, value, score_mod, block_mask, …)", "windows and soft-caps of packed rows on a GPU"),
    Contract("torch.nn.attention.flex_attention.create_block_mask", "(mask_mod, B, H, Q_LEN, KV_LEN, device, …)", "the same"),
    Contract("torch.nn.attention.flex_attention.AuxRequest", "(lse, …)", "its log-sum-exp"),
    Contract("torch.nn.attention.flex_attention.BlockMask", "(seq_lengths, …)", "which blocks of a packed row it visits"),
    Contract("torch.distributed.tensor._utils.compute_local_shape_and_global_offset", "(global_shape, mesh, placements, skip_offset)", "which rows of a sharded gradient this rank has (FSDP2)"),
    Contract("torch.distributed.tensor.DTensor", "has .to_local .device_mesh .placements", "the same"),
    Contract("torch.nn.Module", "has .register_forward_hook", "hooks of tests are looked for in `_forward_hooks`"),
    Contract("torch.nn.Module.__init__", "reads _backward_hooks ... _forward_hooks ... _forward_pre_hooks", "tests that no hook of ours is left"),
    Contract("torch.nn.Parameter", "has ._backward_hooks ._post_accumulate_grad_hooks ._base", "the same, of parameters; whether a tensor is a view"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()


def test_the_kernel_takes_another_log_sum_exp_in_its_backward_pass():
    """Attention over two halves of the keys, merged: each half's backward with the merged output is exact."""
    torch.manual_seed(0)
    query, key, value, grad = torch.randn(4, 1, 2, 8, 16, dtype=torch.float64).unbind()
    aten, halves = torch.ops.aten, (slice(0, 4), slice(4, 8))
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    parts = [aten._scaled_dot_product_flash_attention_for_cpu(query, key[:, :, h], value[:, :, h]) for h in halves]
    torch.testing.assert_close(torch.logaddexp(parts[0][1], parts[1][1]), lse)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    expected = backward(grad, query, key, value, out, lse, 0.0, False)[0]
    found = sum(backward(grad, query, key[:, :, h], value[:, :, h], out, lse, 0.0, False)[0] for h in halves)
    torch.testing.assert_close(found, expected)
