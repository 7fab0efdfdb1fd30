"""vLLM's CPU backend: alone in its process, and beside a trainer.

After loading, vLLM (0.31) packs each linear weight for oneDNN and drops or forgets the original
(`dispatch_cpu_unquantized_gemm`). A trainer's `load_weights` then finds no parameter to write to, or writes to one
that the packed copy no longer follows. On a GPU nothing of this happens and this module does nothing.
"""

import importlib.metadata
import os

import torch


def vllm_is_for_cpus() -> bool:
    """Whether the vLLM that is installed is a CPU build. vLLM itself is not imported."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True  # the CPU build is a package of another name


def share_the_process() -> None:
    """
    Let a CPU engine run inside this process, where a second one would fight for the cores, with a KV cache of 1 GiB
    (the default is half of the machine's memory). Variables that are set already stay. Call it before vLLM is
    imported.
    """
    if vllm_is_for_cpus():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def keep_weights_loadable() -> None:
    """Let vLLM on a CPU multiply with the weights themselves. Call it before the engine is built, in its process."""
    share_the_process()
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import vllm.model_executor.layers.utils as layers

    # The functions that load a layer import this one by name each time they run.
    layers.dispatch_cpu_unquantized_gemm = _multiply_with_the_weight_itself


def _multiply_with_the_weight_itself(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear
