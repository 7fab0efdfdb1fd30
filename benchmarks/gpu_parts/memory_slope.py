"""How the peak of a training pass grows with the prompt: plain, shared, and shared in chunks."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from shared_prefix import Shape, make_batch, micro_batches, plain, shared, turns_of

from longact_trl.packing.forward import packed_attention_in

from .bench import Bench, config_of, model_of


TITLE = "Memory of a longer prompt"
NOTE = (
    "Peak of torch's allocator, GiB, weights and gradients included: four completions of 512 tokens in micro-batches "
    "of one row, four layers of Qwen3-8B, gradient checkpointing. KiB a token: growth since the shortest prompt."
)
PROMPTS = (8192, 16_384, 32_768, 65_536, 131_072)
CHUNK, TINY_CHUNK = 2048, 8
TINY = (16, 32)


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each arm and length of prompt."""
    model = model_of(bench, config_of(bench, "8B", 4))
    chunk = TINY_CHUNK if bench.miniature else CHUNK
    completion = 4 if bench.miniature else 512
    arms = {"plain": None, "shared": None, f"shared, chunks of {chunk:,}": chunk}
    for arm, size in arms.items():
        first = None
        for P in TINY if bench.miniature else PROMPTS:
            row = {"arm": arm, "P": P}
            row |= bench.attempt(partial(_peak, bench, model, Shape(P, 4, completion), arm == "plain", size))
            if row.get("peak GiB") is not None:
                first = first or row
                if P > first["P"]:
                    row["KiB a token"] = (row["peak GiB"] - first["peak GiB"]) * 2**20 / (P - first["P"])
            yield row
            if "error" in row:
                break  # longer ones do not fit, either
    del model
    bench.free()


def _peak(bench: Bench, model, shape: Shape, is_plain: bool, chunk: int | None) -> dict:
    batch = make_batch(shape, model.config.vocab_size, model.device)
    if is_plain:
        return {"peak GiB": bench.peak(partial(plain, model, micro_batches(batch, 1)[0], 1, True))}
    options = SimpleNamespace(chunk=chunk, kept=False)

    def run() -> None:
        shared(model, batch, shape.P, turns_of(model, batch, shape.P, 1, "training", options), 1, True)

    with packed_attention_in(model):
        return {"peak GiB": bench.peak(run)}
