"""Eq. 8–10: which rows of W_Q and W_K may learn: channels by magnitude (Eq. 9), their rows (Eq. 8), the mask (Eq. 10).

Shapes: H heads, D channels per head (head_dim), k selected channels per head.
"""

import torch

from .sparsity import num_selected
from .strategies import STRATEGIES


def select_rows(
    magnitude: torch.Tensor,
    sparsity_ratio: float,
    strategy: str = "massive",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Select the rows of one projection that may learn (LongAct, Eq. 8–10). Ties go to the lower channel.

    Args:
        magnitude (`torch.Tensor` of shape (H, D)):
            Magnitude of each channel of each head (Eq. 2). `"random"` and `"dense"` use only its shape.
        sparsity_ratio (`float`):
            λ, share of channels selected in each head. Ignored by `"dense"`.
        strategy (`str`, *optional*, defaults to `"massive"`):
            `"massive"` takes the top k of each head, `"min"` the bottom k, `"random"` k at random, `"dense"` all.
        generator (`torch.Generator`, *optional*):
            CPU generator for `"random"`; seed it alike on every rank.

    Returns:
        `torch.BoolTensor` of shape (H·D,), on the CPU: `True` at row h·D + d where channel d of head h is selected.

    Raises:
        `ValueError`: If the strategy is unknown, λ is unusable, or a magnitude that decides is not finite.

    Example:

    ```python
    >>> magnitude = torch.tensor([[0.8, 0.2, 0.9, 0.5], [0.3, 0.7, 0.6, 0.4]])
    >>> select_rows(magnitude, sparsity_ratio=0.3).nonzero().flatten().tolist()
    [2, 5]
    ```
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Unknown `strategy` {strategy!r}. Write one of {', '.join(map(repr, STRATEGIES))}.")
    rule, (num_heads, head_dim) = STRATEGIES[strategy], magnitude.shape
    if not rule.masks:
        return torch.ones(num_heads * head_dim, dtype=torch.bool)
    k = num_selected(sparsity_ratio, head_dim)
    magnitude = magnitude.float().cpu()
    if rule.measures and not magnitude.isfinite().all():
        raise ValueError(
            f"{int((~magnitude.isfinite()).sum())} of {magnitude.numel()} magnitudes are NaN or infinite: the model's "
            "activations overflowed. Train in bfloat16 rather than float16, or lower the learning rate."
        )
    # A stable sort, because topk breaks ties differently from one device to another.
    order = rule.score(magnitude, generator).sort(dim=1, descending=True, stable=True).indices
    mask = torch.zeros(num_heads, head_dim, dtype=torch.bool)
    mask.scatter_(1, order[:, :k], True)
    return mask.flatten()
