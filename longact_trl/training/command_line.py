"""
What is wrong with a recipe's command line and YAML, said before torch, transformers and TRL's trainers are loaded.

The recipe itself finds all of this again and more, many seconds later.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from trl import ModelConfig

from ..data.mixture_file import check_mixture
from ..settings.argument_classes import assigned, declared_class, run_own_checks
from ..settings.choices import TEXTS_OF_TRANSFORMERS
from ..settings.devices import check_precision
from ..settings.json_fields import check_mappings
from ..settings.messages import did_you_mean, usage_errors
from ..settings.paths import check_here, recipe_root
from ..settings.quiet import quiet
from ..settings.recipe_yaml import find_config, parse_recipe, read_config
from ..settings.starting_point import check_cold_start
from .checkpoints import resolve_resume
from .field_checks import check_fields, check_optimizer, check_texts
from .number_ranges import check_numbers
from .policy_loss_settings import check_policy_loss


class Recipe(NamedTuple):
    """
    What a recipe is told, beside [`~trl.ModelConfig`].

    Args:
        script_arguments, training_arguments (`tuple[str, str]`):
            Module and name of its two argument classes.
        examples (`str`):
            What to write for `--config`.
        own_checks (`str`):
            TRL's class whose own checks of its fields are run.
    """

    script_arguments: tuple[str, str]
    training_arguments: tuple[str, str]
    examples: str
    own_checks: str


GRPO = Recipe(
    ("longact_trl.training.recipe_parts", "RecipeArguments"),
    ("longact_trl.training.config", "LongActConfig"),
    "qwen3_8b.yaml, qwen3_4b.yaml, or quickstart.yaml for a CPU",
    "GRPOConfig",
)
COLD_START = Recipe(
    ("longact_trl.training.cold_start", "ColdStartArguments"),
    ("trl", "SFTConfig"),
    "sft_qwen3_8b.yaml, sft_qwen3_4b.yaml, or sft_tiny.yaml for a CPU",
    "SFTConfig",
)
NUM_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes there are, as accelerate looks for it."""


def stop_at_mistakes(recipe: Recipe, argv: Sequence[str], recipe_dir: str | Path) -> None:
    """
    Check a recipe's command line, and stop the program with one message if it cannot be meant.

    The first process of each machine does it; the others load meanwhile, and are stopped by their launcher. From here
    on, what libraries log that nobody can act on is not shown.

    Args:
        recipe (`Recipe`):
            `GRPO` or `COLD_START`.
        argv (`Sequence[str]`):
            Command line without the program's name.
        recipe_dir (`str` or `Path`):
            Folder of the recipe.
    """
    quiet()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with usage_errors():
            check_command_line(recipe, argv, recipe_dir)


def check_command_line(recipe: Recipe, argv: Sequence[str], recipe_dir: str | Path) -> None:
    """
    Check names, types and choices of what a recipe is told, and that the files are there which it names.

    Args:
        recipe, argv, recipe_dir:
            As in [`stop_at_mistakes`].

    Raises:
        `ValueError`: For the first mistake.
    """
    try:
        script_args, args, model_args = read_fields(recipe, argv, recipe_dir)
    except LookupError:  # another TRL has moved its classes; the recipe imports them wherever they are
        return
    if not model_args.model_name_or_path:
        raise ValueError(
            "There is no model to train. Write `--config` and a file of the recipe's, such as "
            f"{recipe.examples}, or `--model_name_or_path`."
        )
    if recipe is GRPO and script_args.mixture:
        check_mixture(read_config(find_config(script_args.mixture, recipe_dir)))
    elif recipe is GRPO and not script_args.dataset_name:
        raise ValueError("Nothing to train on: set `mixture` to a YAML file or `dataset_name` to a dataset.")
    elif script_args.dataset_name:
        check_here("dataset_name", os.path.expanduser(script_args.dataset_name))
    if args.resume_from_checkpoint != "auto":  # which finds what it can
        resolve_resume(args.resume_from_checkpoint, args.output_dir or "trainer_output")
    check_here("model_name_or_path", model_args.model_name_or_path)
    if recipe is GRPO:
        check_cold_start(model_args.model_name_or_path, recipe_dir)
    args.device = SimpleNamespace(type="cpu")  # TRL asks whether it is Neuron's
    args.world_size = next((int(os.environ[name]) for name in NUM_PROCESSES if name in os.environ), 1)
    with suppress(LookupError):
        run_own_checks("trl", recipe.own_checks, args)
    check_precision(args)


