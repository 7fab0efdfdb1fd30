"""Packed attention in bfloat16, forward and backward, beside attention by the formula; both against it in float32."""

from collections.abc import Iterator

import torch

from longact_trl.packing.attention import packed_attention
from longact_trl.packing.blocks import Scores
from longact_trl.packing.layout import PackedLayout, lay_out
from longact_trl.packing.schedule import take_turns

from .bench import Bench


TITLE = "Flash backward of packed attention against math"
NOTE = "Relative L2 distance to attention by its formula in float32, of bfloat16 inputs."
SHAPES = ((512, 4, 128), (1024, 8, 257), (1, 4, 64))  # prompt, rows, completion; heads as of Qwen3-8B and Qwen3-0.6B
HEADS = ((32, 8, 128), (16, 8, 128), (9, 3, 64))
TINY_SHAPES, TINY_HEADS = ((12, 3, 5),), ((4, 2, 16),)


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each shape and each kind of heads."""
    shapes, heads = (TINY_SHAPES, TINY_HEADS) if bench.miniature else (SHAPES, HEADS)
    for P, G, C in shapes:
        for H, K, D in heads:
            cell = {"P": P, "G": G, "C": C, "heads": f"{H}/{K}·{D}"}
            yield cell | bench.attempt(lambda shape=(P, G, C), head=(H, K, D): compare(bench, *shape, *head))


def compare(bench: Bench, P: int, G: int, C: int, H: int, K: int, D: int, scores: Scores | None = None) -> dict:
    """Distances of output and gradients: packed in bfloat16 and math in bfloat16."""
    scores = scores or Scores(D**-0.5)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(99, (G, P + C), generator=generator)
    ids[:, :P] = ids[0, :P]
    mask = torch.ones_like(ids)
    [turn] = take_turns(ids[:, :P], mask[:, :P], [G], training=True)
    layout = lay_out(ids.to(bench.device), mask.to(bench.device), P, turn)
    T = len(layout.rows)
    shapes = [(1, heads, T, D) for heads in (H, K, K)]
    inputs = [torch.randn(shape, generator=generator).bfloat16().to(bench.device) for shape in shapes]
    grad = torch.randn(shapes[0], generator=generator).bfloat16().to(bench.device)
    visible = visibility(layout, scores.window)

    def run(attention, dtype: torch.dtype) -> list[torch.Tensor]:
        tensors = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        output = attention(*tensors)
        output.backward(grad.to(dtype))
        return [x.double() for x in (output.detach(), *(tensor.grad for tensor in tensors))]

    def formula(query, key, value):
        key, value = (x.repeat_interleave(H // K, dim=1) for x in (key, value))
        scored = query @ key.mT * scores.scale
        if scores.softcap is not None:
            scored = (scored / scores.softcap).tanh() * scores.softcap
        return scored.masked_fill(~visible, -torch.inf).softmax(-1) @ value

    exact = run(formula, torch.float32)
    found = {}
    for name, attention in (("packed", lambda *x: packed_attention(*x, layout, scores)), ("math", formula)):
        for what, ours, theirs in zip(("out", "dQ", "dK", "dV"), run(attention, torch.bfloat16), exact, strict=True):
            found[f"{name} {what}"] = float((ours - theirs).norm() / theirs.norm())
    return found


def visibility(layout: PackedLayout, window: int | None = None) -> torch.Tensor:
    """Which packed token (T, T) sees which: those of its prefix and of its own segment, up to its own column, and
    fewer than a window before it."""
    segment = torch.full_like(layout.rows, -1)  # of a prefix
    number, group_of = 0, torch.zeros_like(layout.rows)
    for index, group in enumerate(layout.groups):
        group_of[group.tokens] = index
        for part in group.segments:
            segment[part] = number
            number += 1
    same = (segment.unsqueeze(1) == segment) | (segment == -1)
    distance = layout.columns.unsqueeze(1) - layout.columns
    causal = (distance >= 0) & (distance < (window or len(distance) + 1))
    return same & causal & (group_of.unsqueeze(1) == group_of)
