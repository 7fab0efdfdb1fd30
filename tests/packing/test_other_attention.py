"""Shared prefixes where attention is more than a softmax over all earlier keys, against the plain path."""

import pytest
import torch

from helpers.families import shared_prefix_error, tiny_model
from longact_trl.packing import blocks


@pytest.mark.parametrize("queries", [5, 512])
@pytest.mark.parametrize(
    "family",
    [
        "mistral@sliding",  # all layers
        "olmo3",  # some layers
        "gpt_oss",  # sinks, windows, experts with a load-balancing loss
        "gemma2",  # soft-caps and windows
        "mimo_v2_flash",  # sinks in some layers
        "qwen3_moe",  # a load-balancing loss
        "deepseek_v3",  # K and V of other sizes
        "gemma3",  # below a vision tower, as all from here
        "mistral3",
        "qwen2_5_vl",  # positions in three axes
        "internvl",
    ],
)
def test_log_probs_gradients_and_balance(family, queries, monkeypatch):
    monkeypatch.setattr(blocks, "QUERIES", queries)
    model, plain = tiny_model(family), tiny_model(family)
    if family == "gemma2":  # SDPA leaves its soft-cap out
        for each in (model, plain):
            each.config._attn_implementation = "eager"
    assert shared_prefix_error(model, plain) < 1e-5


def test_sdpa_has_no_soft_cap():
    assert shared_prefix_error(tiny_model("gemma2"), tiny_model("gemma2")) < 1e-5


def test_blocks_in_half_precision_keep_their_dtype():
    query, key = (torch.randn(1, heads, 6, 8).bfloat16() for heads in (4, 2))
    scores, columns = blocks.Scores(0.3, window=3, softcap=5.0), blocks.Columns(torch.arange(6), torch.arange(6))
    out, lse = blocks.attend(query, key, key, True, scores, columns)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32) and lse.isfinite().all()
    grads = blocks.attend_backward(out, query, key, key, out, lse, True, scores, columns)
    assert [grad.dtype for grad in grads] == [torch.bfloat16] * 3
