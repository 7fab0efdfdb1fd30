"""
The quick start: train the embedded model with LongAct on this CPU and see what changed.

    python -m longact_trl.quickstart

It measures the model on held-out prompts, trains it by the same recipe that trains an 8B model, measures it again on
the same prompts, and draws the run. Nothing is downloaded.
"""

import shlex
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from datasets import Dataset
from rich.console import Console
from rich.panel import Panel
from rich.progress import track
from rich.table import Table

from .analysis.run_picture import Run, draw_run, load_run
from .data.tiny_tasks import HELD_OUT_SEED, NUM_HELD_OUT, make_dataset
from .evaluation.held_out import accuracy_by_task, answers_right
from .evaluation.statistics import Interval, paired_difference
from .settings.paths import CONFIG, MODEL, new_folder, recipe_root, relative
from .settings.quiet import quiet
from .settings.recipe_yaml import read_config
from .settings.whole_files import whole_file


PICTURE = "quickstart.png"
NUM_THREADS = 1  # the matrices are so small that threads mostly wait for each other, most of all on a busy machine
THREADS = ["--num_cpu_threads_per_process", str(NUM_THREADS)]


def quick_start() -> None:
    quiet()
    console = Console()
    root = recipe_root()
    config = read_config(root / "recipes" / CONFIG)
    with new_folder(config["output_dir"]) as output_dir:
        train_between_measurements(console, root, config, output_dir)


def train_between_measurements(console: Console, root: Path, config: dict, output_dir: Path) -> None:
    command = training_command(root, output_dir)
    console.print(introduction(config, output_dir, command))

    start = time.perf_counter()
    held_out = make_dataset(NUM_HELD_OUT, HELD_OUT_SEED, split="test")
    tasks = held_out["task"][:]
    before, greedy_before = measure(MODEL, held_out, config["max_completion_length"], "1/3 Accuracy before")
    console.print(f"    {accuracy_by_task(before, tasks)['all']} of {NUM_HELD_OUT} held-out answers are right.")

    console.print("2/3 Training. Watch [bold]reward[/bold] rise:")
    finished = subprocess.run(command)
    if finished.returncode:
        console.print("[red]Training stopped with an error; what it says stands above.[/red]")
        sys.exit(finished.returncode)

    after, greedy_after = measure(output_dir, held_out, config["max_completion_length"], "3/3 Accuracy after")
    run = load_run(output_dir)
    by_task = accuracy_by_task(before, tasks), accuracy_by_task(after, tasks)
    picture = output_dir / PICTURE
    with whole_file(picture) as scratch:
        draw_run(run, *by_task).savefig(scratch)
    console.print(accuracy_table(*by_task, paired_difference(before, after)))
    console.print(f"With greedy decoding {gain_line(greedy_before, greedy_after)}")
    console.print(summary(run, output_dir, picture, time.perf_counter() - start))
    console.print(next_steps(root, output_dir), soft_wrap=True, markup=False)  # whole lines, to be copied


def training_command(root: Path, output_dir: Path) -> list[str]:
    """The command that a user types for this recipe, with paths that hold from any working directory."""
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", relative(root / "accelerate_configs" / "cpu.yaml"), *THREADS]
    recipe = [relative(root / "recipes" / "grpo_longact.py"), "--config", CONFIG]
    return [*launch, *recipe, "--model_name_or_path", relative(MODEL), "--output_dir", str(output_dir)]


def accelerate() -> str:
    """What starts accelerate: its name where the environment is activated, else its path."""
    own = Path(sys.executable).with_name("accelerate")
    return "accelerate" if shutil.which("accelerate") == str(own) else relative(own)


