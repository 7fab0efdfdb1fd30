"""Runs with dynamic sampling."""

from longact_trl import LongActTrainer

from .noting import NotingTrainer, answer_reward, length_reward
from .trainers import make_trainer


SETTINGS = {"dynamic_sampling": True, "per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 4}
RUN = {**SETTINGS, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}  # with checkpoints


def make_noting(output_dir, reward=(answer_reward, length_reward), **kwargs) -> NotingTrainer:
    return make_trainer(output_dir, trainer_class=NotingTrainer, reward=list(reward), **{**SETTINGS, **kwargs})


def logs_of(trainer: LongActTrainer) -> list[dict[str, float]]:
    return [log for log in trainer.state.log_history if "loss" in log]
