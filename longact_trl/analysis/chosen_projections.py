"""The projections that a user asked for, by kind and layer."""

from collections.abc import Sequence

from torch import nn

from ..method.projections import Projection, find_projections
from ..pictures.heatmaps import KINDS, layer_of


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