def measure(model_dir: Path, held_out: Dataset, max_new_tokens: int, title: str) -> tuple[list[bool], list[bool]]:
    """Whether the model in a folder answers each held-out prompt right: one sample as in training, and greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(NUM_THREADS)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    sampled, greedy = (
        answers_right(
            model, tokenizer, held_out, max_new_tokens, temperature, progress=partial(track, description=name)
        )
        for temperature, name in ((1.0, title), (0.0, f"{title}, greedy"))
    )
    return sampled, greedy


# What is printed


def introduction(config: dict, output_dir: Path, command: list[str]) -> Panel:
    shown = shlex.join([accelerate(), "launch", *command[3:]])
    return Panel(
        "A Qwen3 of 1.3 million parameters reads synthetic contexts with facts hidden in them and answers questions "
        f"about them.\n{config['max_steps']} steps of {config['loss_type'].upper()} teach it to do so more reliably, "
        f"while in W_Q and W_K only the rows behind the top {config['sparsity_ratio']:.0%} of each head's channels by "
        "magnitude get gradient.\n\n"
        f"  1. accuracy on {NUM_HELD_OUT} held-out prompts\n  2. training: [bold]{shown}[/bold]\n"
        f"  3. accuracy on the same prompts, and a picture in {output_dir}",
        title="LongAct quick start",
        title_align="left",
    )


def accuracy_table(before: dict[str, Interval], after: dict[str, Interval], gain: Interval) -> Table:
    table = Table(
        title="Held-out accuracy, sampled as in training (95 % interval)",
        min_width=64,  # of the caption
        caption=f"Gain on the same {NUM_HELD_OUT} prompts: {points(gain)}.",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("task", "before", "after"):
        table.add_column(column)
    for task in before:
        table.add_row(task, str(before[task]), str(after[task]), style="bold" if task == "all" else "")
    return table


def points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def gain_line(before: list[bool], after: list[bool]) -> str:
    share_before, share_after = (sum(right) / len(right) for right in (before, after))
    return f"{share_before:.0%} → {share_after:.0%}: {points(paired_difference(before, after))}."


def summary(run: Run, output_dir: Path, picture: Path, seconds: float) -> Table:
    last, ever, total = run.rows()
    table = Table(title="What was trained", show_header=False, title_justify="left")
    table.add_row("model", "tiny_qwen3, 2 layers, 8 query and 4 key heads of 32 channels")
    table.add_row("steps", f"{run.step}, in {seconds / 60:.0f} minutes with both measurements")
    table.add_row("λ (sparsity_ratio)", f"{run.settings['sparsity_ratio']}, strategy {run.settings['strategy']}")
    table.add_row("rows of W_Q and W_K", f"{last:,} of {total:,} a step; {ever:,} learned at some step")
    table.add_row("trained model", str(output_dir))
    table.add_row("picture", f"[bold]{picture}[/bold]")
    return table


def next_steps(root: Path, output_dir: Path) -> str:
    def launch(accelerate_config: str, *arguments: str) -> str:
        file = relative(root / "accelerate_configs" / accelerate_config)
        return shlex.join([accelerate(), "launch", "--config_file", file, *arguments])

    recipe, cold_start = (relative(root / "recipes" / name) for name in ("grpo_longact.py", "sft_cold_start.py"))
    control = ["--model_name_or_path", relative(MODEL), "--strategy", "random", "--output_dir", f"{output_dir}-random"]
    return (
        "Next, a page of the run, with every completion and why it earned nothing:\n"
        f"  {shlex.join(['longact', 'page', str(output_dir)])}\n"
        "the same run with rows chosen at random (the paper's control):\n"
        f"  {launch('cpu.yaml', *THREADS, recipe, '--config', CONFIG, *control)}\n"
        'and the paper\'s run, on 8×80 GB, after `pip install "longact-trl[vllm,deepspeed]"`:\n'
        f"  {launch('zero3.yaml', cold_start, '--config', 'sft_qwen3_8b.yaml')}\n"
        f"  {launch('zero3.yaml', recipe, '--config', 'qwen3_8b.yaml')}"
    )


if __name__ == "__main__":
    quick_start()
