"""What can be known to go wrong before a model is loaded: no weights, no GPU, seconds."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, IterableDataset, List, Value
from torch import nn
from transformers import (
    PretrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from trl.import_utils import is_vllm_available

from ..data.length import Tools, apply_length_policy
from ..method.gradients import GradientMasker
from ..method.projections import find_projections
from ..method.sparsity import num_selected
from ..method.strategies import STRATEGIES
from ..models.reading import model_class_of, skeleton_of, window_of
from ..packing.obstacles import weighs_experts
from ..rewards.tagged import answer_reward
from .config import LongActConfig


if TYPE_CHECKING:
    from peft import PeftConfig

TRL_REWARD_ARGUMENTS = {
    "prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments",
}  # fmt: skip
"""What GRPOTrainer passes to a reward function besides the dataset's columns."""


ROPE_SETTINGS = {"rope_parameters", "rope_scaling", "rope_theta", "max_position_embeddings", "config"}
"""Arguments of `from_pretrained` that change a model's positions."""


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
        `ValueError`: Names the missing column and who needs it.
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


def check_model_config(
    config: PretrainedConfig, args: LongActConfig, adapter: "PeftConfig | bool | None", quantised: bool = False
) -> None:
    """
    Check on a model without weights that its projections are understood, selectable and trainable.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`LongActConfig`):
            Training arguments.
        adapter (`PeftConfig`, *optional*):
            Adapter that PEFT trains, or `True` where the model has it already.
        quantised (`bool`, *optional*, defaults to `False`):
            Whether weights are quantised while they are loaded.

    Raises:
        `ValueError`: If the attention is not understood, λ selects no channel, the weights are quantised and nothing
            else is trained, or the adapter leaves out a masked projection.
    """
    if (quantised or getattr(config, "quantization_config", None) is not None) and not adapter:
        raise ValueError(
            "The model's weights are quantised and cannot be trained. Pass a `peft_config` (LoRA on q_proj and "
            "k_proj), or a checkpoint that is not quantised."
        )
    if model_class_of(config) is None:  # custom code: checked once the model is there
        return
    skeleton = skeleton_of(config)
    check_what_trl_reads(skeleton, args)
    projections = find_projections(skeleton)
    if not STRATEGIES[args.strategy].masks:
        return
    for projection in projections:
        num_selected(args.sparsity_ratio, projection.head_dim)
    if adapter and adapter is not True:
        from peft import get_peft_model

        with torch.device("meta"):
            GradientMasker(find_projections(get_peft_model(skeleton, deepcopy(adapter))))


def check_what_trl_reads(model: nn.Module, args: LongActConfig) -> None:
    """
    Check that a model has what TRL's log-probs and its load-balancing loss take for granted. Without it,
    [`~trl.GRPOTrainer`] dies in its first step.

    Args:
        model (`nn.Module`):
            The model, with or without weights.
        args (`LongActConfig`):
            Training arguments.

    Raises:
        `ValueError`: If it has not; names what is missing.
    """
    name, text = type(model).__name__, model.config.get_text_config()
    if model.base_model is model:
        raise ValueError(
            f"TRL computes log-probs from the decoder below a model's LM head, and {name} has none under its "
            f"`base_model_prefix` {model.base_model_prefix!r}: GRPOTrainer cannot train it."
        )
    if weighs_experts(model.config, args) and (not hasattr(text, "num_experts") or not getattr(text, "is_moe", True)):
        raise ValueError(
            f"TRL's load-balancing loss reads `num_experts` and the experts' scores, and {type(text).__name__} has no "
            "such field, or no experts. Set `router_aux_loss_coef: 0`."
        )


def check_rope(config: PretrainedConfig, args: LongActConfig) -> None:
    """
    Check that trainer and colocated vLLM rotate positions alike. vLLM reads the model's `config.json`; it never sees
    `model_init_kwargs`, so a YaRN written there would be trained with and not sampled with.

    Args:
        config (`PretrainedConfig`):
            The model's configuration as its `config.json` has it.
        args (`LongActConfig`):
            Training arguments.

    Raises:
        `ValueError`: If `model_init_kwargs` changes positions, or vLLM's window is wider than the model's.
    """
    if not args.use_vllm or args.vllm_mode != "colocate":
        return
    if changed := ROPE_SETTINGS & set(args.model_init_kwargs or {}):
        raise ValueError(
            f"`model_init_kwargs` sets {', '.join(sorted(changed))} for the trainer alone: vLLM reads the model's "
            "config.json, and would sample with other positions than are trained. Write it into the config.json of a "
            "local copy of the model."
        )
    window = window_of(config)
    if window is not None and (args.vllm_max_model_length or 0) > window:
        raise ValueError(
            f"`vllm_max_model_length`={args.vllm_max_model_length} is more than the model's "
            f"max_position_embeddings={window}, and vLLM would not start. Lower it, or extend the model in the "
            "config.json of a local copy (YaRN: `rope_parameters` and the extended `max_position_embeddings`)."
        )


def source_of(args: LongActConfig) -> dict:
    """Where and how a model is read: `revision` and `trust_remote_code`, as [`load_config`] takes them."""
    return {
        "revision": (args.model_init_kwargs or {}).get("revision"),
        "trust_remote_code": args.trust_remote_code,
    }


def prompt_window(config: PretrainedConfig, args: LongActConfig) -> int | None:
    """
    Tokens that a prompt may have so that prompt and completion fit.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `int` or `None`: The smaller of vLLM's and the model's window, less `max_completion_length`; `None` where
        neither has a limit.

    Raises:
        `ValueError`: If completions alone fill the window.
    """
    limits = [window_of(config), args.vllm_max_model_length if args.use_vllm else None]
    total = min((limit for limit in limits if limit is not None), default=None)
    if total is None:
        return None
    if args.max_completion_length >= total:
        raise ValueError(
            f"`max_completion_length`={args.max_completion_length} leaves no room for a prompt in a window of {total} "
            "tokens. Lower it, or raise `vllm_max_model_length` within what the model can read."
        )
    return total - args.max_completion_length


def check_vllm(args: LongActConfig) -> None:
    """
    Check that the vLLM that would generate is there and one that TRL supports.

    Args:
        args (`LongActConfig`):
            Training arguments.

    Raises:
        `ValueError`: If vLLM is asked for and missing, or outside TRL's range.
    """
    if not args.use_vllm:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = is_vllm_available()
    if not available:
        raise ValueError('`use_vllm=True`, but vLLM is not installed. Run `pip install "longact-trl[vllm]"`.')
    if caught:  # TRL only warns, and the run then dies in its first generation
        raise ValueError(f'{caught[0].message} Run `pip install "longact-trl[vllm]"`.')


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
