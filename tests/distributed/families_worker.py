"""Run by both ranks under ZeRO-3: from a checkpoint folder of each family to a trained one, and back by transformers.

    families_worker.py FOLDER FAMILY …    # FOLDER/FAMILY/base is there

One step of SGD at learning rate 1 turns gradients into weights: masked ones are dense ones with unselected rows put
back, to the bit. Prints OK for each family.
"""

import os
import sys
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from helpers.models import make_tokenizer
from helpers.trainers import make_args, make_prompts, spread_reward
from longact_trl import LongActTrainer
from longact_trl.method.gradients import row_parameters
from longact_trl.method.projections import row_dim
from longact_trl.models.reading import load_config, model_class_of


OUT, FAMILIES = Path(sys.argv[1]), sys.argv[2:]
STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "num_generations": 2}


def train(folder: Path, name: str, **kwargs) -> tuple[LongActTrainer, dict[str, torch.Tensor]]:
    """A step from `folder/base`, saved as `folder/name`, and the whole weights that both ranks then have."""
    args = make_args(folder / f"run_{name}", **STEP, **kwargs)
    trainer = LongActTrainer(
        str(folder / "base"), spread_reward, args, make_prompts(), processing_class=make_tokenizer()
    )
    trainer.train()
    trainer.save_model(str(folder / name))
    weights = {}
    for key, param in trainer.model.named_parameters():
        with deepspeed.zero.GatheredParameters([param]):
            weights[key] = param.detach().clone()
        both = [torch.empty_like(weights[key]) for _ in range(2)]
        dist.all_gather(both, weights[key])
        assert torch.equal(*both), f"{key} differs between the ranks"
    return trainer, weights


def learning_rows(trainer: LongActTrainer, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """For each parameter with masked rows, which of its elements may learn."""
    names = {param: name for name, param in trainer.model.named_parameters()}
    learns = {}
    for p in trainer.mask_refresh.projections:
        for param in row_parameters(p.module):
            elements = learns.setdefault(names[param], torch.ones_like(weights[names[param]], dtype=torch.bool))
            rows = elements.t() if row_dim(p.module) and elements.dim() == 2 else elements
            rows[p.rows] = trainer.mask_refresh.masks[p.name].view(-1, *[1] * (rows.dim() - 1)).expand_as(rows[p.rows])
    return learns


def read_by_transformers(folder: Path) -> dict[str, torch.Tensor]:
    config = load_config(str(folder))
    return dict(model_class_of(config).from_pretrained(folder).named_parameters())


def check(family: str) -> None:
    folder = OUT / family
    _, dense = train(folder, "dense", strategy="dense")
    trainer, masked = train(folder, "masked", row_sparse_gradients="off")
    learns = learning_rows(trainer, masked)
    _, row_sparse = train(folder, "row_sparse", row_sparse_gradients="on")
    if dist.get_rank() == 0:
        unset_hf_deepspeed_config()  # plain transformers; the next run sets it again
        start, saved = (read_by_transformers(folder / name) for name in ("base", "masked"))
        assert start.keys() == saved.keys() == masked.keys()
        for name, weight in masked.items():
            assert torch.equal(saved[name], weight), f"{name} is saved otherwise"
            learning = learns.get(name, torch.ones_like(weight, dtype=torch.bool))
            expected = torch.where(learning, dense[name], start[name])
            assert torch.equal(weight, expected), f"{name}: {(weight - expected).abs().max()}"
            assert torch.equal(row_sparse[name][~learning], start[name][~learning]), name
            update = (expected - start[name]).norm()
            assert (row_sparse[name] - expected).norm() <= 1e-5 * update, f"{name} when row-sparse"
            if name in learns:
                assert not learning.all() and update > 0, f"{name}: no row has moved"
    dist.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family in FAMILIES:
        check(family)
        print(f"OK {family} rank {os.environ['RANK']}", flush=True)
