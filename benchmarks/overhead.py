"""What LongAct costs beside stock GRPO: step time, peak memory, and where the time goes.

    python benchmarks/overhead.py                # SmolLM2-135M, 1,024-token prompts; a GPU where there is one
    python benchmarks/overhead.py --no-scoring   # where TRL makes no scoring pass, see below
    python benchmarks/overhead.py --vllm --pairs 9 --json overhead.json
    python benchmarks/overhead.py --shared-prefix --num-generations 8 --gradient-checkpointing

`trl.GRPOTrainer` and `LongActTrainer` live in two processes and take turns (A B, B A, …) on the same prompts and seed,
so that whatever else the machine does meets both. A turn is a few whole optimizer steps: generation, scoring pass,
forward, backward, optimizer, each trainer's own bookkeeping. Each
pair of turns gives a ratio, the table shows the median and the range. Generation is the same for both, so the ratio is
also given without it: the stricter figure. The first turns warm up. Targets: time 1.02, peak memory 1.01.

Prompts are not shared: `shared_prefix.py` measures that. With `--shared-prefix` they are, and LongAct stands beside a
`LongActTrainer` with `strategy="dense"` that shares them, too: what the masks cost, less what row-sparse gradients
save. Target for time: 1.00.

LongAct measures on TRL's own scoring pass, which TRL always makes with vLLM. Without vLLM it makes one only if old
log-probs are needed, so here one generation serves two optimizer steps, and both trainers score. Where TRL makes no
scoring pass (no vLLM, one step per generation), `saliency_source="current_batch"` adds a forward pass without gradient
and `"previous_step"` adds none: `--no-scoring` measures both against stock.

The share of each part is taken in one turn more, with a clock around the package's hooks (and a synchronisation on a
GPU); the clocks are off in the turns that make the ratios. Memory is torch's peak on a GPU, else the process's.

On a machine that does other work, threads that wait for each other drown the difference. There
`OMP_NUM_THREADS=1 python benchmarks/overhead.py --cpu-time` counts CPU seconds, whatever else runs.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from smollm2 import smollm2_135m
from turns import Clock, Worker, peak_memory


STOCK, DENSE = "stock", "dense"
TEXT = "The archive keeps a record of every harbour, of the ships that called there and of what they carried. "
WITHOUT_GENERATION = "step without generation"
TARGETS = {
    STOCK: {"step": 1.02, WITHOUT_GENERATION: 1.02, "peak memory": 1.01},
    DENSE: {"step": 1.0, WITHOUT_GENERATION: 1.0, "peak memory": 1.01},
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id (default: SmolLM2-135M-Instruct from the package index)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each trainer that count")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of a turn")
    parser.add_argument("--prompt-length", type=int, default=1024)
    parser.add_argument("--completion-length", type=int, default=16)
    parser.add_argument("--num-generations", type=int, default=2, help="sequences of an optimizer step, one group")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--vllm", action="store_true", help="generate with vLLM, colocated")
    parser.add_argument("--no-scoring", action="store_true", help="settings for which TRL makes no scoring pass")
    parser.add_argument("--shared-prefix", action="store_true", help="beside dense training, prompts shared in both")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of wall-clock time")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.vllm and args.no_scoring:
        parser.error("TRL always makes a scoring pass with vLLM: drop --vllm or --no-scoring")
    if not args.no_scoring and args.steps % 2:
        parser.error(f"one generation serves two optimizer steps, so --steps must be even, but is {args.steps}")
    return args


# One trainer, in a process of its own


def make_trainer(variant: str, options: argparse.Namespace, output_dir: str, shared_prefix: str = "off", **others):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from longact_trl import LongActConfig, LongActTrainer
    from longact_trl.models.vllm_cpu import keep_weights_loadable

    on_gpu = torch.cuda.is_available()
    settings = {
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "per_device_train_batch_size": options.num_generations,
        "num_generations": options.num_generations,
        "steps_per_generation": 1 if options.no_scoring else 2,
        "max_completion_length": options.completion_length,
        # No end of turn before the last token, so that both trainers always train on the same number of tokens.
        "generation_kwargs": {"min_tokens" if options.vllm else "min_new_tokens": options.completion_length},
        "max_steps": options.steps,
        "gradient_checkpointing": options.gradient_checkpointing,
        "use_vllm": options.vllm,
        "vllm_max_model_length": options.prompt_length + options.completion_length + 64,
        "vllm_gpu_memory_utilization": 0.1,
        "epsilon_high": 0.28,
        "vllm_importance_sampling_mode": "token_truncate",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **others,
    }
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    template = tokenizer.apply_chat_template([{"role": "user", "content": ""}], add_generation_prompt=True)[
        "input_ids"
    ]
    room = max(options.prompt_length - len(template), 1)
    ids = tokenizer(TEXT * (room // 16 + 2))["input_ids"]
    prompts = [[{"role": "user", "content": tokenizer.decode(ids[i : i + room])}] for i in range(16)]
    dataset = Dataset.from_dict({"prompt": prompts})
    if options.vllm:
        keep_weights_loadable()  # LongActTrainer does so itself; on a CPU stock GRPOTrainer cannot update vLLM without
    if variant == STOCK:
        return GRPOTrainer(options.model, distinct_characters, GRPOConfig(output_dir, **settings), dataset)
    idea = {"strategy": DENSE} if variant == DENSE else {"saliency_source": variant}
    config = LongActConfig(output_dir, shared_prefix=shared_prefix, **idea, **settings)
    return LongActTrainer(options.model, distinct_characters, config, dataset)


def distinct_characters(completions, **kwargs) -> list[float]:
    """A reward that differs within a group, so that gradients are not zero."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def time_parts(trainer, clock: Clock) -> None:
    """Put clocks around what LongAct adds to a step; `attach` and `observe` look these functions up when they run."""
    refresh = trainer.mask_refresh
    refresh.observer._add = clock.around("magnitude hooks", refresh.observer._add)
    refresh.refresh = clock.around("refresh", refresh.refresh)
    for name in ("_mask_full", "_mask_shard"):
        make_hook = getattr(refresh.masker, name)
        setattr(refresh.masker, name, lambda m, make_hook=make_hook: clock.around("gradient hooks", make_hook(m)))
    if hasattr(trainer, "_score"):
        trainer._score = clock.around("extra forward pass", trainer._score)


