"""Run by each rank of a launched backend: the gradient of an optimizer step, over rows and chunks, beside TRL's."""

import os
from itertools import product

import torch
from datasets import Dataset
from worker import BACKEND, MODEL, OUT, run, weights

from helpers.trainers import make_args, spread_reward
from longact_trl import LongActTrainer


ROWS = (1, 2, 4, 8, 16)
CHUNKS = (None, 64, 100)
GROUP = 16
RATE = 1e5
"""A step of plain SGD so long that what a weight was before is below the rounding of its gradient."""


def gradients(name: str, rows: int, **settings) -> dict[str, torch.Tensor]:
    """Of every parameter, from a prompt of 170 tokens on each rank; dense, so that no row is masked."""
    contents = [" ".join(f"w{(7 * i + 3 * j) % 55}" for j in range(160)) for i in range(2)]
    step = {"max_steps": 1, "optim": "sgd", "learning_rate": RATE, "max_grad_norm": 0.0, "strategy": "dense"}
    groups = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": GROUP // rows}
    args = make_args(f"{OUT}/{name}", **step, **groups, num_generations=GROUP, **settings)
    dataset = Dataset.from_dict({"prompt": [[{"role": "user", "content": c}] for c in contents]})
    trainer = LongActTrainer(MODEL, spread_reward, args, dataset)
    before = weights(trainer)
    return {weight: (before[weight] - value) / RATE for weight, value in run(trainer).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    truth = gradients("plain", GROUP, shared_prefix="off")
    assert all(grad.any() for grad in truth.values())
    for rows, chunk in product(ROWS, CHUNKS):
        found = gradients(f"{rows}-{chunk}", rows, shared_prefix="on", prefix_chunk_size=chunk)
        worst = max(float((found[name] - grad).norm() / grad.norm()) for name, grad in truth.items())
        if os.environ.get("RANK", "0") == "0":
            print(f"CELL {BACKEND} rows {rows} chunks {chunk}: {worst:.1e}", flush=True)
        assert worst <= 1e-5
    print(f"OK grid {BACKEND}", flush=True)
