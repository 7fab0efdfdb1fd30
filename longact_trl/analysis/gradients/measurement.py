"""RL batches of several lengths: where the dense gradient is in each, and what steps of equal norm do to the loss."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch

from ...method.magnitude import Magnitudes
from .policy import MeasuringTrainer, Rollouts
from .restricted_step import DIRECTIONS, norm_of, restrict, stepped
from .row_energy import STRATEGIES, RowEnergy, row_energy, select


STEP_SIZE = 1e-4
"""Norm of a step, of the norm of all W_Q and W_K: AdamW's at a learning rate of 1e-6 is half of it where weights are
0.02 in the mean. The loss of the embedded model is close to linear so near, that of SmolLM2-135M not quite."""


@dataclass
class Step:
    """
    What one restricted step did.

    Args:
        strategy, direction (`str`):
            Which rows moved, and how.
        same, held_out (`float`):
            Change of the policy loss, on the batch whose gradient it was and on another of the same length.
    """

    strategy: str
    direction: str
    same: float
    held_out: float


@dataclass
class Measured:
    """
    One RL batch.

    Args:
        num_tokens (`int`):
            Tokens of its prompts.
        num_groups, num_varying (`int`):
            Groups that were sampled, and those whose rewards vary: only these have a gradient.
        reward (`float`):
            Mean reward of a completion.
        completion_tokens (`float`):
            Mean tokens of a completion.
        magnitudes (`dict[str, torch.Tensor]`):
            Of this batch, by projection name, of shape (H, D).
        energy (`dict[str, torch.Tensor]`):
            Squared gradient norm by row, float32 of shape (H, D); empty where no group varies.
        steps (`list[Step]`):
            Steps along this gradient; of the shortest prompts that have one only, for each takes two forward passes.
        shares (`dict`):
            Shares of the gradient that were computed from it, by what they are of.
    """

    num_tokens: int
    num_groups: int
    num_varying: int
    reward: float
    completion_tokens: float
    magnitudes: Magnitudes
    energy: RowEnergy = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    shares: dict[tuple, float] = field(default_factory=dict, compare=False, repr=False)


@dataclass
class Progress:
    """
    How far a measurement is.

    Args:
        measured (`list[Measured]`):
            Batches so far.
        rollouts (`dict[int, Rollouts]`):
            Those of them, by number, whose gradient may be followed.
        random (`dict[str, torch.Tensor]`):
            State of the random numbers behind the last batch, by type of device.
    """

    measured: list[Measured] = field(default_factory=list)
    rollouts: dict[int, Rollouts] = field(default_factory=dict)
    random: dict[str, torch.Tensor] = field(default_factory=dict)


def measure(
    trainer: MeasuringTrainer,
    rows: Sequence[dict],
    sparsity_ratio: float,
    progress: Callable[[list], Iterable] = iter,
    so_far: Progress | None = None,
    keep: Callable[[Progress], None] = lambda so_far: None,
) -> list[Measured]:
    """
    Sample batches, and measure each.

    Args:
        trainer (`MeasuringTrainer`):
            Its `gradient_accumulation_steps` are the prompts of a batch.
        rows (`Sequence[dict]`):
            Prompts with `num_tokens`, those of one length side by side.
        sparsity_ratio (`float`):
            λ.
        progress (`Callable`, *optional*):
            Wraps lists of batches, e.g. `rich.progress.track`: first all, then those whose gradient is followed.
        so_far (`Progress`, *optional*):
            What an interrupted measurement had, which goes on from there to the same numbers.
        keep (`Callable[[Progress], None]`, *optional*):
            Called behind each batch that was sampled, and behind each whose gradient was followed.

    Returns:
        `list[Measured]`: In the order of the rows.
    """
    batches = batches_of(rows, trainer.args.gradient_accumulation_steps)
    so_far = so_far or Progress()
    found, sources = so_far.measured, random_sources(trainer.accelerator.device)
    for name, state in so_far.random.items():
        sources[name].set_rng_state(state)
    with trainer.sharing_prefixes():
        for batch in progress(batches[len(found) :]):
            rollouts = trainer.sample(batch)
            so_far.rollouts[len(found)] = rollouts
            found.append(_measure(trainer, batch[0]["num_tokens"], rollouts))
            followed = next((one.num_tokens for one in found if one.energy), found[-1].num_tokens)
            so_far.rollouts = {n: r for n, r in so_far.rollouts.items() if found[n].num_tokens == followed}
            so_far.random = {name: source.get_rng_state() for name, source in sources.items()}
            keep(so_far)
        chosen = [number for number in so_far.rollouts if any(one.energy for one in found)]
        for position in progress([position for position, number in enumerate(chosen) if not found[number].steps]):
            number, other = chosen[position], chosen[(position + 1) % len(chosen)]
            found[number].steps = take_steps(trainer, so_far.rollouts[number], so_far.rollouts[other], sparsity_ratio)
            keep(so_far)
    return found


def batches_of(rows: Sequence[dict], size: int) -> list[list[dict]]:
    """Rows in batches of so many."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def random_sources(device: torch.device) -> dict[str, ModuleType]:
    """Modules that hold the states of random numbers, by type of device."""
    return {"cpu": torch} | ({} if device.type == "cpu" else {device.type: torch.get_device_module(device)})


def _measure(trainer: MeasuringTrainer, num_tokens: int, rollouts: Rollouts) -> Measured:
    measured = Measured(
        num_tokens,
        rollouts.num_groups,
        len(rollouts.groups),
        rollouts.reward,
        rollouts.num_tokens,
        rollouts.magnitudes,
    )
    if rollouts.groups:
        trainer.policy_loss(rollouts, backward=True)
        energy = {name: of_rows.float() for name, of_rows in row_energy(trainer.projections).items()}
        measured.energy = energy if any(e.sum() for e in energy.values()) else {}
    return measured


def take_steps(trainer: MeasuringTrainer, rollouts: Rollouts, held_out: Rollouts, sparsity_ratio: float) -> list[Step]:
    """
    Step along a batch's gradient in massive, random, low and all rows, always equally far, and back again.

    Args:
        trainer (`MeasuringTrainer`):
            With the weights that sampled both batches.
        rollouts (`Rollouts`):
            The batch.
        held_out (`Rollouts`):
            Another one; the same where there is no other, which then counts for nothing.
        sparsity_ratio (`float`):
            λ.

    Returns:
        `list[Step]`: One entry for each strategy and direction; none where the batch has no gradient.
    """
    if not rollouts.groups:
        return []
    before = trainer.policy_loss(rollouts, backward=True)
    gradient = {param: param.grad.clone() for param in trainer.learning if param.grad is not None}
    if not norm_of(list(gradient.values())):
        return []
    has_other = held_out is not rollouts and held_out.groups
    held_out_before = trainer.policy_loss(held_out) if has_other else 0.0
    weights = norm_of(trainer.learning)
    steps = []
    for strategy in (*STRATEGIES, "dense"):
        selected = select(rollouts.magnitudes, sparsity_ratio, strategy)
        for name in DIRECTIONS:
            with stepped(restrict(gradient, trainer.projections, selected, name), STEP_SIZE * weights):
                after = trainer.policy_loss(rollouts)
                held_out_after = trainer.policy_loss(held_out) if has_other else math.nan
            steps.append(Step(strategy, name, after - before, held_out_after - held_out_before))
    return steps
