"""What synthetic long contexts can be asked for, checked before anything is read or generated."""

from collections.abc import Sequence

from .synthetic_tasks import SPLITS, TASKS


def check_options(
    tokens: int,
    num_prompts: int = 1,
    seed: int = 0,
    split: str = "train",
    tasks: Sequence[str] = tuple(TASKS),
) -> None:
    """
    Check what a user wrote, before anything is read or generated.

    Args:
        tokens, num_prompts, seed, split, tasks:
            See [`~longact_trl.data.synthetic.load_synthetic`].

    Raises:
        `ValueError`: For the first one that cannot be, with what can.
    """
    for name, value, least in (("tokens", tokens, 1), ("num_prompts", num_prompts, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} of synthetic contexts must be a whole number from {least} on, but is {value!r}")
    if split not in SPLITS:
        raise ValueError(f"split of synthetic contexts must be one of {', '.join(SPLITS)}, but is {split!r}")
    if isinstance(tasks, str) or not tasks or set(tasks) - set(TASKS):
        raise ValueError(f"tasks of synthetic contexts must be a list of some of {', '.join(TASKS)}, but is {tasks!r}")
