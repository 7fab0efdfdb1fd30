"""A model by its name: its configuration, tokenizer and window, the model without weights, and with them."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import HFValidationError
from torch import nn

from .naming import broken_file, naming
from .weight_files import check_weights, refuse_adapter


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

WINDOW_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
WINDOW_FIELDS += ("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len")
"""What configurations call the positions that a model can read, as vLLM looks for them."""
DECIDING_FIELD = "model_max_length"
"""Command R's, which is more than its `max_position_embeddings`: it alone counts where it is there."""


def load_config(model: str, revision: str | None = None, trust_remote_code: bool = False) -> "PretrainedConfig":
    """
    Read a model's configuration, and nothing else of it.

    Args:
        model (`str`):
            Hub id or folder.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may run. `False` does not ask at a terminal either.

    Returns:
        `PretrainedConfig`: The configuration.

    Raises:
        `ValueError`: If there is no such model, or its config.json cannot be used.
    """
    from transformers import AutoConfig

    with naming(model):
        try:
            config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
        except (OSError, HFValidationError):
            raise
        except Exception as error:  # of many classes, some of transformers' own, and few name the file
            unusable = f"The config.json of {model!r} cannot be used: {' '.join(str(error).split())}"
            raise ValueError(broken_file(model) or unusable) from error
    for rope, name in product(rope_kinds(config), ("factor", "original_max_position_embeddings")):
        if not isinstance(rope.get(name, 1), int | float):  # which only computing with it would tell
            raise ValueError(f"The config.json of {model!r}: {name}={rope[name]!r} of its positions must be a number.")
    return config


