"""The memory plan of `longact check` against the peak of real optimizer steps."""

from collections.abc import Iterator
from functools import partial
from itertools import product

from memory_plan import measured, predicted

from longact_trl.check.memory.plan import GIB
from longact_trl.check.memory.workload import Load

from .bench import Bench, config_of


TITLE = "Memory plan against measured peaks"
NOTE = (
    "GiB at the peak of two optimizer steps of `LongActTrainer` on one GPU in bfloat16, generation and AdamW "
    "included; the plan without its reserve. On a CPU float32 is counted, by torch's profiler."
)
SIZES = (("0.6B", None), ("4B", 8))
WORKLOADS = ((2048, 4), (8192, 2))  # prompt, rows
WAYS = ((True, True), (True, False), (False, False))  # checkpoints, shared prompts
TINY_WORKLOADS = ((32, 2),)


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each model, workload, with and without checkpoints and shared prompts."""
    sizes = SIZES[:1] if bench.miniature else SIZES
    for (size, layers), (P, B) in product(sizes, TINY_WORKLOADS if bench.miniature else WORKLOADS):
        for checkpointing, shared in WAYS[:1] if bench.miniature else WAYS:
            name = "tiny" if bench.miniature else f"Qwen3-{size}" + (f", {layers} layers" if layers else "")
            row = {"model": name, "P": P, "rows": B, "checkpoints": checkpointing, "shared": shared}
            yield row | bench.attempt(partial(_compare, bench, size, layers, P, B, checkpointing, shared))
            bench.free()


def _compare(bench: Bench, size: str, layers: int | None, P: int, B: int, checkpointing: bool, shared: bool) -> dict:
    config, width = config_of(bench, size, layers), 2 if bench.on_gpu else 4
    load = Load(
        batch=B,
        prompt=P,
        completion=4 if bench.miniature else 16,
        group=B,
        shared_prefix=shared,
        generated=B,
        checkpointing=checkpointing,
        accumulates=False,
        weight_bytes=width,
        compute_bytes=width,
        attention="sdpa",
        device=bench.device.type,
    )
    plan, peak = predicted(config, load), measured(config, load)
    return {"plan GiB": plan.peak / GIB, "measured GiB": peak / GIB, "ratio": plan.peak / peak, "moment": plan.moment}
