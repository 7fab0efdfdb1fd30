"""What can be known to go wrong with the prompts before a model is loaded, and prompts that fit its window."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from ..data.length import Tools, apply_length_policy
from ..rewards.tagged import answer_reward
from ..settings.messages import did_you_mean
from .config import LongActConfig


TRL_REWARD_ARGUMENTS = {
    "prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments",
}  # fmt: skip
"""What GRPOTrainer passes to a reward function besides the dataset's columns."""


def check_dataset(
    dataset: Dataset | IterableDataset | None, reward_funcs: Sequence[Any], environment_factory: Any = None
) -> None:
    """
    Check that a dataset has rows and every column that training and the reward functions read.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Training dataset.
        reward_funcs (`Sequence`):
            Reward functions; models among them read no columns.
        environment_factory (`EnvironmentFactory`, *optional*):
            Of [`~trl.GRPOTrainer`]: an environment may bring the prompts, and one alone needs no dataset.

    Raises:
        `ValueError`: Names the missing column and who needs it, or the environment that there is not.
    """
    if isinstance(environment_factory, dict) and dataset is None:
        raise ValueError(
            f"An `environment_factory` of several environments ({', '.join(map(repr, environment_factory))}) needs a "
            "`train_dataset` with a column `environment` that names one of them for each row."
        )
    if environment_factory is not None and dataset is None:
        columns = ["prompt"]
    elif dataset is None or (isinstance(dataset, Dataset) and len(dataset) == 0):
        raise ValueError("The training dataset is empty. Check the split and the filters that made it.")
    elif (columns := dataset.column_names) is None:  # a stream whose features are not known yet
        return
    needs = {} if environment_factory is not None else {"prompt": "GRPO"}
    if isinstance(environment_factory, dict):
        needs["environment"] = "an `environment_factory` of several environments"
    needs |= {
        column: f"the reward function `{reward_name(func)}`" for func in reward_funcs for column in _columns_of(func)
    }
    for column, user in needs.items():
        if column not in columns:
            raise ValueError(
                f"The dataset has no column {column!r}, which {user} reads. It has "
                f"{', '.join(map(repr, columns))}: rename one with `dataset.rename_column`."
            )
    if isinstance(environment_factory, dict) and isinstance(dataset, Dataset):
        for name in dataset.unique("environment"):
            if name not in environment_factory:
                hint = did_you_mean(str(name), environment_factory, " Did you mean {!r}?")
                raise ValueError(
                    f"A row names the environment {name!r}, and `environment_factory` has "
                    f"{', '.join(map(repr, environment_factory))}.{hint}"
                )
    if dataset is not None and any(getattr(func, "func", func) is answer_reward for func in reward_funcs):
        _check_answers(dataset)


def _check_answers(dataset: Dataset | IterableDataset) -> None:
    """Golds that are numbers would stop the run at its first reward."""
    feature = (dataset.features or {}).get("answer")
    inner = feature.feature if isinstance(feature, List) else feature
    if isinstance(inner, Value) and inner.dtype not in ("string", "large_string", "null"):
        raise ValueError(
            f"The column 'answer' holds {inner.dtype}, and `answer_reward` compares text. Write the answers as text, "
            "or convert them: `dataset.map(lambda row: {'answer': str(row['answer'])})`."
        )


def reward_name(func: Callable) -> str:
    """Name of a reward function, also of a `functools.partial`."""
    return getattr(func, "__name__", None) or getattr(getattr(func, "func", None), "__name__", type(func).__name__)


def _columns_of(func: Any) -> list[str]:
    if not callable(func) or isinstance(func, torch.nn.Module):
        return []
    parameters = inspect.signature(func).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return [name for name in required if name not in TRL_REWARD_ARGUMENTS]


def fit_prompts(
    dataset: Dataset | IterableDataset,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin,
    window: int | None,
    args: LongActConfig,
    tools: Tools = None,
) -> Dataset | IterableDataset:
    """
    Apply `prompt_length_policy`, once and in parallel. A stream, or prompts with images, cannot be measured ahead and
    stay as they are.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Training dataset.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`):
            Tokenizer.
        window (`int`, *optional*):
            Tokens that a prompt may have; `None` is no limit.
        args (`LongActConfig`):
            Training arguments.
        tools (`Tools`, *optional*):
            Schemas of what a prompt offers, see [`~longact_trl.training.agents.with_tools`]. What an environment adds
            when it is reset is known to it alone, and not measured.

    Returns:
        `Dataset` or `IterableDataset`: With prompts that fit.

    Raises:
        `ValueError`: If no prompt fits, if one does not and the policy is `"error"`, or if prompts cannot be measured
            and a policy was asked for.
    """
    if dataset is None or (dataset.column_names is not None and "prompt" not in dataset.column_names):
        return dataset  # an environment brings the prompts
    if not isinstance(dataset, Dataset) or not isinstance(processing_class, PreTrainedTokenizerBase):
        if args.prompt_length_policy != "filter":  # the default is no promise that a user asked for
            raise ValueError(
                f"`prompt_length_policy={args.prompt_length_policy!r}` needs prompts that can be measured ahead, "
                "which a stream and prompts with images cannot. Load the dataset whole, or remove the policy."
            )
        return dataset
    if window is None:
        return dataset
    with args.main_process_first(desc="measuring prompts"):  # the other ranks find the result in the cache
        return apply_length_policy(
            dataset,
            processing_class,
            window,
            args.prompt_length_policy,
            chat_template_kwargs=args.chat_template_kwargs,
            tools=tools,
        )
