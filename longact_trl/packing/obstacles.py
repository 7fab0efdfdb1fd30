"""When the completions of a prompt can share its forward pass, and why not, from config and arguments alone."""

import sys
from typing import TYPE_CHECKING

from accelerate.utils import is_peft_model
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from trl import GRPOConfig

from ..models.reading import model_class_of, rope_kinds
from ..settings.choices import OF_SHARED_PREFIXES
from .recurrence import knows_recurrence


if TYPE_CHECKING:
    from peft import PeftConfig

DEVICES = ("cpu", "cuda")
"""Where torch has a flash kernel that gives the log-sum-exp and takes it in its backward pass."""
OWN_MASK = ("doge", "moshi", "nemotron")
"""Types of models that use transformers' AttentionInterface, and read the mask beside it."""
ATTENTION = {"full_attention", "sliding_attention", "attention"}
"""Kinds of layers."""
RECURRENT = {"linear_attention", "hybrid", "mlp", "moe"}
"""More of them, where a model's recurrence is known."""
INPUT_BIASES = ("mamba_proj_bias", "use_bias")
"""What makes of a padded row's zeros, which recurrent layers read first, something else."""
NGRAMS = ("qwen4_exp_text",)
"""Types of models that embed a token together with those before it in the packed row."""
LOOPS = ("hrm_text", "diffllama", "zamba2")
"""Types of models whose layers attend several times a forward, each time with a K or V of its own."""
DRAWS = ("phimoe",)
"""Types of models that draw experts at random while they are trained, whatever their noise."""
OTHER_HEADS = ("classifier_", "summary_")
"""What begins so is dropped in heads that no language model has."""
OTHER_INPUTS = ("vision", "audio")
"""Parts of a configuration that are of no text."""
ROPE_BY_LENGTH = {"dynamic", "longrope"}
"""Rotary positions that transformers chooses anew for each batch, by its last position: padding's, where there is."""


def dropouts(config: PretrainedConfig) -> dict[str, float]:
    """
    What a model drops at random by its configuration: many call the function and have no `nn.Dropout`.

    Args:
        config (`PretrainedConfig`):
            The decoder's configuration.

    Returns:
        `dict[str, float]`: Shares above zero by field, without those of heads for other tasks.
    """
    return {name: share for name, share in _above_zero(config, "drop") if not name.startswith(OTHER_HEADS)}


def shares_prefixes(config: PretrainedConfig, args: GRPOConfig, model: nn.Module | None = None) -> bool:
    """
    Whether a run forwards a prompt once for its completions on a rank.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`LongActConfig`):
            Training arguments.
        model (`nn.Module`, *optional*):
            The model, once it is there: blocks that stand in several layers are seen in it alone.

    Returns:
        `bool`: Whether.
    """
    return args.shared_prefix != "off" and (obstacle(config, args) or obstacle_in(model)) is None


def check_shared_prefix(
    config: PretrainedConfig, args: GRPOConfig, model: nn.Module | None = None, adapter: "PeftConfig | None" = None
) -> None:
    """
    Check that prompts can be shared where that was asked for.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`LongActConfig`):
            Training arguments.
        model (`nn.Module`, *optional*):
            As in [`shares_prefixes`].
        adapter (`PeftConfig`, *optional*):
            Adapter that PEFT will put on it.

    Raises:
        `ValueError`: If `shared_prefix="on"` or prompts in chunks are asked for and it cannot be; says why.
    """
    if args.shared_prefix == "off":
        return
    wanted = ["`shared_prefix='on'`"] if args.shared_prefix == "on" else []
    wanted += [f"`{name}={value}`" for name in OF_SHARED_PREFIXES if (value := getattr(args, name))]
    if wanted and (reason := obstacle(config, args) or obstacle_of_adapter(adapter) or obstacle_in(model)):
        raise ValueError(
            f"{' with '.join(wanted)} cannot work: {reason} Write 'auto' and no `{'`, `'.join(OF_SHARED_PREFIXES)}` "
            "to forward each prompt again there."
        )


