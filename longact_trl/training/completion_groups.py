"""Groups of completions to one prompt: whose rewards vary, what replaces the others, what is logged of them."""

from collections.abc import Sequence

import numpy as np
import torch
from trl.trainer.utils import nanstd


ANSWER_REWARD = "answer_reward"
"""The reward function that decides whether a group varies. Where there is none, the weighted sum of all decides."""


def answer_rewards(rewards: torch.Tensor, weights: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """
    The reward that decides whether a group varies: `answer_reward`'s alone, because a format or length reward varies
    also where no answer is better than another. Without a function of that name, the weighted sum of all.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape (rows, functions), NaN where a function does not apply.
        weights (`torch.Tensor`):
            Weights of shape (functions,).
        names (`Sequence[str]`):
            Names of the functions.

    Returns:
        `torch.Tensor`: Rewards of shape (rows,), NaN where there is none.
    """
    if ANSWER_REWARD in names:
        return rewards[:, list(names).index(ANSWER_REWARD)]
    return _weighted_sum(rewards, weights)


def varying_groups(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    Which groups hold two different rewards.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape (N·G,), groups contiguous. NaN is no reward.
        num_generations (`int`):
            G.

    Returns:
        `torch.Tensor`: Booleans of shape (N,).
    """
    groups = rewards.view(-1, num_generations)
    return groups.nan_to_num(nan=-torch.inf).amax(1) > groups.nan_to_num(nan=torch.inf).amin(1)


def draw_prompts(dataset_size: int, seed: int, start: int, count: int) -> list[int]:
    """
    A stretch of the endless stream of replacement prompts: the dataset in a new random order in each round through it.
    The stream depends on its arguments alone, and not on the order in which the sampler goes through the dataset.

    Args:
        dataset_size (`int`):
            Number of prompts.
        seed (`int`):
            `seed` of the run.
        start (`int`):
            Prompts that were drawn before.
        count (`int`):
            Prompts to draw.

    Returns:
        `list[int]`: Indices into the dataset.
    """
    positions = range(start, start + count)
    rounds = {position // dataset_size for position in positions}
    orders = {r: np.random.default_rng((seed, r)).permutation(dataset_size) for r in rounds}
    return [int(orders[position // dataset_size][position % dataset_size]) for position in positions]


def reward_statistics(rewards: torch.Tensor, weights: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """
    What TRL logs about the rewards of a generation batch.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape (rows, functions), NaN where a function does not apply.
        weights (`torch.Tensor`):
            Weights of shape (functions,).
        names (`Sequence[str]`):
            Names of the functions.

    Returns:
        `dict[str, float]`: TRL's name of a metric to its value.
    """
    total = _weighted_sum(rewards, weights)
    statistics = {"reward": total.nanmean().item(), "reward_std": nanstd(total).item()}
    for i, name in enumerate(names):
        statistics[f"rewards/{name}/mean"] = rewards[:, i].nanmean().item()
        statistics[f"rewards/{name}/std"] = nanstd(rewards[:, i]).item()
    return statistics


def _weighted_sum(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (rewards * weights).nansum(1).masked_fill(rewards.isnan().all(1), torch.nan)