def load_processing_class(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase | ProcessorMixin":
    """
    Load the tokenizer as [`~trl.GRPOTrainer`] would, before it loads the model.

    Args:
        model, revision, trust_remote_code:
            As in [`load_config`].

    Returns:
        `PreTrainedTokenizerBase` or `ProcessorMixin`: Tokenizer, or the processor of a vision-language model.

    Raises:
        `ValueError`: If there is no such model, or its tokenizer is missing or cannot be used.
    """
    from transformers import AutoProcessor, AutoTokenizer

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    options |= {"truncation_side": "left", "padding_side": "left"}

    def load(name: str):
        try:
            return AutoProcessor.from_pretrained(name, **options)
        except ValueError:  # that there is neither this nor that; the tokenizer's own reason names what is wrong
            AutoTokenizer.from_pretrained(name, **options)
            raise

    return read_tokenizer(model, load)


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The model's tokenizer, with a padding token. `ValueError` if there is none."""
    from transformers import AutoTokenizer

    tokenizer = read_tokenizer(model, partial(AutoTokenizer.from_pretrained, trust_remote_code=False))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def read_tokenizer(model: str, load: Callable[[str], "PreTrainedTokenizerBase | ProcessorMixin"]):
    """
    A tokenizer that has words.

    Args:
        model (`str`):
            Hub id or folder.
        load (`Callable`):
            What loads its tokenizer or processor.

    Returns:
        `PreTrainedTokenizerBase` or `ProcessorMixin`

    Raises:
        `ValueError`: If there is no such model, or its files cannot be used. Where they are missing, transformers
        makes a tokenizer of the special tokens of the model's type alone, to which every prompt is empty.
    """
    with naming(model):
        try:
            loaded = load(model)
        except (OSError, HFValidationError):
            raise
        except Exception as error:  # of the tokenizers library, plain ones that name no file
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            unusable = f"The tokenizer of {model!r} cannot be loaded: {what}"
            raise ValueError(broken_file(model) or unusable) from error
    tokenizer = getattr(loaded, "tokenizer", loaded)
    if hasattr(tokenizer, "get_added_vocab") and tokenizer.get_vocab().keys() <= tokenizer.get_added_vocab().keys():
        raise ValueError(
            f"{model!r} has no tokenizer: copy tokenizer.json, tokenizer_config.json and the chat template from the "
            "model that it was made of into its folder."
        )
    return loaded


def window_of(config: "PretrainedConfig") -> int | None:
    """
    Tokens that a model can read: what its `config.json` says, for training, evaluation and vLLM alike.

    YaRN is no exception: `max_position_embeddings` is the stretched window in transformers' and vLLM's reading (vLLM
    0.31 refuses more, whatever factor stands in `rope_parameters`). [`yarn_reach`] tells where a config says less.

    Args:
        config (`PretrainedConfig`):
            The model's configuration; of a composite one, the text decoder's part counts.

    Returns:
        `int` or `None`: `None` for a model whose configuration names no limit, such as a recurrent one; XLNet's says
        -1.
    """
    text = config.get_text_config()
    fields = (DECIDING_FIELD,) if getattr(text, DECIDING_FIELD, None) else WINDOW_FIELDS
    named = (getattr(text, field, None) for field in fields)
    return min((int(size) for size in named if size is not None and size > 0), default=None)


def yarn_reach(config: "PretrainedConfig") -> int | None:
    """
    Positions that a configuration's YaRN is made for, `factor` times `original_max_position_embeddings`.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.

    Returns:
        `int` or `None`: `None` without YaRN. Where it is more than [`window_of`], `max_position_embeddings` has not
        been raised to it, and nothing reads further than it says.
    """
    yarns = [rope for rope in rope_kinds(config) if rope.get("rope_type") == "yarn"]
    reaches = (int((rope.get("original_max_position_embeddings") or 0) * rope.get("factor", 1)) for rope in yarns)
    return max(reaches, default=0) or None


def rope_kinds(config: "PretrainedConfig") -> list[dict]:
    """
    Rotary positions: of all layers, or of each kind of layers where these differ, as in Gemma 3.

    Args:
        config (`PretrainedConfig`):
            The model's configuration.

    Returns:
        `list[dict]`: As `rope_parameters` has them; one empty entry where there are none.
    """
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return [part for part in parameters.values() if isinstance(part, dict)] or [parameters]


def model_class_of(config: "PretrainedConfig") -> "type[PreTrainedModel] | None":
    """
    The class that a model is trained as: what its configuration names, as TRL reads it, else what transformers has
    for such a configuration. A composite one, whose checkpoint also holds a vision tower, is loaded whole.

    Args:
        config (`PretrainedConfig`):
            A language model's configuration.

    Returns:
        `type[PreTrainedModel]` or `None`: `None` for custom code, and for what writes no text.
    """
    import transformers

    text, whole = transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    known = [mapping[type(config)] for mapping in (text, whole) if type(config) in mapping]
    named = getattr(transformers, (getattr(config, "architectures", None) or [""])[0], None)
    if named in known:
        return named
    fitting = [one for one in known if one.config_class is type(config)]  # Qwen3.5's text model takes another config
    return next(iter(fitting or known), None)


def skeleton_of(config: "PretrainedConfig") -> nn.Module:
    """
    A model without weights: every module is there, on the meta device.

    Args:
        config (`PretrainedConfig`):
            A language model's configuration, also one that reads images.

    Returns:
        `nn.Module`

    Raises:
        `ValueError`: If it is none that transformers itself can build.
    """
    model_class = _known_class_of(config)
    from transformers.modeling_utils import set_zero3_state

    try:
        # ZeRO-3 would allocate: in `from_config`, by which composite models make their parts, unless it is told that
        # this is done already.
        with set_zero3_state(), torch.device("meta"):
            return model_class(config)
    except ImportError as error:  # a vision tower of timm's
        raise ValueError(f"{model_class.__name__} cannot be built here: {' '.join(str(error).split())}") from error
    except Exception as error:  # of a configuration that lacks what the model's own code reads
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{model_class.__name__} cannot be built from this configuration: {what}") from error


def _known_class_of(config: "PretrainedConfig") -> "type[PreTrainedModel]":
    model_class = model_class_of(config)
    if model_class is None:
        raise ValueError(f"A {config.model_type!r} is none of which transformers has a causal language model.")
    return model_class


def load_skeleton(model: str) -> nn.Module:
    """
    The model without weights, by its name.

    Args:
        model (`str`):
            Hub id or folder.

    Returns:
        `nn.Module`: On the meta device.

    Raises:
        `ValueError`: If there is no such model, or it is none that transformers itself can build.
    """
    refuse_adapter(model)
    config = load_config(model)
    try:
        return skeleton_of(config)
    except ValueError as error:
        raise ValueError(f"{model!r}: {error}") from error


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
        `ValueError`: If there is no such model, or its weights are not whole.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    options = {"dtype": "auto", "device_map": "auto" if on_gpu else None, "trust_remote_code": False}
    if Path(model).is_dir():
        check_weights(Path(model))
    model_class = _known_class_of(load_config(model))  # a composite one whole, so that names are its files'
    with naming(model):
        loaded = model_class.from_pretrained(model, **options)
    return (loaded if on_gpu else loaded.float()).eval()
