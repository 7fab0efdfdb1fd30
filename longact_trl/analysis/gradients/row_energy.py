"""How a gradient is spread over the rows of W_Q and W_K, and what of it massive, random and low rows hold.

Shapes: H heads, D channels per head, P parameters of a row.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ...method.gradients import row_parameters
from ...method.magnitude import Magnitudes
from ...method.masks import select_rows
from ...method.projections import Projection, num_rows, row_dim


STRATEGIES = ("massive", "random", "min")
RowEnergy = dict[str, torch.Tensor]
"""Name of a projection to the squared norm of the gradient of each of its rows, float64 of shape (H, D)."""
Rows = dict[str, torch.Tensor]
"""Name of a projection to the rows that were selected, bool of shape (H·D,)."""


def row_energy(projections: Sequence[Projection]) -> RowEnergy:
    """
    Squared norms of the gradients that a backward pass has left, row by row, a bias being part of its row.

    Args:
        projections (`Sequence[Projection]`):
            Projections whose parameters have a `grad`; one without counts as zero.

    Returns:
        `dict[str, torch.Tensor]`: Projection name to float64 of shape (H, D), on the CPU.
    """
    found = {}
    for projection in projections:
        energy = torch.zeros(projection.num_heads * projection.head_dim, dtype=torch.float64)
        for param in row_parameters(projection.module):
            if param.grad is not None:
                grad = param.grad.movedim(rows_of(projection.module, param), 0)[projection.rows]
                energy += (
                    grad.float().flatten(1).square().sum(1).double().cpu()
                    if grad.dim() > 1
                    else (grad.double().square().cpu())
                )
        found[projection.name] = energy.view(projection.num_heads, projection.head_dim)
    return found


def rows_of(module: nn.Module, param: nn.Parameter) -> int:
    """Dimension of a projection's parameter that counts its rows."""
    return row_dim(module) if param.dim() > 1 else 0


def select(magnitudes: Magnitudes, sparsity_ratio: float, strategy: str, seed: int = 0) -> Rows:
    """
    The rows that training with a strategy would select (LongAct, Eq. 8–10).

    Args:
        magnitudes (`dict[str, torch.Tensor]`):
            Of the batch, by projection name, of shape (H, D).
        sparsity_ratio (`float`):
            λ.
        strategy (`str`):
            `"massive"`, `"random"`, `"min"` or `"dense"`.
        seed (`int`, *optional*, defaults to `0`):
            Of the draw of `"random"`.

    Returns:
        `dict[str, torch.BoolTensor]`: Projection name to selected rows, of shape (H·D,).
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: select_rows(m, sparsity_ratio, strategy, generator) for name, m in magnitudes.items()}


def share(energy: RowEnergy, rows: Rows) -> float:
    """
    Share of the squared norm of a gradient that lies in some rows. Rows that know nothing of the gradient hold their
    part of all rows: k/D, which is λ rounded down to whole channels.

    Args:
        energy (`dict[str, torch.Tensor]`):
            As [`row_energy`] returns it; all its projections count together.
        rows (`dict[str, torch.BoolTensor]`):
            Selected rows, of these projections at least.

    Returns:
        `float`: From 0 to 1; NaN where there is no gradient.
    """
    inside = sum(e.flatten()[rows[name]].sum() for name, e in energy.items())
    total = sum(e.sum() for e in energy.values())
    return (inside / total).item() if total else float("nan")


def full_rows(projection: Projection, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a projection as rows of its module: bool of shape (rows of the module,)."""
    of_module = torch.zeros(num_rows(projection.module), dtype=torch.bool)
    of_module[projection.rows] = rows
    return of_module


def chance(magnitudes: Mapping[str, torch.Tensor], rows: Rows) -> float:
    """Share of the rows that were selected: what of a gradient lies there by chance."""
    return sum(int(rows[name].sum()) for name in magnitudes) / sum(m.numel() for m in magnitudes.values())
