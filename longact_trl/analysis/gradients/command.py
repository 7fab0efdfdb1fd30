"""What `longact inspect --gradients` does, prints and writes."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from datasets import Dataset, disable_progress_bars
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from ...method.projections import find_projections
from ...method.sparsity import num_selected
from ...models.reading import load_model, load_skeleton, load_tokenizer, window_of
from ...pictures.heatmaps import KINDS
from ...settings.paths import recipe_root
from ...settings.recipe_yaml import parse_recipe
from ...training.config import LongActConfig
from ...training.preflight import prompt_window
from ...training.recipe_parts import RecipeArguments, load_prompts, reward_functions
from ..options import parse_length
from .measurement import Measured, measure
from .picture import LABELS, draw_gradients, drops
from .policy import MeasuringTrainer
from .prompts import by_length, contained_reward, synthetic_prompts
from .row_energy import STRATEGIES
from .summary import MOST, summarise


DEFAULT_LENGTH = 1024  # tokens of the longest prompt
PROMPTS_OF_A_BATCH, COMPLETIONS, COMPLETION_TOKENS = 4, 8, 32  # where no recipe says it
ANSWERS, CONTAINED = "format and answer (Eq. 12)", "share of the right answers in the text, tags or not"
Rewards = Sequence[Callable[..., list[float | None]]]


def inspect_gradients(
    model: str, output: Path, *, config: str | None, length: str | None, num_prompts: int, sparsity_ratio: float
) -> None:
    """What the command does; its options are described in `longact inspect --help`."""
    console = Console()
    skeleton = load_skeleton(model)
    for projection in find_projections(skeleton):
        num_selected(sparsity_ratio, projection.head_dim)
    window = window_of(skeleton.config)
    longest = parse_length(length) if length else min(DEFAULT_LENGTH, (window or DEFAULT_LENGTH) - COMPLETION_TOKENS)
    if window is not None and longest + COMPLETION_TOKENS > window:
        raise ValueError(
            f"--length {length} and {COMPLETION_TOKENS} tokens to answer are more than the {window:,} that {model} "
            "can read."
        )
    tokenizer = load_tokenizer(model)
    disable_progress_bars()  # of what is over in a second
    with tempfile.TemporaryDirectory() as scratch:
        script_args, args = arguments(config, scratch, num_prompts)
        if config:
            dataset = load_prompts(script_args, args, tokenizer, recipe_folder(), prompt_window(skeleton.config, args))
            dataset = by_length(dataset, tokenizer, num_prompts, **(args.chat_template_kwargs or {}))
        else:
            dataset = synthetic_prompts(tokenizer, longest, num_prompts)
        with console.status("Loading the weights"):
            loaded = load_model(model).float()  # in half precision a step this small would vanish
        rewards, name = choose_rewards(
            loaded, tokenizer, args, dataset, reward_functions(script_args, args, tokenizer), console
        )
        trainer = MeasuringTrainer(loaded, rewards, args, dataset, processing_class=tokenizer)
        stages = iter(("Sampling and measuring", "Following gradients"))
        measured = measure(
            trainer, list(dataset), sparsity_ratio, lambda batches: track(batches, next(stages), console=console)
        )
    if not any(batch.energy for batch in measured):
        raise ValueError(
            f"No group of completions of {model} had two different rewards ({name}), so there is no gradient. Give "
            "prompts that it sometimes gets right, with --config RECIPE or a shorter --length."
        )
    summary = {"model": model, "prompts": config or "synthetic", "reward": name, **summarise(measured, sparsity_ratio)}
    write(summary, measured, output)
    console.print(shares_table(summary))
    console.print(steps_table(summary))
    console.print(f"Numbers and the picture: [bold]{output}[/bold]")


def recipe_folder() -> Path:
    """Where a recipe's bare name is looked up."""
    return recipe_root() / "recipes"


