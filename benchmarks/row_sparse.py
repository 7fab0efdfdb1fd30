"""What it saves to compute only the selected rows of the gradients of W_Q and W_K.

    OMP_NUM_THREADS=1 python benchmarks/row_sparse.py           # a GPU where there is one
    python benchmarks/row_sparse.py --dtype bfloat16 --tokens 4096 32768 --json row_sparse.json

First single projections: forward and backward of one linear layer, dense (no LongAct), masked (dense gradient, then
the mask) and row-sparse, on the shapes of real models. The bound is the share of the operations that is left:
(2 + share of rows) / 3, as forward and dX stay whole. The last column says what `row_sparse_gradients="auto"` does,
and the lines below where row-sparse is slower than masked although auto takes it, or the other way round: the rule in
`longact_trl/method/row_sparse.py` is made from this table.

Then forward and backward of a whole model, SmolLM2-135M unless `--model` names another, with random masks. Its bound
counts linear layers and attention.

All variants take turns, in an order that reverses each time; a ratio is the median over the turns of variant / dense.
On a machine that does other work use one thread and `--cpu-time`, which counts CPU seconds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from smollm2 import smollm2_135m
from torch import nn

from longact_trl.method.gradients import GradientMasker
from longact_trl.method.masks import select_rows
from longact_trl.method.projections import Projection, find_projections
from longact_trl.method.row_sparse import is_worthwhile
from longact_trl.method.sparsity import num_selected


SHAPES = {  # model and kind -> input features, heads, head_dim
    "SmolLM2-135M Q": (576, 9, 64),
    "SmolLM2-135M K": (576, 3, 64),
    "Qwen3-0.6B Q": (1024, 16, 128),
    "Qwen3-0.6B K": (1024, 8, 128),
    "Qwen3-8B Q": (4096, 32, 128),
    "Qwen3-8B K": (4096, 8, 128),
}
VARIANTS = ("dense", "masked", "row-sparse")
SECONDS_A_ROW = 2.0  # turns are as many as fit, between 5 and 101


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[128, 512, 1024, 4096], help="none: no projections")
    parser.add_argument("--sparsity-ratio", type=float, nargs="+", default=[0.3, 0.5], help="λ")
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, metavar="SHAPE", help="default: all, on CPUs none of 8B"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--model", help="folder or Hub id (default: SmolLM2-135M-Instruct from the package index)")
    parser.add_argument("--model-tokens", type=int, default=1024, help="length of its one sequence; 0: no model")
    parser.add_argument("--model-turns", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of wall-clock time")
    parser.add_argument("--json", type=Path, help="write every ratio here")
    return parser.parse_args()


class Turns:
    """Times variants in turns."""

    def __init__(self, cpu_time: bool):
        self.read = time.process_time if cpu_time else time.perf_counter

    def seconds(self, run: Callable[[], None]) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = self.read()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.read() - start

    def __call__(self, run: Callable[[], None], maskers: dict[str, GradientMasker | None], turns: int) -> dict:
        """Median seconds of `dense` and median ratios of the others, each with its masker attached."""
        times: dict[str, list[float]] = {variant: [] for variant in maskers}
        for turn in range(turns + 1):
            for variant, masker in list(maskers.items())[:: 1 if turn % 2 else -1]:
                if masker:
                    masker.attach()
                seconds = self.seconds(run)
                if masker:
                    masker.detach()
                    masker.pop_squared_norms()
                if turn:  # the first warms up
                    times[variant].append(seconds)
        dense = times["dense"]
        medians = {"dense": statistics.median(dense)}
        for variant in VARIANTS[1:]:
            medians[variant] = statistics.median(b / a for a, b in zip(dense, times[variant], strict=True))
        return medians


def make_maskers(projections: list[Projection], sparsity_ratio: float) -> dict[str, GradientMasker | None]:
    generator = torch.Generator().manual_seed(0)
    maskers = {"masked": GradientMasker(projections, "off"), "row-sparse": GradientMasker(projections, "on")}
    masks = {}
    for p in projections:
        magnitudes = torch.rand(p.num_heads, p.head_dim, generator=generator)
        masks[p.name] = select_rows(magnitudes, sparsity_ratio, "massive")
    for masker in maskers.values():
        masker.set_masks(masks)
    return {"dense": None, **maskers}


def measure_projection(
    shape: tuple[int, int, int],
    num_tokens: int,
    ratio: float,
    device: torch.device,
    dtype: torch.dtype,
    turns: Turns,
    seconds: float = SECONDS_A_ROW,
) -> dict:
    features, heads, head_dim = shape
    linear = nn.Linear(features, heads * head_dim, bias=False, device=device, dtype=dtype)
    x = torch.randn(1, num_tokens, features, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn(1, num_tokens, heads * head_dim, device=device, dtype=dtype)

    def run() -> None:
        linear.weight.grad = x.grad = None
        linear(x).backward(grad)

    run()
    count = int(seconds / (len(VARIANTS) * turns.seconds(run) + 1e-9))
    result = turns(run, make_maskers([Projection("q", "q", linear, heads, head_dim)], ratio), min(max(count, 5), 101))
    share = num_selected(ratio, head_dim) / head_dim
    auto = is_worthwhile("auto", device.type, num_tokens, share)
    return {**result, "bound": (2 + share) / 3, "auto": auto}


def measure_model(model: nn.Module, num_tokens: int, ratio: float, num_turns: int, turns: Turns) -> dict:
    ids = torch.randint(0, model.config.vocab_size, (1, num_tokens), device=model.device)
    projections = find_projections(model)

    def run() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()

    result = turns(run, make_maskers(projections, ratio), num_turns)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]  # the LM head is one of them
    operations = 6 * num_tokens * sum(linear.weight.numel() for linear in linears)
    # Scores and their product with V: 2 · 2 operations for each channel of a pair of tokens, half of the pairs under
    # a causal mask, backward twice the forward.
    operations += sum(6 * num_tokens**2 * p.num_heads * p.head_dim for p in projections if p.kind == "q")
    saved = 0
    for p in projections:
        skipped = p.num_heads * (p.head_dim - num_selected(ratio, p.head_dim))
        saved += 2 * num_tokens * skipped * p.module.in_features
    return {**result, "bound": 1 - saved / operations}


def print_table(title: str, rows: dict[str, dict], console: Console) -> None:
    table = Table(title, "dense", "masked", "row-sparse", "bound", "auto")
    for name, row in rows.items():
        auto = {True: "row-sparse", False: "masked"}.get(row.get("auto"), "")
        ratios = (f"{row[column]:.3f}" for column in ("masked", "row-sparse", "bound"))
        table.add_row(name, f"{1000 * row['dense']:.2f} ms", *ratios, auto)
    console.print(table)


def main() -> None:
    options = parse_args()
    console = Console(width=110)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{where}, {options.dtype}: forward and backward, ratio to dense")
    turns = Turns(options.cpu_time)
    rows: dict[str, dict] = {}
    shapes = options.shapes or [shape for shape in SHAPES if device.type != "cpu" or "8B" not in shape]
    for shape in shapes if options.tokens else []:
        for num_tokens in options.tokens:
            for ratio in options.sparsity_ratio:
                name = f"{shape}, {num_tokens} tokens, λ {ratio}"
                with console.status(name):
                    rows[name] = measure_projection(SHAPES[shape], num_tokens, ratio, device, dtype, turns)
    if rows:
        print_table("projection", rows, console)
        faster = {name: row["row-sparse"] < row["masked"] for name, row in rows.items()}
        slower = [name for name, row in rows.items() if row["auto"] and not faster[name]]
        missed = [name for name, row in rows.items() if not row["auto"] and faster[name]]
        console.print(f"auto takes row-sparse although slower: {'; '.join(slower) or 'nowhere'}")
        console.print(f"auto leaves it although faster: {'; '.join(missed) or 'nowhere'}")
    if options.model_tokens:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(options.model or str(smollm2_135m()), dtype=dtype).to(device)
        model.train()
        models = {}
        for ratio in options.sparsity_ratio:
            name = f"whole model, {options.model_tokens} tokens, λ {ratio}"
            with console.status(name):
                models[name] = measure_model(model, options.model_tokens, ratio, options.model_turns, turns)
        print_table(Path(model.name_or_path).name, models, console)
        rows |= models
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({"device": where, "settings": settings, "ratios": rows}, indent=2))


if __name__ == "__main__":
    main()
