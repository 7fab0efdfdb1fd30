"""What can be known to go wrong before a model is loaded: no weights, no GPU, seconds."""

import inspect
import warnings
from collections.abc import Collection
from copy import deepcopy
from typing import TYPE_CHECKING, get_args, get_type_hints

import torch
from torch import nn
from transformers import PretrainedConfig
from trl.import_utils import is_vllm_available

from ..method.gradients import GradientMasker
from ..method.projections import find_projections
from ..method.sparsity import num_selected
from ..method.strategies import STRATEGIES
from ..models.reading import model_class_of, skeleton_of, window_of
from ..packing.obstacles import weighs_experts
from .config import LongActConfig


if TYPE_CHECKING:
    from peft import PeftConfig

ROPE_SETTINGS = {"rope_parameters", "rope_scaling", "rope_theta", "max_position_embeddings", "config"}
"""Arguments of `from_pretrained` that change a model's positions."""


def check_reference_adapter(adapters: Collection[str], args: LongActConfig) -> None:
    """
    Check that TRL can make its frozen reference of a model's own adapters: of `default`, under the name `ref`.

    Args:
        adapters (`Collection[str]`):
            Names of the adapters of a `PeftModel`.
        args (`LongActConfig`):
            Training arguments.

    Raises:
        `ValueError`: If `beta` asks for a reference, and there is no `default` or a `ref` already.
    """
    if args.beta == 0.0 or ("default" in adapters and "ref" not in adapters):
        return
    cause = "which TRL's copy is to be called" if "ref" in adapters else "and TRL takes the one called 'default'"
    raise ValueError(
        f"`beta`={args.beta} needs a frozen copy of an adapter as its reference. The model has "
        f"{', '.join(map(repr, adapters))}, {cause}: load the adapters under other names (`adapter_name`), or set "
        "`beta: 0`."
    )


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
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{name} reads the prompt in an encoder, and TRL computes log-probs of prompt and completion in one "
            "decoder: GRPOTrainer cannot train it."
        )
    if model.base_model is model:
        raise ValueError(
            f"TRL computes log-probs from the decoder below a model's LM head, and {name} has none under its "
            f"`base_model_prefix` {model.base_model_prefix!r}: GRPOTrainer cannot train it."
        )
    if not weighs_experts(model.config, args):
        return
    if not hasattr(text, "num_experts") or not getattr(text, "is_moe", True):
        raise ValueError(
            f"TRL's load-balancing loss reads `num_experts` and the experts' scores, and {type(text).__name__} has no "
            "such field, or no experts. Set `router_aux_loss_coef: 0`."
        )
    if not returns_scores(model):
        raise ValueError(
            f"TRL's load-balancing loss reads the experts' scores, and {type(model.base_model).__name__} does not "
            "return them. Set `router_aux_loss_coef: 0`."
        )


def returns_scores(model: nn.Module) -> bool:
    """
    Whether a model's decoder can return its experts' scores.

    Args:
        model (`nn.Module`):
            The model, with or without weights.

    Returns:
        `bool`: As its forward is annotated; `True` where that says nothing.
    """
    try:
        returned = get_type_hints(inspect.unwrap(type(model.base_model).forward)).get("return")
    except NameError:  # a type that is imported for type checkers only
        return True
    outputs = [kind for kind in get_args(returned) if hasattr(kind, "__dataclass_fields__")]
    return not outputs or any("router_logits" in kind.__dataclass_fields__ for kind in outputs)


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
