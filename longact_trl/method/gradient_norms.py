"""How much of the gradient of W_Q and W_K lies in the rows that learn: a metric, not a part of the method."""

import torch


class GradientNorms:
    """
    Squared norms of the gradients that pass by, of selected rows and of all, on this rank. Row-sparse gradients hold
    no other rows, so from the first of them on nothing is known of the whole.
    """

    def __init__(self):
        self.skips_rows = False  # whether any gradient since the last `pop` was row-sparse
        self._squares: list[torch.Tensor] = []  # float32 (2,) of each gradient seen: selected rows, all rows

    def add(self, grad: torch.Tensor, dropped: torch.Tensor) -> None:
        """
        Take in one gradient, before it is masked.

        Args:
            grad (`torch.Tensor` of shape (rows, ...)):
                Gradient, or this rank's rows of it.
            dropped (`torch.BoolTensor` of shape (rows,)):
                `True` where the row is masked.
        """
        if self.skips_rows:
            return
        rows = grad.unsqueeze(-1)  # a bias has no second dimension, and no dimension at all would mean all of them
        dtype = torch.promote_types(grad.dtype, torch.float32)
        squares = torch.linalg.vector_norm(rows, dim=tuple(range(1, rows.dim())), dtype=dtype).square()
        self._squares.append(torch.stack([squares.masked_fill(dropped, 0).sum(), squares.sum()]))

    def pop(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """
        What was taken in since the last call.

        Args:
            device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
                Where gradients are.

        Returns:
            `torch.FloatTensor` of shape (2,): Squared norm of selected rows and of all; NaN where some rows were never
            computed.
        """
        start = float("nan") if self.skips_rows else 0.0
        total = sum(self._squares, torch.full((2,), start, device=device))
        self._squares.clear()
        self.skips_rows = False
        return total
