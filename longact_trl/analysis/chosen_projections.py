"""The projections that a user asked for, by kind and layer."""

import re
from collections.abc import Sequence

from torch import nn

from ..method.projections import Projection, find_projections
from ..pictures.heatmaps import layer_of
from .options import check_kinds, parse_layers


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
    check_kinds(kinds)
    parts = parse_layers(layers)
    projections = find_projections(model, kinds)
    if parts is None:
        return projections
    known = list(dict.fromkeys(_number_of(p) for p in projections))
    chosen = set()
    for part, numbers_of in parts.items():
        numbers = [str(number) for number in numbers_of]
        if not numbers or set(numbers) - set(known):
            raise ValueError(f"No layer {part}: the model has layers {known[0]} to {known[-1]}.")
        chosen.update(numbers)
    return [p for p in projections if _number_of(p) in chosen]


def _number_of(projection: Projection) -> str:
    """Of its layer, also where that has several attentions or is in one of several stacks."""
    layer = layer_of(projection.name)
    number = re.search(r"\d+", layer)
    return number[0] if number else layer
