"""One step that moves some rows of W_Q and W_K only, as long as any other step, and taken back again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ...method.gradients import row_parameters, zero_rows
from ...method.projections import Projection
from .row_energy import Rows, full_rows, rows_of


DIRECTIONS = {
    "gradient": lambda grad: grad,
    "sign": torch.sign,  # AdamW's first step, whatever the gradient's size
}
Gradient = Mapping[nn.Parameter, torch.Tensor]


def restrict(gradient: Gradient, projections: Sequence[Projection], rows: Rows, direction: str) -> Gradient:
    """
    A gradient, or its signs, in some rows, and zero elsewhere.

    Args:
        gradient (`dict[nn.Parameter, torch.Tensor]`):
            Of parameters of these projections.
        projections (`Sequence[Projection]`):
            Q and K.
        rows (`dict[str, torch.BoolTensor]`):
            Projection name to the rows that are kept, of shape (H·D,).
        direction (`str`):
            One of `DIRECTIONS`.

    Returns:
        `dict[nn.Parameter, torch.Tensor]`: New tensors; `gradient` stays as it is.
    """
    kept: dict[nn.Module, torch.Tensor] = {}
    for projection in projections:
        of_module = full_rows(projection, rows[projection.name])
        kept[projection.module] = of_module | kept.get(projection.module, torch.zeros_like(of_module))
    restricted = {}
    for module, of_module in kept.items():
        for param in row_parameters(module):
            if param in gradient:
                restricted[param] = DIRECTIONS[direction](gradient[param]).clone()
                zero_rows(restricted[param], ~of_module, rows_of(module, param))
    return restricted


def norm_of(tensors: Sequence[torch.Tensor]) -> float:
    """L2 norm of several tensors together."""
    return math.sqrt(sum(t.detach().float().square().sum().item() for t in tensors))


@contextmanager
def stepped(direction: Gradient, norm: float) -> Iterator[None]:
    """
    Inside, the parameters have moved against a direction by so much; behind, they have the bits that they had before.

    Args:
        direction (`dict[nn.Parameter, torch.Tensor]`):
            As [`restrict`] returns it, not all zero.
        norm (`float`):
            L2 norm of the step, over all parameters together.
    """
    scale = norm / norm_of(list(direction.values()))
    before = {param: param.detach().clone() for param in direction}
    try:
        with torch.no_grad():
            for param, towards in direction.items():
                param.sub_(towards, alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for param, values in before.items():
                param.copy_(values)
