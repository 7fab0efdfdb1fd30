"""Masks of a run's checkpoints as the page draws them."""

import base64

import numpy
import torch

from ..pictures.heatmaps import KINDS, kind_of, layer_of


MOST = 40
"""Checkpoints that a page holds: evenly spread over the run, the first and the last among them."""


def shown_checkpoints(steps: list[int]) -> list[int]:
    """The steps of the checkpoints that a page holds."""
    keep = min(len(steps), MOST)
    return [steps[position * (len(steps) - 1) // max(keep - 1, 1)] for position in range(keep)]


def projections_of(masks: dict[int, dict[str, torch.Tensor]]) -> list[dict]:
    """
    Each projection's rows at each checkpoint.

    Args:
        masks (`dict[int, dict[str, torch.BoolTensor]]`):
            By step, in order: name of a projection to its selected rows, (H, D).

    Returns:
        `list[dict]`: `layer`, `kind`, `heads`, `rows` of a projection, its `masks` by checkpoint as packed bits in
        base64, row 0 first, and its `churn` since the checkpoint before.
    """
    first = next(iter(masks.values()))
    projections = []
    for name, mask in first.items():
        over_time = [named[name].flatten() for named in masks.values()]
        projections.append(
            {
                "layer": layer_of(name),
                "kind": KINDS[kind_of(name)],
                "heads": len(mask),
                "rows": mask.numel(),
                "masks": [base64.b64encode(numpy.packbits(m.numpy()).tobytes()).decode() for m in over_time],
                "churn": [
                    round(1 - ((a & b).sum() / (a | b).sum().clamp(min=1)).item(), 4)
                    for a, b in zip(over_time, over_time[1:], strict=False)
                ],
            }
        )
    return projections
