"""What of vLLM is unexported and this package stands on."""

import pytest

from helpers.contracts import Contract
from helpers.models import make_model, make_tokenizer
from longact_trl.models.reading import load_config, window_of


pytest.importorskip("vllm")

CONTRACTS = [
    Contract("trl.generation.vllm_generation", "has .LLM", "tests start colocated vLLM quickly through it"),
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


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256}


@pytest.mark.parametrize(
    "settings, window",
    [({}, 256), ({"rope_parameters": YARN}, 256), ({"rope_parameters": YARN, "max_position_embeddings": 1024}, 1024)],
    ids=["plain", "YaRN's factor alone", "YaRN and its positions"],
)
def test_vllm_reads_as_far_as_we_say(tmp_path, settings, window):
    """Training, evaluation and `longact check` ask `window_of`; vLLM, which refuses more, must come to the same."""
    from vllm.config import ModelConfig

    config = make_model(**settings).config
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert window_of(load_config(str(tmp_path))) == window
    assert ModelConfig(str(tmp_path)).max_model_len == window
    with pytest.raises(ValueError, match="derived"):
        ModelConfig(str(tmp_path), max_model_len=window + 1)
