"""Run by each of two ranks: selections over both are those of one process that has all sequences. Prints OK."""

import os
import sys

import torch
import torch.distributed as dist

from helpers.losses import batch, reference_cov, settings, tokens_of
from helpers.trainers import make_args, make_trainer
from helpers.weights import weights_of
from longact_trl.training.policy_losses import SELECTED, select_tokens


OUT = sys.argv[1]
RANK = int(os.environ["RANK"])
ROWS = [slice(0, 4), slice(4, 6)]  # ranks may differ in sequences, and pad to lengths of their own
WIDTHS = [40, 31]


def everyones(selected: torch.Tensor) -> set[tuple[int, int]]:
    """Selected tokens of both ranks, numbered as in the whole batch."""
    mine = {(i + ROWS[RANK].start, t) for i, t in tokens_of(selected)}
    both = [None, None]
    dist.all_gather_object(both, mine)
    return both[0] | both[1]


def check_selection(seed: int, ratio: float) -> None:
    data = batch(seed)
    data["completion_mask"][ROWS[1], WIDTHS[1] :] = 0
    logps, advantages, mask = data["old_per_token_logps"], data["advantages"], data["completion_mask"]
    cov = reference_cov(logps, advantages, mask)
    number = max(1, int(ratio * len(cov)))

    def select(**kwargs):
        rows, tokens = ROWS[RANK], slice(0, WIDTHS[RANK])
        selected, metrics = select_tokens(
            logps[rows, tokens], advantages[rows], mask[rows, tokens], settings(**kwargs), 0
        )
        return everyones(selected), metrics

    chosen, metrics = select(policy_loss="kl_cov", kl_cov_ratio=ratio)
    assert chosen == set(sorted(cov, key=cov.get, reverse=True)[:number])
    assert abs(metrics["kl_cov_share"] - number / len(cov)) < 1e-12
    assert abs(metrics["cov_mean"] - sum(cov.values()) / len(cov)) < 1e-6

    chosen, metrics = select(policy_loss="clip_cov", clip_cov_ratio=ratio)
    between = {token for token, value in cov.items() if 0 < value < 0.5}
    assert chosen <= between and len(chosen) == min(number, len(between))
    assert abs(metrics["clip_cov_share"] - len(chosen) / len(cov)) < 1e-12
    if 10 < number < len(between) - 10:
        assert {i < 4 for i, _ in chosen} == {True, False}


def check_training(policy_loss: str) -> None:
    """A whole run: both ranks end with the same weights, and the number selected is that of the whole batch."""
    kwargs = {"kl_cov_ratio": 0.3, "clip_cov_ratio": 0.3, "clip_cov_lb": -1.0, "num_iterations": 2, "max_steps": 4}
    trainer = make_trainer(
        f"{OUT}/{policy_loss}", policy_loss=policy_loss, per_device_train_batch_size=2, strategy="dense", **kwargs
    )
    counts = []
    generate = trainer._generate_and_score_completions

    def note(inputs):
        output = generate(inputs)
        counts.append(torch.stack([output[SELECTED].sum(), output["completion_mask"].sum()]))
        return output

    trainer._generate_and_score_completions = note
    trainer.train()
    assert len(counts) == 2
    for count in counts:
        dist.all_reduce(count)
        selected, valid = count.tolist()
        assert selected == int(0.3 * valid) if policy_loss == "kl_cov" else 0 < selected <= int(0.3 * valid)
    for name, weight in weights_of(trainer.model).items():
        both = [torch.empty_like(weight) for _ in range(2)]
        dist.all_gather(both, weight)
        assert torch.equal(*both), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_args(OUT)  # starts the process group
    for seed in range(3):
        for ratio in (1e-6, 0.1, 1.0):
            check_selection(seed, ratio)
    check_training("kl_cov")
    check_training("clip_cov")
    print(f"OK losses rank {RANK} of 2", flush=True)
