"""Sliding windows and soft-caps of packed rows: FlexAttention on a GPU, torch's own operations on a CPU."""

import time
from collections.abc import Iterator

from longact_trl.packing.blocks import Scores

from .attention import compare
from .bench import Bench


TITLE = "Windows and soft-caps of packed attention against math"
NOTE = (
    "Relative L2 distance to attention by its formula in float32, of bfloat16 inputs. On a GPU it is FlexAttention, "
    "and the seconds are mostly those in which it is compiled."
)
SHAPE, TINY_SHAPE = (1024, 4, 257, 16, 8, 128), (12, 3, 5, 4, 2, 16)  # P, G, C, H, K, D
WAYS, TINY_WAYS = ((256, None), (None, 30.0), (256, 30.0)), ((4, None), (4, 2.0))  # window, soft-cap


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each window and soft-cap."""
    shape = TINY_SHAPE if bench.miniature else SHAPE
    for window, softcap in TINY_WAYS if bench.miniature else WAYS:
        start, scores = time.perf_counter(), Scores(shape[-1] ** -0.5, window, softcap)
        found = bench.attempt(lambda scores=scores: compare(bench, *shape, scores))
        bench.synchronize()
        yield {"window": window, "soft-cap": softcap, **found, "seconds": time.perf_counter() - start}
