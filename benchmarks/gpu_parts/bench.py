"""What the parts have in common: the device, models of random weights, clocks, memory, and what is too large."""

import gc
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, Qwen3Config
from trl.trainer.utils import add_fused_lm_head

import longact_trl


CONFIGS = Path(longact_trl.__file__).parent / "assets" / "model_configs"
SMALL = {  # Qwen3-0.6B's config.json
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000},
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
}
GIB = 2**30
OUT_OF_MEMORY = "out of memory"


@dataclass
class Bench:
    """
    Where the parts run.

    Args:
        device (`torch.device`):
            A GPU, or a CPU for the miniature.
        miniature (`bool`):
            Whether shapes are tiny and turns few.
        smollm2 (`Path`, *optional*):
            Folder of SmolLM2-135M-Instruct.
    """

    device: torch.device
    miniature: bool
    smollm2: Path | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def name(self) -> str:
        """The device as it calls itself."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "CPU"

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], turns: int = 2) -> float:
        """Median over turns of what has run before, so that kernels are compiled and memory is there."""
        times = []
        for _ in range(1 if self.miniature else turns):
            self.synchronize()
            start = time.perf_counter()
            run()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def peak(self, run: Callable[[], object]) -> float | None:
        """GiB at the highest moment of a run, all that torch holds; `None` on a CPU, where nobody counts it."""
        if not self.on_gpu:
            run()
            return None
        self.free()
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) / GIB

    def free(self) -> None:
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def attempt(self, measure: Callable[[], dict]) -> dict:
        """What was measured, or why it was not: the next cell may fit, or be of another kernel."""
        try:
            return measure()
        except Exception as error:
            said = str(error)
            is_large = any(sign in said for sign in ("out of memory", "ALLOC_FAILED", "can't allocate"))
            if "CUDA error" in said and not is_large:
                raise  # nothing runs in this process any more
            traceback.print_exc()
            found = {"error": OUT_OF_MEMORY if is_large else f"{type(error).__name__}: {said[:200]}"}
        self.free()  # out of the handler, whose traceback holds the tensors that filled the device
        self.synchronize()
        return found


def config_of(bench: Bench, size: str, layers: int | None = None) -> PretrainedConfig:
    """`"0.6B"`, `"4B"` or `"8B"`, with so many of its layers; in miniature always the same tiny one."""
    if bench.miniature:
        return Qwen3Config(**TINY, attn_implementation="sdpa")
    if size == "0.6B":
        config = Qwen3Config(**SMALL, max_position_embeddings=40_960)
    else:
        config = AutoConfig.from_pretrained(CONFIGS / f"Qwen3-{size}")
    config.num_hidden_layers = layers or config.num_hidden_layers
    config.layer_types = None if layers is None else ["full_attention"] * layers
    config._attn_implementation = "sdpa"
    return config


def model_of(
    bench: Bench, config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16, checkpointing: bool = True
) -> nn.Module:
    """A model of random weights with TRL's LM head, as `GRPOTrainer` trains it."""
    torch.manual_seed(0)
    with bench.device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return ready(bench, model, checkpointing)


def ready(bench: Bench, model: nn.Module, checkpointing: bool = True) -> nn.Module:
    """TRL's LM head, gradient checkpointing, and gradients that are there as from the second micro-batch on."""
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train().to(bench.device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model
