"""Numbers that no run can be meant to have, in fields of ours, TRL and transformers: most of these say so late."""

from math import inf
from typing import Any


FROM_ONE = (
    "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps steps_per_generation "
    "generation_batch_size num_iterations max_completion_length vllm_tensor_parallel_size vllm_max_model_length "
    "lora_r max_rows max_length"
).split()
FROM_ZERO = (
    "learning_rate weight_decay warmup_steps num_train_epochs adam_epsilon seed data_seed dataloader_num_workers beta "
    "epsilon epsilon_high overlong_buffer"
).split()
ABOVE_ZERO = ("temperature", "repetition_penalty")
SHARES = ("top_p", "vllm_gpu_memory_utilization")
UP_TO_ONE = ("min_p", "top_entropy_quantile", "adam_beta1", "adam_beta2", "lora_dropout")
RANGES = (
    (FROM_ONE, "a whole number from 1 on", lambda value: 1 <= value < inf),
    (FROM_ZERO, "0 or more", lambda value: 0 <= value < inf),
    (ABOVE_ZERO, "above 0", lambda value: 0 < value < inf),
    (SHARES, "above 0 and at most 1", lambda value: 0 < value <= 1),
    (UP_TO_ONE, "from 0 to 1", lambda value: 0 <= value <= 1),
    (("max_steps",), "a number of steps from 1 on, or -1 where epochs count", lambda value: value == -1 or value >= 1),
)
STEPS = ("logging", "save", "eval")


def check_numbers(args: Any) -> None:
    """
    Check each number by itself, as it was given.

    Args:
        args (`Any`):
            Object with some of the fields; what is no number is left alone.

    Raises:
        `ValueError`: For the first that cannot be; says what to write instead.
    """
    for names, range_, holds in RANGES:
        for name in names:
            value = getattr(args, name, None)
            if _is_number(value) and not holds(value):
                raise ValueError(f"`{name}` must be {range_}, got {value}.")
    for name in STEPS:
        strategy, value = getattr(args, f"{name}_strategy", None), getattr(args, f"{name}_steps", None)
        if getattr(strategy, "value", strategy) == "steps" and _is_number(value):
            if not (0 < value < 1 or (value >= 1 and value == int(value))):
                raise ValueError(
                    f"`{name}_steps` must be a whole number from 1 on, or a share of all steps below 1, got {value}. "
                    f"Write `{name}_strategy: 'no'` for never."
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
