"""A model by its name: what can be known without its weights, and then the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..method.projections import Projection, find_projections
from ..models.naming import naming
from ..models.weight_files import refuse_adapter
from ..pictures.heatmaps import KINDS, layer_of


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_skeleton(model: str) -> nn.Module:
    """
    The model without weights: every module is there, on the meta device.

    Args:
        model (`str`):
            Hub id or folder.

    Returns:
        `nn.Module`

    Raises:
        `ValueError`: If there is no such model, or it is none that transformers itself can build.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    refuse_adapter(model)
    with naming(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)  # None would ask at a terminal
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{model!r} is a {config.model_type!r}, of which transformers has no causal language model.")
    with torch.device("meta"):
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The model's tokenizer, with a padding token. `ValueError` if there is none."""
    from transformers import AutoTokenizer

    with naming(model):
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def load_model(model: str) -> "PreTrainedModel":
    """
    The model with its weights, ready to run: on the GPUs if there are any, in the checkpoint's dtype; else on the CPU
    in float32, since few CPUs compute in half precision.

    Args:
        model (`str`):
            Hub id or folder.

    Returns:
        `PreTrainedModel`: In evaluation mode.

    Raises:
        `ValueError`: If there is no such model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    options = {"dtype": "auto", "device_map": "auto" if on_gpu else None, "trust_remote_code": False}
    with naming(model):
        loaded = AutoModelForCausalLM.from_pretrained(model, **options)
    return (loaded if on_gpu else loaded.float()).eval()


def choose_projections(model: nn.Module, kinds: Sequence[str], layers: str | None = None) -> list[Projection]:
    """
    The projections that a user asked for.

    Args:
        model (`nn.Module`):
            A causal language model, also one without weights.
        kinds (`Sequence[str]`):
            Some of `"q"`, `"k"` and `"v"`.
        layers (`str`, *optional*):
            Numbers and ranges, e.g. `"0,5,10-12"`. Default: all.

    Returns:
        `list[Projection]`: In layer order.

    Raises:
        `ValueError`: For an unknown kind or layer.
    """
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"Unknown projections {','.join(kinds)!r}. Write some of q,k,v.")
    projections = find_projections(model, kinds)
    if layers is None:
        return projections
    known = list(dict.fromkeys(layer_of(p.name) for p in projections))
    chosen = set()
    for part in layers.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"Cannot read layers {layers!r}. Write numbers and ranges, as in 0,5,10-12.")
        numbers = [str(number) for number in range(int(first), int(last or first) + 1)]
        if not numbers or set(numbers) - set(known):
            raise ValueError(f"No layer {part.strip()}: the model has layers {known[0]} to {known[-1]}.")
        chosen.update(numbers)
    return [p for p in projections if layer_of(p.name) in chosen]
