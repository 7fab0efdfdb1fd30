"""Hours of a run, by hand count; operations against those that torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from longact_trl.check.hours import amount, hours_of, hours_table, scoring_passes
from longact_trl.check.memory.shape import ModelShape, shape_of
from longact_trl.check.subject import read_subject
from longact_trl.check.verdict import CannotCheck
from longact_trl.check.work import decode_bytes, decode_flops, pass_flops, prefill_flops
from longact_trl.settings.gpus import SHARE_OF_BANDWIDTH, SHARE_OF_FLOPS, Gpu, gpu_named


SMALL = ModelShape(
    parameters=1000,
    trainable=1000,
    layers=2,
    layer_parameters=300,
    hidden=4,
    intermediate=8,
    query=8,
    key=4,
    heads=2,
    head_dim=4,
    vocab=16,
    tied=False,
    qk_norm=True,
)
LINEAR, ATTENTION, HEAD = 2 * 2 * (4 * 24 + 3 * 4 * 8), 4 * 8 * 2, 2 * 64  # a token, a pair, a scored token


def test_a_pass_by_hand():
    # Two rows of 3 + 2 tokens: 10 tokens and 2·15 pairs, 4 tokens scored. Shared: 2 + 2·3 and 3 + 2·(3·2 + 6).
    plain = 10 * LINEAR + 30 * ATTENTION + 4 * HEAD
    # The 2 tokens before the last of the prompt skip, in one of two layers, attention to 3 pairs, W_O and the MLP.
    linear, pairs = 8 * LINEAR - 2 * 2 * (4 * 8 + 3 * 4 * 8), 27 - 3 / 2
    shared = linear + pairs * ATTENTION + 4 * HEAD
    assert pass_flops(SMALL, 3, 2, 2, training=False, shared=False) == plain
    assert pass_flops(SMALL, 3, 2, 2, training=False) == shared
    assert pass_flops(SMALL, 3, 2, 2, True) == 4 * linear + 4.5 * pairs * ATTENTION + 4 * 4 * HEAD
    without = pass_flops(SMALL, 3, 2, 2, True, checkpointing=False)
    assert without == 3 * linear + 3.5 * pairs * ATTENTION + 4 * 4 * HEAD


def test_a_generation_by_hand():
    assert prefill_flops(SMALL, 3) == 3 * LINEAR + 6 * ATTENTION + HEAD
    # The first new token sees 4 tokens, the second 5.
    assert decode_flops(SMALL, 3, 2) == 2 * (LINEAR + HEAD) + 9 * ATTENTION
    # 6 completions, 3 at once: all weights twice for each of 2 tokens; K and V of 9 tokens of each completion.
    assert decode_bytes(SMALL, 3, 2, 6, 3, width=2) == 2 * (4 * 1000 + 6 * 9 * (2 * 2 * 4))


@pytest.mark.parametrize("training", [False, True])
def test_operations_are_those_that_torch_counts(training):
    config = Qwen3Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=128,
        attn_implementation="eager",
    )
    model, ids = Qwen3ForCausalLM(config), torch.randint(128, (2, 24))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = model(ids).logits
        if training:
            logits.sum().backward()
    shape = shape_of(config)
    counted = pass_flops(shape, 0, 2, 24, training, shared=False, checkpointing=False)
    # Eager computes all pairs, also those that a causal kernel leaves out, and its backward no scores again; torch's
    # own head no logits.
    pairs, causal = 2 * 24 * 24, 2 * 24 * 25 / 2
    attention = 4 * shape.query * shape.layers
    expected = counted + (3 * pairs - 3.5 * causal if training else pairs - causal) * attention
    expected -= 2 * shape.embedding * 48 * training
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_the_papers_run_by_hand(clone, offline_machine):
    """8 prompts × 16 completions a step on 8 GPUs: one prompt a rank, forwarded once."""
    subject, gpu = read_subject("qwen3_8b.yaml", gpus=8), gpu_named("h100")
    hours = hours_of(subject, gpu)
    shape, P, C = subject.shape, 28_672, 4_096
    rate, bandwidth = 989e12 * SHARE_OF_FLOPS, 3.35e12 * SHARE_OF_BANDWIDTH
    assert hours.parts["training"] == pytest.approx(pass_flops(shape, P, 16, C, True) / rate)
    assert hours.parts["scoring"] == pytest.approx(pass_flops(shape, P, 16, C, False) / rate)
    keys = 16 * (C * P + C * (C + 1) / 2) * 36 * 2 * 8 * 128 * 2  # bytes of K and V that completions read
    share = int(0.35 * 80 * 2**30) - 2 * shape.parameters - 2 * 2**30  # of vLLM, beside weights and workspace
    at_once = share // (36 * 2 * 8 * 128 * 2) / (P / 16 + C)
    weights = C * 16 / at_once * 2 * shape.parameters
    prefill = prefill_flops(shape, P) / rate
    assert hours.parts["generation"] == pytest.approx((keys + weights) / bandwidth + prefill)
    assert hours.steps == (1591 + 1000) * 16 // 128
    assert hours.gpu_hours == pytest.approx(sum(hours.parts.values()) * 323 / 3600 * 8)


@pytest.mark.parametrize(
    ("overrides", "part", "factor"),
    [
        (["--beta", "0.1"], "scoring", 2),  # a reference pass
        (["--num_iterations", "2"], "generation", 0.5),
        (["--num_iterations", "2"], "scoring", 0.5),
        (["--num_iterations", "2"], "training", 1),
        (["--gradient_accumulation_steps", "8"], "training", 2),
    ],
)
def test_what_a_step_does_scales_its_parts(clone, offline_machine, overrides, part, factor):
    parts = [hours_of(read_subject("qwen3_4b.yaml", more, 8), gpu_named("H800")).parts for more in ([], overrides)]
    assert parts[1][part] == pytest.approx(factor * parts[0][part], rel=1e-6)


def test_scoring_passes_are_made_where_something_needs_them(clone):
    def count(*overrides: str) -> int:
        return scoring_passes(read_subject("qwen3_4b.yaml", overrides, 8).args)

    alone = ["--use_vllm", "false", "--shared_prefix", "off"]
    assert count() == 1  # vLLM's importance ratios
    assert count(*alone) == 1  # magnitudes
    assert count(*alone, "--strategy", "dense") == 0
    assert count(*alone, "--saliency_source", "previous_step") == 0


def test_servers_are_not_counted_and_steps_and_price_are_said_where_known(clone, offline_machine):
    subject = read_subject("qwen3_4b.yaml", ["--vllm_mode", "server", "--max_steps", "10"], 8)
    hours = hours_of(subject, Gpu("X", 1e15, 1e12))
    assert set(hours.parts) == {"scoring", "training"} and hours.steps == 10
    table = hours_table(hours, Gpu("X", 1e15, 1e12), price=2.0)
    assert list(table.columns[2].cells)[-2:] == [amount(hours.gpu_hours), amount(2 * hours.gpu_hours)]
    assert "X at 40% of 1,000 TFLOP/s and 60% of 1.00 TB/s, assumed and not measured" in table.caption
    with pytest.raises(CannotCheck, match="CPU's peaks"):
        hours_of(read_subject("quickstart.yaml"), gpu_named("h100"))
    with pytest.raises(ValueError, match="'b7' is none of A100, H100, H800, H200"):
        gpu_named("b7")


def test_what_is_small_is_not_nothing():
    values = (0, 0.001, 0.25, 3.456, 46.04, 99.96, 123.4, 12_345)
    assert [amount(value) for value in values] == ["0.00", "<0.01", "0.25", "3.46", "46.0", "100.0", "123", "12,345"]
