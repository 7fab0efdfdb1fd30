"""Run by each rank of a launched backend: with and without shared prefixes, a run ends at the same weights."""

import os

import torch
from worker import BACKEND, MODEL, make_trainer, run, weights

from longact_trl.packing import forward
from longact_trl.packing.layout import plan


layouts = []


def noting(*args):
    layouts.append(plan(*args))
    return layouts[-1]


def check(name: str, **settings) -> None:
    """Two SGD steps: within 1e-4 of how far each parameter went, and float32's grain, of the run without."""
    settings = {"optim": "sgd", "learning_rate": 0.3, "max_steps": 2, **settings}
    layouts.clear()
    plain = make_trainer(f"{name}-plain", shared_prefix="off", **settings)
    start = weights(plain)
    expected = run(plain)
    assert not layouts
    found = run(make_trainer(f"{name}-shared", shared_prefix="on", **settings))
    assert layouts and all(any(len(group.segments) > 1 for group in layout.groups) for layout in layouts)
    for weight, value in expected.items():
        moved, grain = (value - start[weight]).norm(), 1e-7 * start[weight].norm()
        assert moved > 0 and (found[weight] - value).norm() <= 1e-4 * moved + grain, (name, weight)


if __name__ == "__main__":
    torch.set_num_threads(1)
    forward.plan = noting
    check("group_a_rank", per_device_train_batch_size=4, num_generations=8)
    check("group_on_both", per_device_train_batch_size=3, num_generations=4)
    print(f"OK shared {BACKEND} rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, {MODEL}", flush=True)
