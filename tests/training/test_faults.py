"""What goes wrong in the middle of a run: it can be continued, or stops with a message that says how to."""

import math
import resource

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from helpers.forking import run_forked
from helpers.paths import TESTS
from helpers.trainers import make_trainer, spread_reward
from helpers.weights import weights_of
from longact_trl import LongActTrainer
from longact_trl.training.checkpoints import newest_complete_checkpoint


WORKER = TESTS / "training" / "kill_worker.py"
EACH_STEP = {"save_strategy": "steps", "save_steps": 1}


def notes_of(error: BaseException) -> str:
    return "\n".join(error.__notes__)


@pytest.mark.parametrize("kills", [6, pytest.param(30, marks=pytest.mark.full)])
def test_kills_change_nothing(tmp_path, kills):
    """Killed while it saves, trains and generates, it ends at the bits of a run that was left alone."""
    steps = str(max(30, 3 * kills))
    done = run_forked(WORKER, tmp_path / "killed", str(kills), steps, timeout=1200 + 60 * kills)
    assert done.returncode == 0, done.stderr[-3000:]
    hits = dict(part.split("=") for part in done.stdout.rpartition("HITS ")[2].split())
    assert all(int(hits[phase]) >= kills // 6 for phase in ("save", "step", "generation")), hits
    if kills == 30:  # enough for one to leave half a checkpoint behind
        assert "was not written to its end" in done.stderr

    assert run_forked(WORKER, tmp_path / "whole", "0", steps, timeout=1200).returncode == 0
    killed, whole = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(weight, whole[name]) for name, weight in killed.items())


def reward_that_raises(completions, trainer_state, **kwargs):
    if trainer_state.global_step == 2:
        raise ZeroDivisionError("no such answer")
    return spread_reward(completions, **kwargs)


def test_a_reward_function_that_raises(tmp_path):
    trainer = make_trainer(tmp_path, reward=reward_that_raises, max_steps=4, **EACH_STEP)
    with pytest.raises(ZeroDivisionError, match="no such answer") as caught:
        trainer.train()
    assert f"{tmp_path / 'checkpoint-2'} is complete" in notes_of(caught.value)
    assert "resume_from_checkpoint='auto'" in notes_of(caught.value)
    cured = make_trainer(tmp_path, max_steps=4, **EACH_STEP)
    cured.train(resume_from_checkpoint="auto")
    assert cured.state.global_step == 4


def test_the_same_trainer_goes_on_after_an_error(tmp_path):
    """As a notebook's would, where the note says so; it ends at the bits of a run without the error."""
    fails = iter([True])

    class FailsOnce(LongActTrainer):
        def _compute_loss(self, model, inputs):
            second = self._step % 2 == 1  # micro-batch: half of the step is measured by now
            if self.state.global_step == 2 and second and next(fails, False):
                raise ZeroDivisionError
            return super()._compute_loss(model, inputs)

    settings = {"saliency_source": "previous_step", "gradient_accumulation_steps": 2, "max_steps": 4, **EACH_STEP}
    trainer = make_trainer(tmp_path / "stopped", trainer_class=FailsOnce, **settings)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.train(resume_from_checkpoint="auto")
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    expected = weights_of(whole.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(trainer.model).items())


def test_a_run_that_fails_before_its_first_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, reward=reward_that_raises, max_steps=4, save_strategy="no")
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.train()
    assert "stopped after step 2" in notes_of(caught.value) and "no complete checkpoint" in notes_of(caught.value)


HANGS = """
import sys
import time

from helpers.trainers import make_trainer

def waits_for_a_server(completions, **kwargs):
    time.sleep(600)

make_trainer(sys.argv[1], reward=waits_for_a_server, ddp_timeout=2).train()
"""


def test_a_reward_function_that_hangs(tmp_path):
    done = run_forked("-c", HANGS, tmp_path, timeout=600)
    assert done.returncode == 1
    assert "A reward function has not returned for 2 s" in done.stderr
    assert "in waits_for_a_server" in done.stderr


def test_a_reward_function_in_time_ends_nothing(tmp_path):
    make_trainer(tmp_path, max_steps=1, ddp_timeout=30).train()


class FullDisk(LongActTrainer):
    """From the third checkpoint on, the operating system refuses to write more than a little into any file."""

    def _save_checkpoint(self, model, trial):
        if self.state.global_step < 3:
            return super()._save_checkpoint(model, trial)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            super()._save_checkpoint(model, trial)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(tmp_path):
    trainer = make_trainer(tmp_path, trainer_class=FullDisk, max_steps=4, **EACH_STEP)
    with pytest.raises(Exception) as caught:  # noqa: B017  safetensors, torch and Python each have their own
        trainer.train()
    assert f"{tmp_path / 'checkpoint-2'} is complete" in notes_of(caught.value)
    assert (tmp_path / "checkpoint-3").exists()
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    resumed = make_trainer(tmp_path, max_steps=4, **EACH_STEP)
    resumed.train(resume_from_checkpoint="auto")
    assert resumed.state.global_step == 4


@pytest.mark.parametrize("policy_loss", ["vanilla", "clip_cov"])
def test_a_nan_in_the_batch_reaches_no_weight(tmp_path, policy_loss):
    class Poisoned(LongActTrainer):
        def _compute_loss(self, model, inputs):
            if self.state.global_step == 2:
                inputs = {**inputs, "advantages": torch.full_like(inputs["advantages"], math.nan)}
            return super()._compute_loss(model, inputs)

    settings = {"max_steps": 4, "policy_loss": policy_loss, **EACH_STEP}
    trainer = make_trainer(tmp_path, trainer_class=Poisoned, **settings)
    with pytest.raises(ValueError, match="The loss is nan at step 3") as caught:
        trainer.train()
    assert f"{tmp_path / 'checkpoint-2'} is complete" in notes_of(caught.value)
    assert all(weight.isfinite().all() for weight in weights_of(trainer.model).values())


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_nan_gradient_reaches_no_weight(tmp_path, max_grad_norm):
    """The loss is finite and its gradient is not."""
    trainer = make_trainer(tmp_path, max_steps=4, max_grad_norm=max_grad_norm, **EACH_STEP)

    def poison(grad):
        return torch.full_like(grad, math.nan) if trainer.state.global_step == 2 else grad

    trainer.model.model.layers[1].mlp.up_proj.weight.register_hook(poison)
    with pytest.raises(ValueError, match="The gradient's norm is nan at step 3"):
        trainer.train()
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert all(weight.isfinite().all() for weight in weights_of(trainer.model).values())
