"""How much room the checkpoints of a run take on disk."""

import math
from dataclasses import replace

from transformers import TrainingArguments

from .plan import state_bytes
from .shape import ModelShape
from .workload import Load, Placement


def checkpoint_bytes(shape: ModelShape, placement: Placement, load: Load) -> int:
    """
    One checkpoint: weights that train and optimizer states, of all ranks. ZeRO-1 and -2 write the weights twice.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies while training.
        load (`Load`):
            Width of weights and number of states.

    Returns:
        `int`: Bytes.
    """
    whole = replace(placement, ranks=1, offload_optimizer=False, offload_weights=False)
    state = state_bytes(shape, whole, load)
    copies = 2 if placement.backend in ("zero0", "zero1", "zero2") else 1
    return copies * _weights(shape, state) + state["optimizer"]


def _weights(shape: ModelShape, state: dict[str, int]) -> int:
    return state["weights"] * shape.trainable // shape.parameters  # an adapter is saved without its base


def saved_bytes(shape: ModelShape, placement: Placement, load: Load, args: TrainingArguments) -> int:
    """
    All that a run has on disk at most: the checkpoints it keeps, the one being written, and the final model.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies while training.
        load (`Load`):
            Width of weights and number of states.
        args (`TrainingArguments`):
            When and how many checkpoints are saved. Where their number is not known, two are counted.

    Returns:
        `int`: Bytes.
    """
    each = checkpoint_bytes(shape, placement, load)
    final = _weights(shape, state_bytes(shape, replace(placement, ranks=1, offload_weights=False), load))
    if args.save_only_model:
        each = final
    if args.save_strategy == "no":
        return final
    every = math.ceil(args.save_steps if args.save_steps >= 1 else args.save_steps * max(args.max_steps, 1))
    made = -(-args.max_steps // every) if args.max_steps > 0 and args.save_strategy == "steps" else None
    kept = args.save_total_limit + 1 if args.save_total_limit else 2
    if made is not None:
        kept = min(kept, made) if args.save_total_limit else made
    return kept * each + final
