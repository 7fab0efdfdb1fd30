"""The sizes of a model that decide how much memory training takes, read from a skeleton without weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PretrainedConfig

from ...method.projections import find_projections
from ...models.reading import model_class_of, skeleton_of


if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class ModelShape:
    """
    Sizes of a decoder.

    Args:
        parameters (`int`):
            All parameters; tied embeddings count once.
        trainable (`int`):
            Parameters that have a gradient: an adapter's, or all.
        layers (`int`):
            L, decoder layers.
        layer_parameters (`int`):
            Parameters of one decoder layer.
        hidden (`int`):
            Width of the residual stream.
        intermediate (`int`):
            Width of the gated MLP.
        query (`int`):
            Rows of W_Q: query heads times head_dim.
        key (`int`):
            Rows of W_K, and of W_V: key heads times head_dim.
        heads (`int`):
            Query heads.
        head_dim (`int`):
            D, channels of a head.
        vocab (`int`):
            Rows of the LM head.
        tied (`bool`):
            Whether LM head and embedding are one matrix.
        qk_norm (`bool`):
            Whether queries and keys are normalised, as in Qwen3.
    """

    parameters: int
    trainable: int
    layers: int
    layer_parameters: int
    hidden: int
    intermediate: int
    query: int
    key: int
    heads: int
    head_dim: int
    vocab: int
    tied: bool
    qk_norm: bool

    @property
    def embedding(self) -> int:
        """Parameters of the LM head, and of the embedding."""
        return self.vocab * self.hidden

    @property
    def kv_elements(self) -> int:
        """Elements that a KV cache holds for one token."""
        return 2 * self.layers * self.key


def shape_of(config: PretrainedConfig, peft_config: "PeftConfig | None" = None) -> ModelShape:
    """
    Read the sizes of a model on the meta device, where parameters take no memory.

    Args:
        config (`PretrainedConfig`):
            Configuration of a dense decoder-only model.
        peft_config (`PeftConfig`, *optional*):
            Adapter that is trained instead of the model.

    Returns:
        `ModelShape`: Its sizes.

    Raises:
        `ValueError`: If the model is none that transformers brings along, a mixture of experts, or has layers that
            are not alike.
    """
    if model_class_of(config) is None:
        raise ValueError(f"{type(config).__name__} is custom code: its sizes are known only once it is loaded.")
    text = config.get_text_config()
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        raise ValueError(f"{type(config).__name__} is a mixture of experts, for which there is no memory formula yet.")
    skeleton = skeleton_of(config)
    projections = find_projections(skeleton)
    alike = {(p.kind, p.num_heads, p.head_dim, len(p.starts)) for p in projections}
    equal_layers = len(alike) == 2 and len(projections) == 2 * text.num_hidden_layers
    has_mlp = isinstance(getattr(text, "intermediate_size", None), int)  # OPT's has another name, Gemma 3n has a list
    if text is not config or not equal_layers or not has_mlp or ".self_attn." not in projections[0].name:
        raise ValueError(f"{type(config).__name__} is no stack of equal layers, for which alone there is a formula.")
    query, key = projections[:2]
    layer = skeleton.get_submodule(query.name.split(".self_attn")[0])
    layer_parameters = sum(p.numel() for p in layer.parameters())
    qk_norm = hasattr(layer.self_attn, "q_norm")
    if peft_config is not None:
        from peft import get_peft_model

        with torch.device("meta"):
            skeleton = get_peft_model(skeleton, peft_config)
    return ModelShape(
        parameters=sum(p.numel() for p in skeleton.parameters()),
        trainable=sum(p.numel() for p in skeleton.parameters() if p.requires_grad),
        layers=text.num_hidden_layers,
        layer_parameters=layer_parameters,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        query=query.num_heads * query.head_dim,
        key=key.num_heads * key.head_dim,
        heads=query.num_heads,
        head_dim=query.head_dim,
        vocab=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        qk_norm=qk_norm,
    )
