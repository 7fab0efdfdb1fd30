"""What one forward pass of a prompt for all its completions saves beside TRL's one for each.

    python benchmarks/shared_prefix.py                          # SmolLM2-135M; a GPU where there is one
    python benchmarks/shared_prefix.py --grid 1024,8,128 2048,16,256 --repeats 5
    python benchmarks/shared_prefix.py --scale --layers 4       # prompts from 256 to 8,192 tokens

P,G,C is one group: a prompt of P tokens in G rows, each with a completion of C. It is one micro-batch, or with
`--micro-batch 1 2 4` several of so many rows, of one optimizer step. Both arms call the
model as `GRPOTrainer._get_per_token_logps_and_entropies` does, with TRL's fused LM head: `trl` as it is, `shared`
through this package. `training` is a forward and a backward pass, with gradient checkpointing as is TRL's default;
`scoring` is a forward pass without gradient. The arms live in two processes and take turns, so that whatever else the
machine does meets both; a ratio is the median over pairs of turns, after one of scoring to warm up. Memory is torch's
peak on a GPU, else the process's: `all` of it; `model`, without what the libraries took before there was one; and what
the `passes` added to weights and, in training, gradients. A scoring pass comes before there are gradients, as in a
step of TRL.

The bound is the ratio of floating-point operations, counted by `longact_trl/check/work.py`. On a CPU, TRL's LM head
runs on every position, and here on segments only; on a GPU on completions only. It counts what runs when the group is
one micro-batch: what smaller ones add, a forward pass of the prompt without gradient and weights read, and their
gradients added up, for fewer tokens at a time, is what they lose of it.

On a machine that does other work `OMP_NUM_THREADS=1 … --cpu-time` counts CPU seconds.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from smollm2 import smollm2_135m
from turns import Worker, peak_memory

from longact_trl.check.memory.shape import shape_of
from longact_trl.check.work import pass_flops


ARMS = ("trl", "shared")
KINDS = ("training", "scoring")
GRID = ("256,8,128", "1024,4,128", "1024,8,128", "1024,16,128", "2048,8,128")
SCALE = tuple(f"{p},4,64" for p in (256, 512, 1024, 2048, 4096, 8192))


class Shape(NamedTuple):
    """A micro-batch: prompt tokens, rows, completion tokens of each row."""

    P: int
    G: int
    C: int


def parse_shape(text: str) -> Shape:
    return Shape(*map(int, text.split(",")))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id (default: SmolLM2-135M-Instruct from the package index)")
    parser.add_argument("--layers", type=int, help="use only so many layers of the model")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--grid", nargs="+", default=GRID, metavar="P,G,C")
    parser.add_argument("--scale", action="store_true", help="longer and longer prompts, G=4, C=64")
    parser.add_argument("--micro-batch", type=int, nargs="+", metavar="B", help="rows of a micro-batch (default: G)")
    parser.add_argument("--chunk", type=int, help="tokens of a prompt that have a graph at a time")
    parser.add_argument("--kept", action="store_true", help="K and V are there, as from the scoring pass of a step")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of turns that count")
    parser.add_argument("--no-checkpointing", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of wall-clock time")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# A worker: one arm, one shape


def load(options: argparse.Namespace):
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    config = AutoConfig.from_pretrained(options.model)
    if options.layers:
        config.num_hidden_layers = options.layers
    model = AutoModelForCausalLM.from_pretrained(options.model, config=config, dtype=options.dtype)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if not options.no_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train().to("cuda" if torch.cuda.is_available() else "cpu")


def make_batch(shape: Shape, vocab_size: int, device: torch.device) -> dict:
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocab_size, (1, shape.P), generator=generator).expand(shape.G, -1)
    completions = torch.randint(vocab_size, (shape.G, shape.C), generator=generator)
    ids = torch.cat([prompt, completions], 1).to(device)
    labels = ids.clone()
    labels[:, : shape.P] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "fused_lm_head": True}


def serve(options: argparse.Namespace) -> None:
    """Answer each line of standard input, a kind of pass, with its seconds and memory before and so far."""
    from longact_trl.packing.forward import packed_attention_in

    answers, sys.stdout = sys.stdout, sys.stderr
    arm, shape, size = options.worker.split(":")
    shape, size = parse_shape(shape), int(size)
    model = load(options)
    batch = make_batch(shape, model.config.vocab_size, model.device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    with torch.no_grad():  # reads weights that are still on the disk, and the last libraries
        model(**{name: x[:1, -2:] if torch.is_tensor(x) else x for name, x in batch.items()})
    held = peak_memory()
    read = time.process_time if options.cpu_time else time.perf_counter
    print("{}", file=answers, flush=True)
    with packed_attention_in(model) if arm == "shared" else nullcontext():
        for line in sys.stdin:
            kind = line.strip()
            if kind == "training":
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
            if arm == "shared":
                run = partial(shared, model, batch, shape.P, turns_of(model, batch, shape.P, size, kind, options))
            else:
                run = partial(plain, model, batch)
            start = read()
            run(size, kind == "training")
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            turn = {"seconds": read() - start, "peak": peak_memory(), "libraries": held - weights}
            turn["held"] = held + weights * (kind == "training")
            print(json.dumps(turn), file=answers, flush=True)


def plain(model, batch: dict, size: int, training: bool) -> None:
    """TRL's passes over a group in micro-batches of `size` rows."""
    with torch.set_grad_enabled(training):
        for part in micro_batches(batch, size):
            log_probs = model(**part).log_probs
            if training:
                log_probs.sum().backward()


