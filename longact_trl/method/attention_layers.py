"""Which modules of a model are softmax self-attention over its text."""

from collections.abc import Iterator

from torch import nn


NOT_SOFTMAX = ("Delta", "Lightning")
"""Words in the names of recurrent layers that are called attention where the config has no `layer_types`."""
CROSS = ("cross", "encoder_attn", "encoder_decoder")
"""What modules that attend to an encoder are called in a model's paths."""


def attention_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """
    The layers whose queries and keys meet in a softmax over the text: vision towers, encoders, cross-attention and
    recurrent layers are none of them.

    Args:
        model (`nn.Module`):
            A language model, also one that reads images, plain or wrapped by PEFT.

    Yields:
        `tuple[str, nn.Module]`: Dotted path without PEFT's prefix, and module, in the model's order.
    """
    decoder = text_decoder(model)
    wanted = set(decoder.modules()) - _modules_of_others(decoder)
    layer_types = getattr(getattr(decoder, "config", None), "layer_types", None) or ()
    for name, module in model.named_modules():
        if module not in wanted or not _is_attention(module):
            continue
        path, index = name.lower(), getattr(module, "layer_idx", None)
        if any(word in path for word in CROSS) or "Cross" in type(module).__name__:
            continue
        kind = layer_types[index] if isinstance(index, int) and index < len(layer_types) else ""
        if "linear" in kind or any(word in type(module).__name__ for word in NOT_SOFTMAX):
            continue
        if any(_is_attention(child) for child in module.modules() if child is not module):
            continue  # a block around an attention
        yield name.removeprefix("base_model.model."), module


def text_decoder(model: nn.Module) -> nn.Module:
    """
    The part of a model that reads and writes text.

    Args:
        model (`nn.Module`):
            A language model, also one that reads images, plain or wrapped by PEFT.

    Returns:
        `nn.Module`: Its decoder, as `get_decoder` of transformers finds it; `model` itself where it has none.
    """
    if hasattr(model, "get_base_model"):  # PEFT
        model = model.get_base_model()
    if not hasattr(model, "get_decoder"):
        return model
    decoder = model.get_decoder()
    if not hasattr(decoder, "get_decoder"):
        return model.base_model  # `decoder` of ModernBERT is its head
    return decoder if decoder is model else text_decoder(decoder)  # Florence's has an encoder beside its own


def is_custom(module: nn.Module) -> bool:
    """Whether a module is of no class of transformers, nor made from one."""
    return not any(base.__module__.startswith("transformers.") for base in type(module).__mro__)


def _modules_of_others(decoder: nn.Module) -> set[nn.Module]:
    """Modules inside a decoder that read something else than tokens: images, sound."""
    parts = (m for m in decoder.modules() if hasattr(m, "config") and m is not decoder)
    others = (m for m in parts if any(word in type(m.config).__name__ for word in ("Vision", "Audio")))
    return {module for m in others for module in m.modules()}


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    if next(module.parameters(), None) is None and next(module.buffers(), None) is None:
        return False  # a layer without attention (DeciLM), or the product alone of one around it
    return ("Attention" in name and not name.endswith("Layer")) or name.endswith("MLA")
