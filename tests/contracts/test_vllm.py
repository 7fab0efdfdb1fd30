"""What of vLLM is unexported and this package stands on."""

import pytest

from helpers.contracts import Contract


pytest.importorskip("vllm")

CONTRACTS = [
    Contract("vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm", "(layer, remove_weight)", "on a CPU a layer multiplies with the weight that the trainer writes to"),
    Contract("vllm.platforms.current_platform", "has .is_cpu", "whether that is needed"),
    Contract("vllm.LLM.apply_model", "(func)", "channels of an engine are clamped in hooks"),
    Contract("vllm.LLM.reset_prefix_cache", "(reset_running_requests, reset_connector)", "what was cached before is not clamped"),
    Contract("vllm.LLM.__init__", "sets .llm_engine", "the engine's configuration"),
    Contract("vllm.config.ModelConfig", "has .enforce_eager", "graphs that hooks cannot reach are refused"),
    Contract("vllm.config.ParallelConfig", "has .world_size", "an engine of several workers is refused"),
    Contract("vllm.model_executor.layers.linear.QKVParallelLinear.__init__", "sets .num_heads .num_kv_heads .head_size", "where Q, K and V begin in the fused projection"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()