def turns_of(model, batch: dict, prompt_length: int, size: int, kind: str, options: argparse.Namespace) -> list:
    from longact_trl.packing.forward import keep_prefixes
    from longact_trl.packing.schedule import take_turns

    ids, mask = (batch[name][:, :prompt_length] for name in ("input_ids", "attention_mask"))
    turns = take_turns(ids, mask, [len(part) for part in ids.split(size)], kind == "training", options.chunk)
    for turn in turns if options.kept and kind == "training" else ():
        keep_prefixes(model, turn, model.device)
        turn.before.clear()
    return turns


def shared(model, batch: dict, prompt_length: int, turns: list, size: int, training: bool) -> None:
    """The same through this package, as `SharedPrefixTrainer` does it."""
    from trl.models.utils import disable_gradient_checkpointing

    from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes

    with torch.set_grad_enabled(training):
        for turn, part in zip(turns, micro_batches(batch, size), strict=True):
            keep_prefixes(model, turn, model.device)
            log_probs = forward_once(model, prompt_length, turn, **part).log_probs
            if training:
                log_probs.sum().backward()
            for stretch in turn.after:
                with disable_gradient_checkpointing(model, {"use_reentrant": False}):
                    zero = forward_stretch(model, stretch, model.device)
                zero.backward()


def micro_batches(batch: dict, size: int) -> list[dict]:
    return [
        {name: x[start : start + size] if torch.is_tensor(x) else x for name, x in batch.items()}
        for start in range(0, len(batch["input_ids"]), size)
    ]


def measure(shape: str, size: int, repeats: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """By kind of pass and arm: the turns of both arms."""
    workers, turns = {}, {}
    try:
        for arm in ARMS:
            workers[arm] = Worker(f"{arm}:{shape}:{size}")
            workers[arm].turn("scoring")
        for kind in ("scoring", "training"):  # in this order: the peak of memory only grows
            turns[kind] = {arm: [] for arm in ARMS}
            for i in range(repeats):
                for arm in ARMS if i % 2 else reversed(ARMS):
                    turns[kind][arm].append(workers[arm].turn(kind))
    finally:
        for worker in workers.values():
            worker.close()
    return turns


# The bound


def flops(config, shape: Shape, arm: str, kind: str, checkpointing: bool, on_gpu: bool | None = None) -> float:
    """Floating-point operations of a pass; where TRL's LM head runs on prompts, too, depends on the device."""
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    return pass_flops(shape_of(config), *shape, kind == "training", arm == "shared", checkpointing, not on_gpu)


def over(turn: dict[str, float], name: str) -> float:
    """GiB of a turn's peak above what there was before."""
    return turn["peak"] - turn[name]


def main() -> None:
    options = parse_args()
    options.model = options.model or str(smollm2_135m())
    if options.worker:
        serve(options)
        return
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options.model)
    config.num_hidden_layers = options.layers or config.num_hidden_layers
    console = Console(width=120)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    columns = (
        "P, G, C",
        "rows",
        "trl",
        "shared",
        "ratio",
        "range",
        "bound",
        "of bound",
        "memory: all",
        "model",
        "passes",
    )
    tables = {kind: Table(*columns, title=f"{kind}, {device}") for kind in KINDS}
    results = {}
    shapes = SCALE if options.scale else options.grid
    for shape, size in [(s, b) for s in shapes for b in options.micro_batch or [parse_shape(s).G]]:
        results[f"{shape}:{size}"] = turns = measure(shape, size, options.repeats)
        for kind, table in tables.items():
            trl, shared = (turns[kind][arm] for arm in ARMS)
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(trl, shared, strict=True)]
            ratio = statistics.median(ratios)
            work = [flops(config, parse_shape(shape), arm, kind, not options.no_checkpointing) for arm in ARMS]
            bound = work[0] / work[1]
            table.add_row(
                shape.replace(",", ", "),
                str(size),
                *(f"{statistics.median(turn['seconds'] for turn in arm):.2f} s" for arm in (trl, shared)),
                f"{ratio:.2f}",
                f"{min(ratios):.2f}–{max(ratios):.2f}",
                f"{bound:.2f}",
                f"{ratio / bound:.0%}",
                f"{shared[-1]['peak'] / trl[-1]['peak']:.2f}",
                *(f"{over(shared[-1], name) / over(trl[-1], name):.2f}" for name in ("libraries", "held")),
            )
            console.print(f"{shape} in rows of {size}, {kind}: {ratio:.2f} of {bound:.2f}")
    for table in tables.values():
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps({"device": device, "results": results}, indent=2))


if __name__ == "__main__":
    main()