def obstacle(config: PretrainedConfig, args: GRPOConfig) -> str | None:
    """
    Why prompts cannot be shared, as a sentence. No weights are needed.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `str` or `None`: `None` if they can.
    """
    if args.per_device_train_batch_size * args.steps_per_generation < 2 and args.prefix_chunk_size is None:
        return (
            "a rank generates one completion at a time (`per_device_train_batch_size` 1, `steps_per_generation` 1), "
            "so no two of a prompt meet. Write more `gradient_accumulation_steps`: `num_generations`="
            f"{args.num_generations} keeps a group on a rank."
        )
    if args.policy_loss == "kl_cov":
        return (
            "KL-Cov's |log π − log π_old| has a kink at zero, where TRL's scoring and training passes agree to the "
            "bit; passes that are packed differently do not."
        )
    if args.neftune_noise_alpha:
        return "`neftune_noise_alpha` adds noise to embeddings by a row's length, and packed rows have another."
    if args.device.type not in DEVICES:
        return f"there is no attention kernel for it on {args.device.type!r}, only on {' and '.join(DEVICES)}."
    if args.device.type == "cuda" and not (args.bf16 or args.fp16):
        return "on a GPU its attention kernel computes in half precision only. Write `bf16: true`."
    model_class = model_class_of(config)
    if model_class is None:
        return f"{type(config).__name__} is custom code, whose attention is not known."
    config = config.get_text_config()  # of a composite model, which forwards text and nothing else to its decoder
    decoder_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), model_class)
    recurs = knows_recurrence(decoder_class)
    if not (model_class._supports_attention_backend or (recurs and _looks_attention_up(decoder_class))):
        return f"{model_class.__name__} does not take its attention function from transformers' AttentionInterface."
    if not (hasattr(config, "rope_parameters") or recurs):  # OPT numbers tokens by its mask, not by column
        return f"{type(config).__name__} has no rotary positions, so it is not known how it numbers tokens."
    if config.model_type in OWN_MASK:
        return f"{type(config).__name__} reads its attention mask itself."
    if config.model_type in LOOPS:
        return f"{type(config).__name__}'s layers attend several times, and a prefix is kept once for each layer."
    kinds = [*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())]
    if others := set(kinds) - ATTENTION - (RECURRENT if recurs else set()):
        return f"{type(config).__name__} has layers of {', '.join(sorted(others))}."
    if config.model_type in NGRAMS:
        return f"{type(config).__name__} embeds each token with those before it."
    if biases := [name for name in INPUT_BIASES if recurs and getattr(config, name, False)]:
        return f"{type(config).__name__} has `{biases[0]}`, by which recurrent layers start from a row's padding."
    if getattr(config, "use_bidirectional_attention", None) in (True, "all") or not getattr(config, "is_causal", True):
        settings = "`use_bidirectional_attention`, or `is_causal: false`"
        return f"{type(config).__name__} lets tokens attend to later ones ({settings})."
    if types := sorted({rope.get("rope_type") for rope in rope_kinds(config)} & ROPE_BY_LENGTH):
        return (
            f"{type(config).__name__} has rotary positions of type {types[0]!r}, whose frequencies depend on the "
            "width of the batch."
        )
    if noises := _above_zero(config, "jitter"):
        return f"{type(config).__name__} has `{noises[0][0]}`, which other rows would draw otherwise."
    if config.model_type in DRAWS:
        return f"{type(config).__name__}'s layers draw their experts, which other rows would draw otherwise."
    for name, share in dropouts(config).items():
        if name.rpartition(".")[2].startswith("att"):
            return f"{type(config).__name__} has `{name}`={share}, which packed attention does not compute."
    requested = (args.model_init_kwargs or {}).get("attn_implementation") or config._attn_implementation
    soft_cap = getattr(config, "attn_logit_softcapping", None)
    if requested == "eager" and model_class._supports_sdpa and not soft_cap:  # which SDPA would leave out
        return "`attn_implementation` is 'eager', which computes all scores of padded rows. Write 'sdpa'."
    windows = getattr(config, "sliding_window", None) if _slides(config) else None
    untried = "sliding windows or a soft-cap" if windows or soft_cap else "recurrent layers" if recurs else None
    if args.device.type == "cuda" and untried and args.shared_prefix != "on":
        return (
            f"{type(config).__name__} has {untried}, whose packed kernels have not run on a GPU: write "
            "`shared_prefix: 'on'` to be the first."
        )
    if weighs_experts(config, args) and args.prefix_chunk_size is not None:
        return (
            "a load-balancing loss needs the experts' choices for a whole prompt, which `prefix_chunk_size` forwards "
            "in parts. Set `router_aux_loss_coef: 0`, or no `prefix_chunk_size`."
        )
    return None


