"""Runs that end in the middle and are continued."""

from transformers import TrainerCallback

from longact_trl import LongActTrainer

from .models import make_model
from .trainers import make_trainer


class StopAt(TrainerCallback):
    """Ends training after a step, as a job's time limit would: the scheduler never knew."""

    def __init__(self, step: int):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


SETTINGS = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "weight_decay": 0.1,
    "lr_scheduler_type": "linear",
}


def run_in_one_and_in_two(tmp_path, **kwargs) -> tuple[LongActTrainer, LongActTrainer]:
    settings = {**SETTINGS, **kwargs}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    first = make_trainer(tmp_path / "parts", callbacks=[StopAt(3)], **settings)
    first.train()
    assert first.state.global_step == 3
    second = make_trainer(
        tmp_path / "parts", make_model(seed=5), **settings
    )  # its weights must come from the checkpoint
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert second.state.global_step == 6
    return whole, second
