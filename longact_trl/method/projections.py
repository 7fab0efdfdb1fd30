"""Where the Q, K and V projections live in a model: which module, which of its output rows, which heads.

Row `offset + h * head_dim + d` of the projection's weight produces channel `d` of head `h`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn


LOOKED_FOR = "`q_proj` and `k_proj` (Llama, Mistral, Qwen2, Qwen3) or a fused `qkv_proj` (Phi-3)"


@dataclass(frozen=True)
class Projection:
    """
    One of the Q, K or V projections of an attention layer.

    Args:
        name (`str`):
            Dotted path in the model without PEFT's prefix, e.g. `"model.layers.0.self_attn.q_proj"`. The two halves
            of a fused projection are told apart by a suffix: `"….qkv_proj:q"`.
        kind (`str`):
            `"q"`, `"k"` or `"v"`.
        module (`nn.Module`):
            The linear module, or the PEFT layer around it. Its output has shape (B, S, rows of the module).
        num_heads (`int`):
            Number of heads; K and V have fewer than Q under grouped-query attention.
        head_dim (`int`):
            Channels per head.
        offset (`int`, *optional*, defaults to `0`):
            First output row of this projection in `module`; non-zero only in a fused projection.
    """

    name: str
    kind: str
    module: nn.Module
    num_heads: int
    head_dim: int
    offset: int = 0

    @property
    def rows(self) -> slice:
        """Output rows of `module` that belong to this projection."""
        return slice(self.offset, self.offset + self.num_heads * self.head_dim)


def find_projections(model: nn.Module, kinds: Sequence[str] = ("q", "k")) -> list[Projection]:
    """
    Find the attention projections of a decoder by structure.

    Args:
        model (`nn.Module`):
            A causal language model, plain or wrapped by PEFT.
        kinds (`Sequence[str]`, *optional*, defaults to `("q", "k")`):
            Which of `"q"`, `"k"` and `"v"` to return.

    Returns:
        `list[Projection]`: In layer order, Q before K before V.

    Raises:
        `ValueError`: If an attention layer has neither separate nor fused projections, or its rows are not a whole
            number of heads.
    """
    found: list[Projection] = []
    unknown: list[str] = []
    for name, module in model.named_modules():
        if not type(module).__name__.endswith(("Attention", "Attention2", "SdpaAttention")):
            continue
        projections = list(_projections_of(name.removeprefix("base_model.model."), module))
        if not projections:
            unknown.append(f"{name} ({type(module).__name__}: {', '.join(n for n, _ in module.named_children())})")
        found += [p for p in projections if p.kind in kinds]
    if unknown or not found:
        where = f"Not understood: {unknown[0]}." if unknown else "The model has no module named …Attention."
        raise ValueError(
            f"LongAct needs the Q and K projections of every attention layer and looked for {LOOKED_FOR}. {where}"
        )
    return found


def _projections_of(name: str, attention: nn.Module) -> Iterator[Projection]:
    children = dict(attention.named_children())
    if "qkv_proj" in children:
        fused, config, head_dim = children["qkv_proj"], attention.config, attention.head_dim
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads, "v": config.num_key_value_heads}
        if sum(heads.values()) * head_dim != fused.out_features:
            raise ValueError(
                f"{name}.qkv_proj has {fused.out_features} rows, but {heads['q']} query, {heads['k']} key and "
                f"{heads['v']} value heads of {head_dim} channels make {sum(heads.values()) * head_dim}."
            )
        offset = 0
        for kind, num_heads in heads.items():
            yield Projection(f"{name}.qkv_proj:{kind}", kind, fused, num_heads, head_dim, offset)
            offset += num_heads * head_dim
    elif "q_proj" in children and "k_proj" in children:
        for kind in ("q", "k", "v"):
            module = children.get(f"{kind}_proj")
            if module is None:  # V may be missing: LongAct does not need it
                continue
            num_heads, rest = divmod(module.out_features, attention.head_dim)
            if rest:
                raise ValueError(
                    f"{name}.{kind}_proj has {module.out_features} rows, which is no multiple of its head_dim "
                    f"{attention.head_dim}."
                )
            yield Projection(f"{name}.{kind}_proj", kind, module, num_heads, attention.head_dim)