def obstacle_in(model: nn.Module | None) -> str | None:
    """
    What in a model is in the way, as a sentence: what `obstacle` cannot see without it. Adapters that read or lengthen
    whole rows, and blocks that stand in several layers.

    Args:
        model (`nn.Module` or `None`):
            The model, plain or wrapped by PEFT, if it is there.

    Returns:
        `str` or `None`: `None` where nothing is.
    """
    if model is None:
        return None
    if is_peft_model(model):
        for adapter in model.peft_config.values():
            if reason := obstacle_of_adapter(adapter):
                return reason
    names: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        in_layers = any(part.isdigit() for part in name.split("."))
        if not in_layers or not any(True for _ in module.children()):  # activations and rotary positions may be shared
            continue
        if names.setdefault(module, name) != name:
            return f"{names[module]} and {name} are one module, and a prefix is kept once for each."
    return None


def obstacle_of_adapter(adapter: "PeftConfig | None") -> str | None:
    """
    Why an adapter does not work on packed rows, as a sentence.

    Args:
        adapter (`PeftConfig` or `None`):
            PEFT's configuration of it, if there is one.

    Returns:
        `str` or `None`: `None` where it does.
    """
    if getattr(adapter, "is_prompt_learning", False):
        return f"{type(adapter).__name__} puts tokens of its own before a row, of which a packed one has several."
    if getattr(adapter, "alora_invocation_tokens", None):
        return "an adapter with `alora_invocation_tokens` looks for them in a row, and packed rows are several in one."
    return None


def weighs_experts(config: PretrainedConfig, args: GRPOConfig) -> bool:
    """
    Whether TRL adds a load-balancing loss, in which each prompt counts once for each of its rows.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.
        args (`GRPOConfig`):
            Training arguments.

    Returns:
        `bool`: Whether.
    """
    text, coefficient = config.get_text_config(), args.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0)
    return hasattr(text, "output_router_logits") and bool(coefficient)


def _above_zero(config: PretrainedConfig, word: str) -> list[tuple[str, float]]:
    """Fields that have a word in their names, and what they are, where that is above zero; also those of a part."""
    fields, found = list(config.to_dict().items()), []
    for name, value in fields:
        if isinstance(value, dict) and not any(other in name for other in OTHER_INPUTS):  # as DBRX's `attn_config`
            fields += [(f"{name}.{inner}", part) for inner, part in value.items()]
        elif word in name.rpartition(".")[2] and type(value) in (int, float) and value > 0:
            found.append((name, value))
    return found


def _looks_attention_up(model_class: type) -> bool:
    """Whether its file uses the AttentionInterface, whatever it says: recurrent layers do not support a backend."""
    return hasattr(sys.modules[model_class.__module__], "ALL_ATTENTION_FUNCTIONS")


def _slides(config: PretrainedConfig) -> bool:
    """Whether any layer has a window: those named so, or all where layers are not named."""
    return "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
