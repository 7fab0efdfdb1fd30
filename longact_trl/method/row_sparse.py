"""Eq. 11 for less than the dense price: only the selected rows of a weight's gradient are computed.

For Y = X Wᵀ + b the dense gradient dW = dYᵀ X costs 2·T·R·D operations, and the mask throws most of its rows away.
Here dW[rows] = dY[:, rows]ᵀ X costs 2·T·|rows|·D, and all other rows are zeros that nothing was ever added to. Y and
dX = dY W keep their bits. dW differs from the dense one only in the order in which tokens are added.
Shapes: T tokens, R output rows, D input features.
"""

from collections.abc import Callable

import torch
from torch import nn


# What `benchmarks/row_sparse.py` has measured, by type of device: faster than a dense gradient that is then masked,
# from this many tokens, up to this share of rows. A device that is not here has not been measured. No clock decides
# during training: that could go either way from run to run, and a resumed run would end at other bits.
MEASURED = {"cpu": (512, 0.5)}


def is_worthwhile(choice: str, device_type: str, num_tokens: int, share: float) -> bool:
    """
    Whether to compute only some rows of a weight's gradient. The same arguments always give the same answer.

    Args:
        choice (`str`):
            `"on"`, `"off"`, or `"auto"`: where it was measured to be faster.
        device_type (`str`):
            As in `torch.device.type`.
        num_tokens (`int`):
            Tokens of the forward pass, padding included.
        share (`float`):
            Share of the rows that are computed, in [0, 1].

    Returns:
        `bool`: Ranks may get different answers where they have different numbers of tokens: either way leads to the
            same gradient.
    """
    if choice == "auto" and device_type in MEASURED:
        min_tokens, max_share = MEASURED[device_type]
        return num_tokens >= min_tokens and share <= max_share
    return choice == "on"


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a projection is a linear layer with a trained weight, neither PEFT's nor quantised."""
    return type(module) is nn.Linear and module.weight.requires_grad


class NotCopied:
    """A hook that does nothing in a deep copy of its module, or once that was pickled and read."""

    def __init__(self, hook: Callable):
        self._hook = hook

    def __call__(self, *args):
        return self._hook(*args)

    def __reduce__(self):
        return NotCopied, (_do_nothing,)


def _do_nothing(*args) -> None:
    pass


def with_row_sparse_gradient(
    output: torch.Tensor, x: torch.Tensor, linear: nn.Linear, rows: torch.Tensor
) -> torch.Tensor:
    """
    The output of a linear layer, to be differentiated in some rows of its weight and bias only.

    Args:
        output (`torch.Tensor` of shape (..., R)):
            What `linear(x)` has returned. Its values are used, its graph is not.
        x (`torch.Tensor` of shape (..., D)):
            Input.
        linear (`nn.Linear`):
            The layer.
        rows (`torch.LongTensor` of shape (number of rows,)):
            Rows that get a gradient. All others get exactly zero.

    Returns:
        `torch.Tensor` of shape (..., R): The same values as `output`.
    """
    return _RowSparseGradient.apply(output.detach(), x, linear.weight, linear.bias, rows)


class _RowSparseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, x, weight, bias, rows):
        # The parameter itself, not a view or a cast of it: what ZeRO-3 gathered can be freed until backward.
        ctx.save_for_backward(x, weight, rows)
        return output.detach()

    @staticmethod
    def backward(ctx, grad):
        x, weight, rows = ctx.saved_tensors
        _, needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        flat = grad.reshape(-1, grad.shape[-1])  # (T, R)
        with torch.autocast(grad.device.type, enabled=False):  # the forward pass has chosen the dtype: that of `grad`
            if needs_x:
                grad_x = flat.mm(weight.to(grad.dtype)).view(x.shape).to(x.dtype)
            selected = flat.index_select(1, rows)  # (T, |rows|)
            if needs_weight:
                computed = selected.t().mm(x.reshape(-1, x.shape[-1]).to(grad.dtype))
                grad_weight = _fill_rows(weight.new_zeros(weight.shape), rows, computed)
            if needs_bias:
                grad_bias = _fill_rows(weight.new_zeros(weight.shape[0]), rows, selected.sum(0))
        return None, grad_x, grad_weight, grad_bias, None


def _fill_rows(zeros: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return zeros.index_copy_(0, rows, values.to(zeros.dtype))
