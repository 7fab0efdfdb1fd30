"""What the GRPO recipe, `longact check` and the quick start share: a recipe's own arguments, prompts and rewards."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import ScriptArguments
from trl.rewards import get_soft_overlong_punishment

from ..data.mixture import load_mixture, source_names
from ..data.rows import read_prompts
from ..rewards import answer_reward, format_reward
from ..rewards.tagged import prefills_think
from ..settings.recipe_yaml import find_config
from .config import LongActConfig


@dataclass
class RecipeArguments(ScriptArguments):
    """
    What the recipe adds to TRL's script arguments.

    Args:
        mixture (`str`, *optional*):
            YAML file that names the sources of the training set, a bare name beside the recipe. Instead of
            `dataset_name`, which is a Hub id, file or folder with columns `prompt`, `answer` and `answer_kind`.
        strict_format (`bool`, *optional*, defaults to `False`):
            Whether the format reward wants each tag once and in order, and nothing outside.
        overlong_buffer (`int`, *optional*, defaults to `0`):
            DAPO's overlong punishment: tokens before `max_completion_length` over which a penalty grows to -1. 0 is
            none.
        license (`str`, *optional*):
            With `push_to_hub`: licence of the trained model as the Hub names it, e.g. `apache-2.0`, for its card.
    """

    mixture: str | None = field(
        default=None,
        metadata={
            "help": "YAML file that names the sources of the training set, a bare name beside the recipe. Instead of "
            "`dataset_name`, which is a Hub id, file or folder with columns `prompt`, `answer` and `answer_kind`."
        },
    )
    strict_format: bool = field(
        default=False,
        metadata={"help": "Whether the format reward wants each tag once and in order, and nothing outside."},
    )
    overlong_buffer: int = field(
        default=0,
        metadata={
            "help": "DAPO's overlong punishment: tokens before `max_completion_length` over which a penalty grows to "
            "-1. 0 is none."
        },
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "With `push_to_hub`: licence of the trained model as the Hub names it, e.g. `apache-2.0`, for its "
            "card."
        },
    )


def load_prompts(
    script_args: RecipeArguments,
    args: LongActConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    recipe_dir: str | Path,
    window: int | None = None,
) -> Dataset:
    """
    Read the training set that a recipe's arguments name.

    Args:
        script_args (`RecipeArguments`):
            The recipe's own arguments.
        args (`LongActConfig`):
            Training arguments, for `chat_template_kwargs` and `prompt_length_policy`.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            For the sources of a mixture that measure what they make.
        recipe_dir (`str` or `Path`):
            Folder of the recipe, where a mixture's bare name is looked up.
        window (`int`, *optional*):
            Tokens that a prompt may have. A prompt that `prompt_length_policy` would leave out is then not drawn in
            the first place, and a mixture's numbers of rows are those that are trained on.

    Returns:
        `Dataset` with columns `prompt`, `answer` and `answer_kind`.

    Raises:
        `ValueError`: If neither `mixture` nor `dataset_name` is set, or what is named cannot be read.
    """
    if script_args.mixture:
        measures = args.prompt_length_policy == "filter" and isinstance(tokenizer, PreTrainedTokenizerBase)
        mixture, limit = find_config(script_args.mixture, recipe_dir), window if measures else None
        return load_mixture(mixture, tokenizer, args.chat_template_kwargs, limit)
    if not script_args.dataset_name:
        raise ValueError("Nothing to train on: set `mixture` to a YAML file or `dataset_name` to a dataset.")
    return read_prompts(script_args.dataset_name, script_args.dataset_train_split)


def data_names(script_args: RecipeArguments, recipe_dir: str | Path) -> list[str]:
    """What the model card names as training data; arguments as in [`load_prompts`]."""
    if script_args.mixture:
        return source_names(find_config(script_args.mixture, recipe_dir))
    return [script_args.dataset_name]


def reward_functions(
    script_args: RecipeArguments, args: LongActConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Callable[..., list[float | None]]]:
    """
    The paper's rewards (arXiv:2604.14922, Eq. 12): format and answer, and DAPO's overlong punishment where asked for.

    Args:
        script_args (`RecipeArguments`):
            `strict_format` and `overlong_buffer`.
        args (`LongActConfig`):
            Training arguments, for `max_completion_length`.
        tokenizer (`PreTrainedTokenizerBase`):
            Its chat template may open `<think>` already.

    Returns:
        `list[Callable]`: Reward functions of [`~trl.GRPOTrainer`].
    """
    options = {"strict": script_args.strict_format, "think_prefilled": prefills_think(tokenizer)}
    rewards = [update_wrapper(partial(format_reward, **options), format_reward), answer_reward]
    if script_args.overlong_buffer:
        rewards.append(get_soft_overlong_punishment(args.max_completion_length, script_args.overlong_buffer))
    return rewards
