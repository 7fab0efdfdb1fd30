"""Where the time of an optimizer step goes, in TRL's GRPO and in LongAct with everything on.

    python benchmarks/whole_step.py --prompt-length 896 --completion-length 128 --num-generations 16
    python benchmarks/whole_step.py --micro-batch 2
    python benchmarks/whole_step.py --vllm --prompt-length 448 --completion-length 64 --num-generations 8

An optimizer step is one group of G completions in micro-batches of `--micro-batch` rows (default: one of G). A group
serves two steps (`num_iterations=2`), so that TRL makes a scoring pass without vLLM, too. Prompts and seed are the
same; the trainers live in two processes and take turns. The table shows medians of seconds by part, their ratios, and
the ratio without generation, whose target is 0.20 at P:C = 7:1, G=16, in micro-batches of 2 rows or more. `other` is
what no clock is around: rewards, logging, gradient clipping, LongAct's refresh.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from overhead import STOCK, make_trainer
from rich.console import Console
from rich.table import Table
from smollm2 import smollm2_135m
from turns import Clock, Worker


LONGACT = "current_batch"
PARTS = ("generation", "weight sync", "scoring", "forward", "backward", "optimizer", "other")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id (default: SmolLM2-135M-Instruct from the package index)")
    parser.add_argument("--pairs", type=int, default=1, help="turns of each trainer that count")
    parser.add_argument("--prompt-length", type=int, default=448)
    parser.add_argument("--completion-length", type=int, default=64)
    parser.add_argument("--num-generations", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, metavar="B", help="rows of a micro-batch (default: the group)")
    parser.add_argument("--vllm", action="store_true", help="generate with vLLM, colocated")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of wall-clock time")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.set_defaults(steps=2, no_scoring=False, gradient_checkpointing=True)
    args = parser.parse_args()
    args.micro_batch = args.micro_batch or args.num_generations
    if args.num_generations % args.micro_batch:
        parser.error(f"--micro-batch {args.micro_batch} does not divide --num-generations {args.num_generations}")
    return args


def serve(variant: str, options: argparse.Namespace) -> None:
    """Run a turn of two optimizer steps for each line of standard input; answer with seconds a step by part."""
    from transformers import TrainerCallback

    clock = Clock(options.cpu_time)

    class StepClock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.begin = clock.now()

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            self.update = clock.now()

        def on_optimizer_step(self, args, state, control, **kwargs):
            clock.seconds["optimizer"] += clock.now() - self.update

        def on_step_end(self, args, state, control, **kwargs):
            clock.seconds["step"] += clock.now() - self.begin

    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as output_dir:
        accumulated = options.num_generations // options.micro_batch
        groups = {"steps_per_generation": accumulated, "gradient_accumulation_steps": accumulated}
        groups |= {"per_device_train_batch_size": options.micro_batch, "num_iterations": 2}
        trainer = make_trainer(variant, options, output_dir, shared_prefix="on", **groups)
        trainer.add_callback(StepClock())
        trainer._generate_single_turn = clock.around("generation", trainer._generate_single_turn)
        trainer.compute_loss = clock.around("forward", trainer.compute_loss)
        trainer.accelerator.backward = clock.around("backward", trainer.accelerator.backward)
        if options.vllm:
            trainer.vllm_generation.sync_weights = clock.around("weight sync", trainer.vllm_generation.sync_weights)
        scored = clock.around("scoring", trainer._get_per_token_logps_and_entropies)
        forward = trainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
            forward if torch.is_grad_enabled() else scored
        )(*args, **kwargs)
        print("{}", file=answers, flush=True)
        for _ in sys.stdin:
            clock.seconds.clear()
            trainer.train()
            turn = {part: clock.seconds[part] / options.steps for part in ("step", *PARTS)}
            turn["generation"] -= turn["weight sync"]  # TRL updates vLLM before it generates
            turn["other"] = turn["step"] - sum(turn[part] for part in PARTS if part != "other")
            print(json.dumps(turn), file=answers, flush=True)


def main() -> None:
    options = parse_args()
    options.model = options.model or str(smollm2_135m())
    if options.worker:
        serve(options.worker, options)
        return
    console = Console(width=100)
    variants = (STOCK, LONGACT)
    turns: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    workers = {variant: Worker(variant) for variant in variants}
    try:
        for variant in variants:
            workers[variant].turn()  # warms up
        for pair in range(options.pairs):
            for variant in variants if pair % 2 == 0 else reversed(variants):
                turns[variant].append(workers[variant].turn())
    finally:
        for worker in workers.values():
            worker.close()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    shape = f"{options.num_generations} × ({options.prompt_length} + {options.completion_length}) tokens"
    shape += f" in rows of {options.micro_batch}"
    table = Table("seconds a step", "TRL", "LongAct", "ratio", "share of LongAct's", title=f"{device}, {shape}")
    for turn in sum(turns.values(), []):
        turn["without generation"] = turn["step"] - turn["generation"] - turn["weight sync"]
    median = {v: {part: statistics.median(t[part] for t in turns[v]) for part in turns[v][0]} for v in variants}
    for part in (*PARTS, "step", "without generation"):
        trl, ours = (median[variant][part] for variant in variants)
        ratios = [b[part] / a[part] for a, b in zip(turns[STOCK], turns[LONGACT], strict=True) if a[part]]
        ratio = f"{statistics.median(ratios):.3f}" if ratios else ""
        table.add_row(part, f"{trl:.2f}", f"{ours:.2f}", ratio, f"{ours / median[LONGACT]['step']:.1%}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps({"device": device, "shape": shape, "turns": turns}, indent=2))


if __name__ == "__main__":
    main()
