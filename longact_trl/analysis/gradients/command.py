"""What `longact inspect --gradients` does, prints and writes."""

import hashlib
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
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from ..._version import __version__
from ...method.projections import find_projections
from ...method.sparsity import num_selected
from ...models.reading import load_model, load_skeleton, load_tokenizer, window_of
from ...pictures.heatmaps import KINDS
from ...settings.installed import installed
from ...settings.paths import recipe_root
from ...settings.recipe_yaml import parse_recipe
from ...training.config import LongActConfig
from ...training.preflight import prompt_window
from ...training.recipe_parts import RecipeArguments, load_prompts, reward_functions
from ..options import parse_length
from .files import GradientFiles
from .measurement import batches_of, measure
from .picture import LABELS, drops
from .policy import MeasuringTrainer
from .prompts import by_length, contained_reward, synthetic_prompts
from .row_energy import STRATEGIES
from .summary import MOST


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
        rows = list(dataset)
        batches = batches_of(rows, args.gradient_accumulation_steps)
        asked = {"model": model, "config": config, "length": None if config else longest, "num_prompts": num_prompts}
        asked |= {"sparsity_ratio": sparsity_ratio}
        files = GradientFiles(output, asked | claim_of(rows, args), len(batches))
        with console.status("Loading the weights"):
            loaded = load_model(model).float()  # in half precision a step this small would vanish
            files.add({"weights": digest_of_weights(loaded)})
        rewards, name = choose_rewards(
            loaded, tokenizer, args, dataset, reward_functions(script_args, args, tokenizer), console, files.reward
        )
        trainer = MeasuringTrainer(loaded, rewards, args, dataset, processing_class=tokenizer)
        head = {"model": model, "prompts": config or "synthetic", "reward": name}
        so_far = files.begin(head, trainer.accelerator.device)
        if there := len(so_far.measured):
            console.print(f"Goes on behind batch {there} of {len(batches)}, which {output} holds.")
        stages = iter(("Sampling and measuring", "Following gradients"))
        measured = measure(
            trainer,
            rows,
            sparsity_ratio,
            lambda batches: track(batches, next(stages), console=console),
            so_far,
            files.keep,
        )
    if not any(batch.energy for batch in measured):
        files.discard()
        raise ValueError(
            f"No group of completions of {model} had two different rewards ({name}), so there is no gradient. Give "
            "prompts that it sometimes gets right, with --config RECIPE or a shorter --length."
        )
    summary = files.finish(measured)
    console.print(shares_table(summary))
    console.print(steps_table(summary))
    console.print(f"Numbers and the picture: [bold]{output}[/bold]")


def claim_of(rows: Sequence[dict], args: LongActConfig) -> dict:
    """What a measurement rests on beside its options and the weights: arguments, prompts, versions."""
    arguments = {name: value for name, value in args.to_dict().items() if name != "output_dir"}
    versions = installed(("torch", "transformers", "trl")) | {"longact-trl": __version__}
    return {"arguments": arguments, "prompts": digest_of(rows), "versions": versions}


def digest_of(content: object) -> str:
    """Digits of a SHA-256 over what can be written as JSON."""
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def digest_of_weights(model: PreTrainedModel) -> str:
    """Digits of a SHA-256 over float32 parameters: sums of their bits, integers, which know no order of threads."""
    return digest_of([int(param.detach().view(torch.int32).sum()) for param in model.parameters()])


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
    known: str | None = None,
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
        known (`str`, *optional*):
            Which of them an interrupted measurement took.

    Returns:
        `tuple[Sequence[Callable], str]`: Reward functions, and what they are called.
    """
    if known is not None:
        return (rewards, ANSWERS) if known == ANSWERS else ([contained_reward], CONTAINED)
    trainer = MeasuringTrainer(model, rewards, args, dataset, processing_class=tokenizer)
    first = [dataset[i] for i in range(min(PROMPTS_OF_A_BATCH, len(dataset)))]
    with console.status("Sampling a first batch, for its rewards"), trainer.sharing_prefixes():
        if trainer.sample(first).groups:
            return rewards, ANSWERS
    console.print(
        f"No group of the first batch earns two different rewards for {ANSWERS}: instead of them, the {CONTAINED}, "
        "stands for a reward here."
    )
    return [contained_reward], CONTAINED


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
