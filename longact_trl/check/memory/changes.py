"""Which single changes of a configuration make a memory plan fit."""

from dataclasses import replace

from .plan import RESERVE, plan_memory
from .shape import ModelShape
from .workload import Load, Placement


CHUNK = 2048
"""A `prefix_chunk_size` to suggest: as many tokens as fill a GPU, and few beside a prompt that does not fit."""


def changes_that_fit(shape: ModelShape, placement: Placement, load: Load, gpu_bytes: int) -> list[tuple[str, int]]:
    """
    Single changes of the configuration after which the plan fits.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies.
        load (`Load`):
            What is computed.
        gpu_bytes (`int`):
            Memory of a GPU.

    Returns:
        `list[tuple[str, int]]`: What to write, and the peak then in bytes, `RESERVE` included; the lowest first.
    """
    shipped = replace(placement, offload_optimizer=False, offload_weights=False)
    candidates = {
        "gradient_checkpointing: true": (placement, replace(load, checkpointing=True)),
        "vllm_enable_sleep_mode: true": (placement, replace(load, vllm_sleeps=True)),
        "per_device_train_batch_size: 1, with more accumulation": (
            placement,
            replace(load, batch=1, accumulates=True, micro_batches=max(load.micro_batches, load.batch)),
        ),
        f"prefix_chunk_size: {CHUNK}": (placement, replace(load, chunk=CHUNK)),
        "prefix_offload: true": (placement, replace(load, offload_prefix=True)),
        f"per_device_train_batch_size: 1, with more accumulation, and prefix_chunk_size: {CHUNK}": (
            placement,
            replace(load, batch=1, accumulates=True, micro_batches=max(load.micro_batches, load.batch), chunk=CHUNK),
        ),
        "attn_implementation: flash_attention_2": (placement, replace(load, attention="flash_attention_2")),
        "beta: 0": (placement, replace(load, reference=False)),
        "--accelerate-config zero3.yaml": (replace(shipped, backend="zero3"), load),
        "--accelerate-config fsdp2.yaml": (replace(shipped, backend="fsdp2"), load),
        f"--gpus {2 * placement.ranks}": (replace(placement, ranks=2 * placement.ranks), load),
        f"prompts of at most {load.prompt // 2:,} tokens": (placement, replace(load, prompt=load.prompt // 2)),
    }
    if placement.is_deepspeed:
        candidates["offload_optimizer_device: cpu"] = (replace(placement, offload_optimizer=True), load)
    peaks = {what: plan_memory(shape, *changed, gpu_bytes).peak + RESERVE for what, changed in candidates.items()}
    return sorted(((what, peak) for what, peak in peaks.items() if peak <= gpu_bytes), key=lambda item: item[1])
