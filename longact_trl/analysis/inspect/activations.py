"""Eq. 2 on long texts: at three places of the attention layer, for a text and for its beginnings, in one pass.

Attention is causal, so the first n tokens of a text have the activations that they would have as a text of their own:
the magnitudes of a prefix need no pass of their own. No activation is kept, and no logits are computed.

Shapes: S sequence, H heads, D channels per head, C = H·D channels of a projection.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ...method.magnitude import Magnitudes, channel_norms
from ...method.projections import Projection


SITES = {
    "projection": "outputs of the projections (Eq. 2)",
    "norm": "after q_norm and k_norm",
    "rope": "after rotary position embedding",
}
Record = Callable[[Projection, torch.Tensor], None]


def measure_text(
    model: nn.Module,
    input_ids: torch.Tensor,
    projections: Sequence[Projection],
    lengths: Sequence[int] = (),
    site: str = "projection",
) -> dict[int, Magnitudes]:
    """
    Magnitudes of one text and of its beginnings (LongAct, Eq. 2). At `"projection"` they are, to the bit, what
    [`measure_magnitudes`] and training compute for these tokens.

    Args:
        model (`PreTrainedModel`):
            A causal language model.
        input_ids (`torch.LongTensor` of shape (S,)):
            The text.
        projections (`Sequence[Projection]`):
            What to measure.
        lengths (`Sequence[int]`, *optional*):
            Numbers of tokens below S; S itself is always measured.
        site (`str`, *optional*, defaults to `"projection"`):
            Where: one of `SITES`. V has neither norm nor rotation, so it is the same everywhere.

    Returns:
        `dict[int, dict[str, torch.Tensor]]`: Number of tokens, ascending, to projection name to float32 magnitudes of
        shape (H, D) on the CPU.

    Raises:
        `ValueError`: If the model has nothing at that site.
    """
    lengths = sorted({*lengths, len(input_ids)})
    found: dict[int, Magnitudes] = {length: {} for length in lengths}

    def record(projection: Projection, values: torch.Tensor) -> None:
        for length in lengths:
            norms = channel_norms(values[:length]).cpu()
            found[length][projection.name] = norms.view(projection.num_heads, projection.head_dim)

    with torch.no_grad(), _recording(model, projections, site, record):
        model.get_decoder()(input_ids=input_ids[None].to(model.device), use_cache=False)
    return {length: {p.name: named[p.name] for p in projections} for length, named in found.items()}


def check_site(model: nn.Module, projections: Sequence[Projection], site: str) -> None:
    """
    Check, also on a model without weights, that it has something to measure at a site.

    Args:
        model (`nn.Module`):
            A causal language model.
        projections (`Sequence[Projection]`):
            What would be measured.
        site (`str`):
            One of `SITES`.

    Raises:
        `ValueError`: If it has not.
    """
    if site == "norm":
        for projection in projections:
            if projection.kind != "v":
                _norm_of(model, projection)


@contextmanager
def _recording(model: nn.Module, projections: Sequence[Projection], site: str, record: Record) -> Iterator[None]:
    handles = []
    rotated: dict[nn.Module, dict[str, Projection]] = {}
    try:
        for projection in projections:
            if site == "projection" or projection.kind == "v":
                handles.append(projection.module.register_forward_hook(_after_projection(projection, record)))
            elif site == "norm":
                norm = _norm_of(model, projection)
                handles.append(norm.register_forward_hook(_after_norm(projection, record)))
            else:
                rotated.setdefault(_attention_of(model, projection), {})[projection.kind] = projection
        with _before_attention(model, rotated, record):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _after_projection(projection: Projection, record: Record):
    # A latent attention's keys have one more dimension.
    return lambda module, args, output: record(projection, output[0, ..., projection.rows].flatten(0, -2))


def _after_norm(projection: Projection, record: Record):
    def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        values = output[0]
        if values.dim() == 3 and values.shape[1] != projection.num_heads:  # heads before tokens, as in Gemma 3
            values = values.transpose(0, 1)
        record(projection, values.flatten(1) if values.dim() == 3 else values)

    return hook


@contextmanager
def _before_attention(
    model: nn.Module, rotated: dict[nn.Module, dict[str, Projection]], record: Record
) -> Iterator[None]:
    """Queries and keys have no module between rotation and attention, so the attention function is wrapped."""
    if not rotated:
        yield
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = model.config._attn_implementation
    if name not in ALL_ATTENTION_FUNCTIONS:
        raise ValueError(f"Cannot look behind the rotation with {name!r} attention. Load the model with 'sdpa'.")
    attend = ALL_ATTENTION_FUNCTIONS[name]

    def observed(module: nn.Module, query: torch.Tensor, key: torch.Tensor, *args, **kwargs):
        for kind, states in (("q", query), ("k", key)):
            if kind in rotated.get(module, {}):
                record(rotated[module][kind], states[0].transpose(0, 1).flatten(1))
        return attend(module, query, key, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS[name] = observed  # hides transformers' own function until it is deleted again
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[name]


def _attention_of(model: nn.Module, projection: Projection) -> nn.Module:
    return model.get_submodule(projection.name.rpartition(".")[0])


def _norm_of(model: nn.Module, projection: Projection) -> nn.Module:
    norm = getattr(_attention_of(model, projection), f"{projection.kind}_norm", None)
    if norm is None:
        raise ValueError(
            f"{projection.name} has no {projection.kind}_norm behind it (Qwen3 has, Llama has not): leave "
            "--after-norm out, or look after the rotation with --after-rope."
        )
    return norm
