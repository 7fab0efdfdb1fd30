"""Runs that take a fraction of a second. Loads TRL."""

from datasets import Dataset
from transformers import PreTrainedModel

from longact_trl import LongActConfig, LongActTrainer

from .models import make_model, make_tokenizer


def make_prompts() -> Dataset:
    """16 prompts of different lengths."""
    contents = [" ".join(f"w{(7 * i + j) % 55}" for j in range(4 + i)) for i in range(16)]
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": c}] for c in contents]})


def spread_reward(completions, **kwargs) -> list[float]:
    """A reward that differs between the completions of a group, so that gradients are not zero."""
    return [float(sum(map(ord, str(c))) % 7) for c in completions]


def make_args(output_dir, config_class=LongActConfig, **kwargs) -> LongActConfig:
    """Settings of a run that takes a fraction of a second: float32 on the CPU, 4 completions of 6 tokens a step."""
    settings = {
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return config_class(str(output_dir), **{**settings, **kwargs})


def make_trainer(
    output_dir,
    model: PreTrainedModel | str | None = None,
    trainer_class=LongActTrainer,
    reward=spread_reward,
    **kwargs,
) -> LongActTrainer:
    """
    A trainer of the tiny Qwen3 with one reward or a list of them; `kwargs` are the trainer's arguments where it has
    them, else training arguments.
    """
    names = ("eval_dataset", "peft_config", "callbacks", "optimizers")
    extra = {name: kwargs.pop(name) for name in names if name in kwargs}
    dataset = kwargs.pop("train_dataset", None) or make_prompts()
    return trainer_class(
        make_model() if model is None else model,
        reward if isinstance(reward, list) else [reward],
        make_args(output_dir, **kwargs),
        dataset,
        processing_class=make_tokenizer(),
        **extra,
    )
