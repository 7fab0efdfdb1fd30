"""What sharing prompts saves in training, by prompt, rows and micro-batch, against the bound by operations."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from shared_prefix import Shape, flops, make_batch, micro_batches, plain, shared, turns_of

from longact_trl.packing.forward import packed_attention_in

from .bench import Bench, config_of, model_of


TITLE = "Shared prompts against each row by itself"
NOTE = (
    "Forward and backward of a group with gradient checkpointing, two layers of Qwen3-8B and its LM head. TRL's G "
    "passes are alike, so one row is timed and taken G times. Completions are an eighth of the prompt. ratio: TRL's "
    "seconds over shared ones; bound: the same of floating-point operations, for one micro-batch."
)
PROMPTS, GROUPS, ROWS = (8192, 32_768, 16_384), (16, 4, 8), (16, 1, 4, 8, 2)
TINY = ((32,), (4,), (4, 1))


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each cell, the corners of the grid first: time may end before cells do."""
    prompts, groups, rows = TINY if bench.miniature else (PROMPTS, GROUPS, ROWS)
    config = config_of(bench, "8B", 2)
    model = model_of(bench, config)
    single: dict[int, dict] = {}
    for size in rows:
        for P in prompts:
            for G in groups:
                if size > G:
                    continue
                shape = Shape(P, G, P // 8)
                if P not in single:
                    single[P] = bench.attempt(partial(_one_row, bench, model, shape))
                found = bench.attempt(partial(_shared, bench, model, shape, size))
                row = {"P": P, "G": G, "C": P // 8, "rows": size, **found}
                if "seconds" in found and "seconds" in single[P]:
                    work = [flops(config, shape, arm, "training", True, bench.on_gpu) for arm in ("trl", "shared")]
                    row["TRL seconds"] = G * single[P]["seconds"]
                    row |= {"ratio": row["TRL seconds"] / found["seconds"], "bound": work[0] / work[1]}
                    row["of bound"] = row["ratio"] / row["bound"]
                    row["TFLOP/s"] = work[1] / found["seconds"] / 1e12
                yield row
    del model
    bench.free()


def _one_row(bench: Bench, model, shape: Shape) -> dict:
    batch = micro_batches(make_batch(shape, model.config.vocab_size, model.device), 1)[0]
    run = partial(plain, model, batch, 1, True)
    run()
    return {"seconds": bench.seconds(run)}


def _shared(bench: Bench, model, shape: Shape, size: int) -> dict:
    batch = make_batch(shape, model.config.vocab_size, model.device)
    options = SimpleNamespace(chunk=None, kept=False)

    def run() -> None:
        turns = turns_of(model, batch, shape.P, size, "training", options)
        shared(model, batch, shape.P, turns, size, True)

    with packed_attention_in(model):
        peak = bench.peak(run)
        return {"seconds": bench.seconds(run), "peak GiB": peak}
