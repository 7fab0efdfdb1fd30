"""Whether computing only the selected rows of a weight's gradient pays, and what `MEASURED` would say then."""

from collections.abc import Iterator

import torch
from row_sparse import SHAPES, Turns, measure_projection

from .bench import Bench


TITLE = "Row-sparse gradients"
NOTE = (
    "Forward and backward of one projection in bfloat16, ratios to dense. Row-sparse pays where it is below masked. "
    "`MEASURED` is that of longact_trl/method/row_sparse.py: from so many tokens, up to such a share of rows."
)
TOKENS, SHARES = (512, 2048, 8192, 32_768), (0.3, 0.5)
TINY_SHAPES, TINY_TOKENS = {"tiny Q": (64, 4, 16)}, (64,)
SECONDS = 0.5
"""Of a row: turns are as many as fit."""


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each shape, number of tokens and λ; the entry last."""
    shapes, tokens = (TINY_SHAPES, TINY_TOKENS) if bench.miniature else (SHAPES, TOKENS)
    turns, rows = Turns(cpu_time=False), []
    for shape, sizes in shapes.items():
        for count in tokens:
            for ratio in SHARES:
                row = {"shape": shape, "tokens": count, "λ": ratio}
                row |= bench.attempt(
                    lambda sizes=sizes, count=count, ratio=ratio: measure_projection(
                        sizes, count, ratio, bench.device, torch.bfloat16, turns, 0.01 if bench.miniature else SECONDS
                    )
                )
                rows.append(row)
                yield row
    found = entry([row for row in rows if "error" not in row])
    yield {"MEASURED": None if found is None else {bench.device.type: list(found)}}


def entry(rows: list[dict]) -> tuple[int, float] | None:
    """
    The rule that takes most rows of the table and none in which row-sparse is slower than masked.

    Args:
        rows (`list[dict]`):
            With `tokens`, `λ`, `masked` and `row-sparse`.

    Returns:
        `tuple[int, float]` or `None`: Fewest tokens and largest share of rows; `None` where no rule is right.
    """
    best, most = None, 0
    for tokens in sorted({row["tokens"] for row in rows}):
        for share in sorted({row["λ"] for row in rows}):
            taken = [row for row in rows if row["tokens"] >= tokens and row["λ"] <= share]
            if len(taken) > most and all(row["row-sparse"] < row["masked"] for row in taken):
                best, most = (tokens, share), len(taken)
    return best