def arguments(config: str | None, scratch: str, num_prompts: int) -> tuple[RecipeArguments, LongActConfig]:
    """
    A recipe's arguments, or defaults, as far as they matter to one batch: what generates and what is lost is theirs.

    Args:
        config (`str` or `None`):
            A recipe's YAML.
        scratch (`str`):
            Folder for what a trainer writes.
        num_prompts (`int`):
            Prompts of each length.

    Returns:
        `tuple[RecipeArguments, LongActConfig]`
    """
    fixed = {
        "output_dir": scratch,
        "strategy": "dense",
        "gradient_accumulation_steps": max(1, min(PROMPTS_OF_A_BATCH, num_prompts // 2)),  # two batches a length
        "disable_dropout": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": torch.cuda.is_available(),
        "report_to": "none",
        "save_strategy": "no",
        "use_vllm": False,
        "dynamic_sampling": False,
        "log_completions": False,
        "disable_tqdm": True,
    }
    if config is None:
        sizes = {"per_device_train_batch_size": COMPLETIONS, "num_generations": COMPLETIONS}
        sizes |= {"max_completion_length": COMPLETION_TOKENS, "top_k": 0}
        return RecipeArguments(), LongActConfig(**fixed, **sizes)
    classes = (RecipeArguments, LongActConfig, ModelConfig)
    _, args, _ = parse_recipe(classes, ["--config", config], recipe_folder())
    fixed["per_device_train_batch_size"] = args.num_generations
    argv = [part for name, value in fixed.items() for part in (f"--{name}", str(value))]
    script_args, args, _ = parse_recipe(classes, ["--config", config, *argv], recipe_folder())
    return script_args, args


def choose_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: LongActConfig,
    dataset: Dataset,
    rewards: Rewards,
    console: Console,
) -> tuple[Rewards, str]:
    """
    The paper's rewards where a first batch earns different ones, else one that needs no tags; says so.

    Args:
        model, tokenizer, args, dataset:
            What a trainer takes.
        rewards (`Sequence[Callable]`):
            The paper's.
        console (`Console`):
            Where to say so.

    Returns:
        `tuple[Sequence[Callable], str]`: Reward functions, and what they are called.
    """
    trainer = MeasuringTrainer(model, rewards, args, dataset, processing_class=tokenizer)
    first = [dataset[i] for i in range(min(PROMPTS_OF_A_BATCH, len(dataset)))]
    with trainer.sharing_prefixes():
        if trainer.sample(first).groups:
            return rewards, ANSWERS
    console.print(
        f"No group of the first batch earns two different rewards for {ANSWERS}: instead of them, the {CONTAINED}, "
        "stands for a reward here."
    )
    return [contained_reward], CONTAINED


def write(summary: dict, measured: Sequence[Measured], output: Path) -> None:
    """
    Write `gradients.json`, `gradients.safetensors` and `gradients.png` into a folder.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.gradients.summary.summarise`] returns it, with model, prompts and reward.
        measured (`Sequence[Measured]`):
            Batches; their squared norms and magnitudes go by `BATCH/TOKENS/PROJECTION`.
        output (`Path`):
            Folder, made where it is missing.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / "gradients.json").write_text(json.dumps(summary, indent=1))
    tensors = {}
    for number, batch in enumerate(measured):
        for name, energy in batch.energy.items():
            tensors[f"energy/{number}/{batch.num_tokens}/{name}"] = energy.float().contiguous()
            tensors[f"magnitude/{number}/{batch.num_tokens}/{name}"] = batch.magnitudes[name].contiguous()
    save_file(tensors, output / "gradients.safetensors")
    name, groups = Path(summary["model"]).name, summary["lengths"].values()
    subtitle = (
        f"{summary['prompts']} prompts, rewarded by {summary['reward']}; {sum(g['groups'] for g in groups)} groups, "
        f"{sum(g['groups_that_vary'] for g in groups)} of them with a gradient. Bands and dots: RL batches."
    )
    title = f"{name}: where the policy gradient of W_Q and W_K is, λ = {summary['sparsity_ratio']}"
    draw_gradients(summary, title, subtitle).savefig(output / "gradients.png")


def shares_table(summary: dict) -> Table:
    """Two lines a length: rewards, and what of W_Q's and of W_K's gradient lies in which rows."""
    title = f"Share of the squared gradient, where {summary['chance']:.1%} of the rows are selected"
    table = Table(title=title, title_justify="left")
    strategies = (*STRATEGIES, MOST)
    for column in ("tokens", "groups", "vary", "reward", "", *(LABELS[strategy] for strategy in strategies)):
        table.add_column(column, justify="right")
    for tokens, found in summary["lengths"].items():
        head = [f"{tokens:,}", str(found["groups"]), str(found["groups_that_vary"]), f"{found['reward']:.2f}"]
        for kind, shares in found.get("share", {"": {}}).items():
            of_kind = (
                [f"W_{KINDS[kind]}", *(f"{fmean(shares[strategy]):.1%}" for strategy in strategies)] if kind else []
            )
            table.add_row(*head, *of_kind)
            head = [""] * len(head)
    return table


def steps_table(summary: dict) -> Table:
    """What steps of equal norm took off the loss, on their own batch and on another."""
    title = "What a step of equal norm takes off the loss, in units of the step in all rows on its own batch"
    table = Table(title=title, title_justify="left")
    strategies = (*STRATEGIES, "dense")
    for column in ("along", "batch", *(LABELS[strategy] for strategy in strategies)):
        table.add_column(column, justify="right")
    for direction, along in (("gradient", "the gradient"), ("sign", "its signs")):
        for batch, name in (("same", "its own"), ("held_out", "another")):
            if drops(summary, direction, "dense", batch):
                taken = [f"{fmean(drops(summary, direction, strategy, batch)):.3f}" for strategy in strategies]
                table.add_row(along, name, *taken)
    return table
