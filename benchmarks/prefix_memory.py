"""How the memory of a training step in chunks grows with the prompt: by K, V and their gradients, and nothing else.

    OMP_NUM_THREADS=1 python benchmarks/prefix_memory.py         # the shipped tiny Qwen3, prompts of 1k to 32k tokens
    python benchmarks/prefix_memory.py --prompts 1024 2048 --chunk 256 --trl

A group of `--rows` completions in micro-batches of one row, float32, forward and backward as `SharedPrefixTrainer`
does it. Each prompt has a process of its own. The peak is what the passes add to weights and gradients; `slope` is its
growth from the prompt before it, a token, over the formula's. `--trl` measures TRL's passes over the same rows, which
keep a whole prompt's activations.
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table
from shared_prefix import Shape, load, make_batch, plain, shared, turns_of
from turns import Worker, peak_memory

from longact_trl.check.memory.shape import ModelShape, shape_of
from longact_trl.settings.paths import MODEL


COMPLETION = 64


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(MODEL), help="folder or Hub id")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1024 * 2**i for i in range(6)], metavar="P")
    parser.add_argument("--rows", type=int, default=2, help="completions of the prompt")
    parser.add_argument("--chunk", type=int, default=512, help="prefix_chunk_size")
    parser.add_argument("--trl", action="store_true", help="TRL's passes over the same rows, too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.set_defaults(layers=None, dtype="float32", no_checkpointing=False, kept=False)
    return parser.parse_args()


def serve(options: argparse.Namespace) -> None:
    """One training step; answers with the GiB that it took beside weights and gradients."""
    from longact_trl.packing.forward import packed_attention_in

    answers, sys.stdout = sys.stdout, sys.stderr
    arm, prompt = options.worker.split(":")
    model = load(options)
    shape = Shape(int(prompt), options.rows, COMPLETION)
    short = make_batch(Shape(2, 1, 2), model.config.vocab_size, model.device)
    plain(model, short, 1, training=True)  # gradients, and the last libraries
    batch = make_batch(shape, model.config.vocab_size, model.device)
    before = peak_memory()
    print("{}", file=answers, flush=True)
    sys.stdin.readline()
    if arm == "trl":
        plain(model, batch, 1, training=True)
    else:
        with packed_attention_in(model):
            shared(model, batch, shape.P, turns_of(model, batch, shape.P, 1, "training", options), 1, training=True)
    print(f'{{"peak": {peak_memory() - before}}}', file=answers, flush=True)


def kept_bytes(shape: ModelShape, width: int = 4) -> float:
    """Bytes that each token of a prefix keeps: K, V, gK and gV of all layers, and gK and gV of the one whose attention
    kernel has just made them."""
    return (2 + 1 / shape.layers) * shape.kv_elements * width


def peak(arm: str, prompt: int) -> float:
    """MiB."""
    worker = Worker(f"{arm}:{prompt}")
    try:
        return worker.turn()["peak"] * 1024
    finally:
        worker.close()


def main() -> None:
    options = parse_args()
    if options.worker:
        serve(options)
        return
    from transformers import AutoConfig

    each = kept_bytes(shape_of(AutoConfig.from_pretrained(options.model))) / 2**20
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    table = Table("P", "MiB", "K, V, gK, gV", "the rest", "slope", title=f"{device}, chunks of {options.chunk}")
    if options.trl:
        table.add_column("TRL, MiB")
    last = None
    for prompt in options.prompts:
        found = peak("shared", prompt)
        slope = (found - last[1]) / (prompt - last[0]) / each if last else None
        last = prompt, found
        cells = [f"{prompt:,}", f"{found:.1f}", f"{each * prompt:.1f}", f"{found - each * prompt:.1f}"]
        cells.append("" if slope is None else f"{slope:.2f}")
        table.add_row(*cells, *[f"{peak('trl', prompt):.1f}"] * options.trl)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
