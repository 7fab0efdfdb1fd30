"""Run by both ranks under ZeRO-3: a run with dynamic sampling of which rank 1 is killed at the point named, or none.

First it looks for the checkpoints that the kills before it have left. At its end, a run that is not killed is compared
with one that never was. Prints OK.
"""

import os
import signal
import sys
from pathlib import Path

import deepspeed
import torch

from helpers import noting
from helpers.trainers import make_trainer
from longact_trl import LongActTrainer


OUT, POINT = Path(sys.argv[1]), sys.argv[2]
RANK = int(os.environ["RANK"])
FOUND = {"generating": [], "sampling": [2], "saving": [2], "never": [2, 4]}  # steps of checkpoints, by the next point
DECODED = 3  # tokens of each completion that are there when the run is killed
SETTINGS = {"per_device_train_batch_size": 4, "num_generations": 4, "max_steps": 6, "dynamic_sampling": True}
SETTINGS |= {"save_strategy": "steps", "save_steps": 2, "update_rule": "frozen_rows"}


def die_here(point: str, condition: bool) -> None:
    if POINT == point and RANK == 1 and condition:
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(LongActTrainer):
    def _save_rng_state(self, output_dir):
        die_here("saving", output_dir.endswith("checkpoint-4"))
        super()._save_rng_state(output_dir)


def make(folder: str) -> Mortal:
    rounds, decoded = [], []

    def answer_reward(prompts, completions, trainer_state, **kwargs):
        rounds.append(trainer_state.global_step)
        die_here("sampling", rounds.count(3) == 2)  # the fourth step has sampled once and samples again
        return noting.answer_reward(prompts, completions)

    def while_decoding(module, args, kwargs):
        if trainer.state.global_step == 3 and kwargs["input_ids"].shape[1] == 1:
            decoded.append(1)
            die_here("generating", len(decoded) == DECODED)

    rewards = [answer_reward, noting.length_reward]
    trainer = make_trainer(OUT / folder, trainer_class=Mortal, reward=rewards, **SETTINGS)
    trainer.model.register_forward_pre_hook(while_decoding, with_kwargs=True)
    return trainer


def weights(trainer: LongActTrainer) -> dict[str, torch.Tensor]:
    whole = {}
    for name, param in trainer.model.named_parameters():
        with deepspeed.zero.GatheredParameters([param]):
            whole[name] = param.detach().clone()
    return whole


def check_what_is_left() -> None:
    found = sorted(int(f.name.partition("-")[2]) for f in (OUT / "killed").glob("checkpoint-*"))
    assert found == FOUND[POINT], f"{found} before {POINT}"
    if POINT == "never":  # rank 0 wrote the weights, but not that it was through while rank 1 had not written its part
        assert (OUT / "killed" / "checkpoint-4" / "model.safetensors").is_file()
        assert not (OUT / "killed" / "checkpoint-4" / "trainer_state.json").exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_what_is_left()
    killed = make("killed")
    killed.train(resume_from_checkpoint="auto")
    expected = make("whole")
    expected.train()
    theirs = weights(expected)
    for name, weight in weights(killed).items():
        assert torch.equal(weight, theirs[name]), name
    logs = [[log for log in t.state.log_history if "loss" in log] for t in (killed, expected)]
    assert [log["step"] for log in logs[0]] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "reward", "num_tokens", "longact/sampling_rounds"):
        assert [log[name] for log in logs[0]] == [log[name] for log in logs[1]], name
    assert killed._prompts_drawn == expected._prompts_drawn > 0
    assert killed.mask_refresh.num_refreshes == expected.mask_refresh.num_refreshes == 6
    print(f"OK interruptions rank {RANK}", flush=True)
