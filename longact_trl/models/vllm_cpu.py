"""vLLM's CPU backend beside a trainer.

After loading, vLLM (0.31) packs each linear weight for oneDNN and drops or forgets the original
(`dispatch_cpu_unquantized_gemm`). A trainer's `load_weights` then finds no parameter to write to, or writes to one
that the packed copy no longer follows. On a GPU nothing of this happens and this module does nothing.
"""

import os

import torch


def keep_weights_loadable() -> None:
    """Let vLLM on a CPU multiply with the weights themselves. Call it before the engine is built, in its process."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import vllm.model_executor.layers.utils as layers

    # The functions that load a layer import this one by name each time they run.
    layers.dispatch_cpu_unquantized_gemm = _multiply_with_the_weight_itself
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine shares the trainer's weights
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; the default is half of the machine's memory


def _multiply_with_the_weight_itself(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear
