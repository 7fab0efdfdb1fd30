"""Runs with prompts shared that stop in the middle of a group, and go on."""

import pytest
import torch

from helpers.models import make_model
from helpers.trainers import make_trainer
from helpers.weights import weights_of
from longact_trl import LongActTrainer


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("fault", [ValueError("not finite"), KeyboardInterrupt()], ids=["error", "stop"])
def test_nothing_is_left_of_a_step_cut_short(fault, chunk_size, tmp_path, tiny_model):
    """In the middle of a group, whose other rows are then trained on in a new step: its gradients are right."""

    class Fails(LongActTrainer):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            if self._step == 2 and not self.failed:
                self.failed = True
                loss.backward()  # some of gK and gV are there
                raise fault
            return loss

    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_generations": 8}
    settings |= {"optim": "sgd", "learning_rate": 0.3, "max_steps": 2, "loss_type": "grpo"}
    ends = {}
    for mode in ("off", "on"):
        chunks = {"prefix_chunk_size": chunk_size} if mode == "on" else {}
        trainer = make_trainer(tmp_path / mode, tiny_model, Fails, shared_prefix=mode, **settings, **chunks)
        trainer.failed = False
        with pytest.raises(type(fault)):
            trainer.train()
        assert trainer.failed and not trainer._turns and trainer._turn is None and not trainer._scored
        trainer.model.zero_grad()
        trainer.mask_refresh.observer.reset()
        trainer.train()
        ends[mode] = weights_of(trainer.model)
    start = weights_of(make_model())
    for weight, value in ends["off"].items():
        moved, grain = (value - start[weight]).norm(), 1e-7 * start[weight].norm()
        assert moved > 0 and (ends["on"][weight] - value).norm() <= 1e-4 * moved + grain, weight


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_resumed_to_the_same_bits(chunk_size, tmp_path, tiny_model):
    """In the middle of a generation, whose scoring pass is not made again."""
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 8}
    settings |= {"num_generations": 8, "max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    settings |= {"prefix_chunk_size": chunk_size}
    straight = make_trainer(tmp_path, tiny_model, **settings)
    straight.train()
    resumed = make_trainer(tmp_path, tiny_model, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    expected = weights_of(straight.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(resumed.model).items())