def read_fields(
    recipe: Recipe, argv: Sequence[str], recipe_dir: str | Path, other_options: Sequence[str] = ()
) -> tuple[Any, Any, ModelConfig]:
    """
    Read what a recipe is told into objects with the fields of its argument classes, and check these by themselves.

    Args:
        recipe, argv, recipe_dir:
            As in [`stop_at_mistakes`].
        other_options (`Sequence[str]`, *optional*):
            Options that somebody else reads, for the hint at a typo.

    Returns:
        `tuple`: Objects with the fields of the recipe's own arguments and of its training arguments, and the model's.

    Raises:
        `LookupError`: If the sources of the argument classes are not where they were.
        `ValueError`: For the first mistake.
    """
    own, training = declared_class(*recipe.script_arguments), declared_class(*recipe.training_arguments)
    script_args, args, model_args = parse_recipe((own, training, ModelConfig), argv, recipe_dir, other_options)
    for part in (script_args, args, model_args):
        check_numbers(part)
    check_mappings(args)
    check_texts(args, TEXTS_OF_TRANSFORMERS)
    _check_trackers(args.report_to)
    if recipe is GRPO:
        check_fields(args)
        if args.generation_batch_size is None:  # as TRL fills them in
            args.steps_per_generation = args.steps_per_generation or args.gradient_accumulation_steps
            check_policy_loss(args)
        if args.optim is not None:  # else transformers' own default, which is one of ours
            check_optimizer(args)
    return script_args, args, model_args


def _check_trackers(report_to: str | list[str] | None) -> None:
    with suppress(LookupError):
        callbacks = assigned("transformers.integrations.integration_utils", "INTEGRATION_TO_CALLBACK")
        known = ["all", "none", *(key.value for key in callbacks.keys)]
        for tracker in [report_to] if isinstance(report_to, str) else report_to or ():
            if tracker not in known:
                hint = did_you_mean(str(tracker), known, " Did you mean {!r}?")
                raise ValueError(f"`report_to` cannot be {tracker!r}. Write some of {', '.join(known)}.{hint}")


def check_settings(
    config: str, overrides: Sequence[str], accelerate_config: str | None, own_options: Sequence[str]
) -> None:
    """
    The same for `longact check`, which looks at models, data and folders more closely by itself.

    Args:
        config (`str`):
            Name or path of a recipe's YAML file.
        overrides (`Sequence[str]`):
            Further arguments of the recipe.
        accelerate_config (`str`, *optional*):
            Name or path of an accelerate config.
        own_options (`Sequence[str]`):
            Names of the command's own options, for the hint at a typo.

    Raises:
        `ValueError`: For the first mistake.
    """
    root = recipe_root()
    settings = read_config(find_config(config, root / "recipes"))
    if accelerate_config:
        find_config(accelerate_config, root / "accelerate_configs")
    try:
        recipe = recipe_of(settings)
        given = ["--config", config, *overrides]
        script_args, _, model_args = read_fields(recipe, given, root / "recipes", own_options)
    except LookupError:
        return
    if recipe is GRPO and script_args.mixture:
        check_mixture(read_config(find_config(script_args.mixture, root / "recipes")))
    elif script_args.dataset_name:
        check_here("dataset_name", os.path.expanduser(script_args.dataset_name))
    if model_args.model_name_or_path:
        check_here("model_name_or_path", model_args.model_name_or_path)


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """
    Which recipe a YAML file is for: the one that has most of its fields.

    Args:
        settings (`Mapping[str, Any]`):
            What the file says.

    Returns:
        `Recipe`: `GRPO` or `COLD_START`.

    Raises:
        `LookupError`: If the sources of the argument classes are not where they were.
    """
    return min((GRPO, COLD_START), key=lambda recipe: len(set(settings) - fields_of(recipe)))


def fields_of(recipe: Recipe) -> set[str]:
    """Names of all that a recipe can be told; raises `LookupError` as [`recipe_of`]."""
    classes = declared_class(*recipe.script_arguments), declared_class(*recipe.training_arguments), ModelConfig
    return {name for cls in classes for name in cls.__dataclass_fields__}