def serve(variant: str, options: argparse.Namespace) -> None:
    """Build a trainer, then run one turn for each line of standard input; answer each with a line of JSON."""
    from transformers import TrainerCallback

    clock = Clock(options.cpu_time)

    class StepClock(TrainerCallback):  # added last, so that LongAct's own callback is inside
        def on_step_begin(self, args, state, control, **kwargs):
            self.start = clock.now()

        def on_step_end(self, args, state, control, **kwargs):
            clock.seconds["step"] += clock.now() - self.start

    answers, sys.stdout = sys.stdout, sys.stderr  # trainers print, too
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = make_trainer(variant, options, output_dir, "on" if options.shared_prefix else "off")
        trainer.add_callback(StepClock())
        trainer._generate_single_turn = clock.around("generation", trainer._generate_single_turn)
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            if line.strip() == "parts":
                time_parts(trainer, clock)
            clock.seconds.clear()
            trainer.train()
            turn = {name: seconds / options.steps for name, seconds in clock.seconds.items()}
            turn[WITHOUT_GENERATION] = turn["step"] - turn["generation"]
            turn["peak memory"] = peak_memory()
            print(json.dumps(turn), file=answers, flush=True)


# Turns


def measure(variants: list[str], pairs: int, console: Console) -> tuple[dict, dict]:
    """Turns of each variant, the first of which is the baseline, in rotating order; one more with the parts timed."""
    workers: dict[str, Worker] = {}
    turns: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    try:
        for variant in variants:
            with console.status(f"{variant}: loading and warming up"):
                workers[variant] = Worker(variant)
                workers[variant].turn()
        for pair in range(pairs):
            for variant in variants if pair % 2 == 0 else reversed(variants):
                with console.status(f"pair {pair + 1} of {pairs}: {variant}"):
                    turns[variant].append(workers[variant].turn())
            console.print(f"pair {pair + 1}: " + ", ".join(f"{v} {turns[v][-1]['step']:.2f} s" for v in variants))
        parts = {variant: workers[variant].turn("parts") for variant in variants[1:]}
    finally:
        for worker in workers.values():
            worker.close()
    return turns, parts


def report(baseline: str, turns: dict, parts: dict, console: Console) -> dict[str, dict[str, float]]:
    """Print ratios and shares; return the median ratios."""
    medians: dict[str, dict[str, float]] = {}
    for variant, turn in parts.items():
        medians[variant] = {}
        table = Table("", baseline, "LongAct", "ratio", "range", "target", title=f"LongAct ({variant}), a step")
        for name, target in TARGETS[baseline].items():
            theirs, ours = ([counted[name] for counted in turns[v]] for v in (baseline, variant))
            ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
            medians[variant][name] = statistics.median(ratios)
            unit = "GiB" if name == "peak memory" else "s"
            table.add_row(
                name,
                f"{statistics.median(theirs):.2f} {unit}",
                f"{statistics.median(ours):.2f} {unit}",
                f"{medians[variant][name]:.3f}",
                f"{min(ratios):.3f}–{max(ratios):.3f}",
                f"≤ {target}",
            )
        console.print(table)
        table = Table("its parts", "ms a step", "share", "without generation")
        for name in ("magnitude hooks", "refresh", "gradient hooks", "extra forward pass"):
            if name in turn:
                shares = (f"{turn[name] / turn[total]:.2%}" for total in ("step", WITHOUT_GENERATION))
                table.add_row(name, f"{1000 * turn[name]:.1f}", *shares)
        console.print(table)
    return medians


def main() -> None:
    options = parse_args()
    options.model = options.model or str(smollm2_135m())
    if options.worker:
        serve(options.worker, options)
        return
    console = Console()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    console.print(
        f"{device}: {options.num_generations} × ({options.prompt_length} + {options.completion_length}) tokens"
    )
    baseline = DENSE if options.shared_prefix else STOCK
    variants = [baseline, "current_batch"] + (["previous_step"] if options.no_scoring else [])
    turns, parts = measure(variants, options.pairs, console)
    medians = report(baseline, turns, parts, console)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name not in ("json", "worker")}
        result = {"device": device, "settings": settings, "ratios": medians, "turns": turns, "parts": parts}
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
