"""Run by each rank of a launched backend: with and without shared prefixes, a run ends at the same weights."""

import os
from collections.abc import Callable

import torch
from worker import BACKEND, MODEL, make_trainer, run, weights

from longact_trl.packing import forward
from longact_trl.packing.layout import Group, lay_out


layouts = []


def noting(*args):
    layouts.append(lay_out(*args))
    return layouts[-1]


def check(name: str, shares: Callable[[Group], bool], **settings) -> None:
    """Two SGD steps: within 1e-4 of how far each parameter went, and float32's grain, of the run without."""
    settings = {"optim": "sgd", "learning_rate": 0.3, "max_steps": 2, **settings}
    layouts.clear()
    whole = {key: value for key, value in settings.items() if not key.startswith("prefix_")}
    plain = make_trainer(f"{name}-plain", shared_prefix="off", **whole)
    start = weights(plain)
    expected = run(plain)
    assert not layouts
    found = run(make_trainer(f"{name}-shared", shared_prefix="on", **settings))
    assert any(shares(group) for layout in layouts for group in layout.groups)
    for weight, value in expected.items():
        moved, grain = (value - start[weight]).norm(), 1e-7 * start[weight].norm()
        assert moved > 0 and (found[weight] - value).norm() <= 1e-4 * moved + grain, (name, weight)


def within_a_micro_batch(group: Group) -> bool:
    return group.kept is None and len(group.segments) > 1


def across_micro_batches(group: Group) -> bool:
    return group.kept is not None


if __name__ == "__main__":
    torch.set_num_threads(1)
    forward.lay_out = noting
    check("micro_batch", within_a_micro_batch, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    # Three groups of four on two ranks: one lies on both, and the ranks have other prompts to keep at other times.
    uneven = {"num_generations": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    check("uneven", across_micro_batches, **uneven)
    check(
        "one_row",
        across_micro_batches,
        **uneven | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6},
        prefix_chunk_size=4,
    )
    check("chunks", across_micro_batches, **uneven, prefix_chunk_size=4)
    print(f"OK shared {BACKEND} rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, {MODEL}", flush=True)
