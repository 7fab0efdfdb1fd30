"""
Clip-Cov and KL-Cov (arXiv:2505.22617): entropy collapses through few tokens, those whose log-prob and advantage vary
together. Clip-Cov takes some of them out of the loss, KL-Cov keeps them near the policy that sampled them.

    cov_i = (A_i - mean A) · (logp_i - mean logp)

What differs from the authors' code and verl, and why: they take means and numbers of tokens from each micro-batch.
With one sequence a micro-batch, as long contexts need, its advantage is constant and every cov is zero, and "at least
one token" of each micro-batch would be far more than the share asked for. Here both are taken once, when a batch has
been generated, over all its sequences on all ranks and on the log-probs of the scoring pass, so neither micro-batches
nor ranks show in the result. Log-probs of later optimizer steps on the same batch are not looked at again; Clip-Cov
only leaves those selected tokens alone that PPO's clipping has meanwhile caught, and draws no others for them.

Both losses reach TRL's through the advantages, which it reads after the forward pass and which may differ by token.

Shapes: N sequences of a rank's generation batch, B of a micro-batch, T tokens of a completion.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ..method.magnitude import sum_over_ranks


if TYPE_CHECKING:
    from .config import LongActConfig

SELECTED = "cov_selected"
"""Where the selection travels among TRL's inputs: bool (N, T), shuffled, split and saved with everything else."""

MIN_LOG_RATIO = -50.0
"""Below it exp(-log_ratio) would overflow float32. A token that was sampled never gets there."""


def select_tokens(
    logps: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, args: "LongActConfig", generation: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """
    Tokens that the loss restrains: for KL-Cov those of highest covariance, for Clip-Cov as many at random among those
    between its bounds. A collective where `torch.distributed` is initialised: call it on every rank.

    Args:
        logps (`torch.Tensor` of shape (N, T)):
            Log-probs of the policy that sampled. Ranks may differ in N and T.
        advantages (`torch.Tensor` of shape (N,) or (N, T)):
            Advantages.
        mask (`torch.Tensor` of shape (N, T)):
            Nonzero where a token is trained on.
        args (`LongActConfig`):
            Training arguments.
        generation (`int`):
            Number of this generation batch; with `args.seed`, it decides what is drawn at random.

    Returns:
        `tuple[torch.BoolTensor, dict[str, float]]`: The selection, (N, T), and metrics of all ranks: share of the
            tokens that is selected and mean covariance.
    """
    mask = mask.bool()
    advantages = _by_token(advantages).expand_as(logps)[mask].double()
    logps = logps[mask].double()
    ones = torch.ones_like(logps)
    sums = sum_over_ranks(torch.stack([ones.sum(), advantages.sum(), logps.sum()]))
    mean_advantage, mean_logp = (sums[1:] / sums[0].clamp(min=1)).unbind()
    cov = (advantages - mean_advantage) * (logps - mean_logp)

    ratio = args.clip_cov_ratio if args.policy_loss == "clip_cov" else args.kl_cov_ratio
    num_valid = int(sums[0].item())
    number = max(int(ratio * num_valid), 1)
    if args.policy_loss == "clip_cov":
        # The highest of independent random scores are a random subset, also where every rank draws its own.
        seed = random.Random(f"{args.seed} {generation} {_rank()}").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand(len(cov), generator=generator, dtype=torch.float64).to(cov.device)
        scores = draw.masked_fill((cov <= args.clip_cov_lb) | (cov >= args.clip_cov_ub), -torch.inf)
    else:
        scores = cov
    chosen = top_over_ranks(scores, number)

    selected = torch.zeros_like(mask)
    selected[mask] = chosen
    totals = sum_over_ranks(torch.stack([chosen.double().sum(), cov.sum()])) / max(num_valid, 1)
    share, cov_mean = totals.tolist()
    return selected, {f"{args.policy_loss}_share": share, "cov_mean": cov_mean}


def top_over_ranks(scores: torch.Tensor, number: int) -> torch.Tensor:
    """
    Find the highest scores of all ranks. Ties break towards the lower rank, then the lower index.

    Args:
        scores (`torch.Tensor` of shape (M,)):
            This rank's scores; -inf is never chosen. Ranks may differ in M.
        number (`int`):
            How many to choose over all ranks, the same on each.

    Returns:
        `torch.BoolTensor` of shape (M,): This rank's part of the choice.
    """
    order = scores.argsort(descending=True, stable=True)[:number]
    best = scores.new_full((_world_size(), number), -torch.inf)
    best[_rank(), : len(order)] = scores[order]
    others = torch.arange(_world_size(), device=scores.device) != _rank()
    everyones = sum_over_ranks(best.masked_fill(others[:, None], 0)).flatten()
    chosen = torch.zeros_like(everyones, dtype=torch.bool)
    chosen[everyones.argsort(descending=True, stable=True)[:number]] = True
    mine = (chosen & (everyones > -torch.inf)).view_as(best)[_rank(), : len(order)]
    selected = torch.zeros_like(scores, dtype=torch.bool)
    selected[order] = mine
    return selected


def reweight_advantages(
    inputs: Mapping[str, torch.Tensor], logps: torch.Tensor, args: "LongActConfig"
) -> torch.Tensor:
    """
    Advantages with which TRL's loss of each token becomes that of Clip-Cov or KL-Cov.

    Clip-Cov: zero where selected, which makes loss and gradient zero and leaves the token in the denominator; a token
    that is clipped already keeps its advantage and has no gradient anyway.

    KL-Cov: A - coef·|log r|/r where selected, with its gradient, because TRL's -r·(A - coef·|log r|/r) is then
    -r·A + coef·|log r|. TRL must not clip, see `clip_bounds`.

    Args:
        inputs (`Mapping[str, torch.Tensor]`):
            TRL's inputs of a micro-batch, with the selection of [`select_tokens`].
        logps (`torch.Tensor` of shape (B, T)):
            Log-probs of this forward pass, with their graph.
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `torch.Tensor` of shape (B, T): Advantages.
    """
    selected, advantages = inputs[SELECTED], _by_token(inputs["advantages"])
    log_ratio = logps - inputs.get("old_per_token_logps", logps.detach())
    if args.policy_loss == "kl_cov":
        penalty = args.kl_cov_coef * log_ratio.abs() * log_ratio.clamp(min=MIN_LOG_RATIO).neg().exp()
        return advantages - penalty.masked_fill(~selected, 0)
    ratio = log_ratio.detach().exp()
    low, high = clip_bounds(args)
    clipped = -advantages * ratio.clamp(1 - low, 1 + high) > -advantages * ratio
    return advantages.expand_as(logps).masked_fill(selected & ~clipped, 0)


def clip_bounds(args: "LongActConfig") -> tuple[float, float]:
    """
    `epsilon` and `epsilon_high` of the loss: KL-Cov does not clip, and ratios are positive.

    Args:
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `tuple[float, float]`: How far below and above 1 a ratio may go.
    """
    if args.policy_loss == "kl_cov":
        return 1.0, torch.inf
    return args.epsilon, args.epsilon if args.epsilon_high is None else args.epsilon_high


def _by_token(advantages: torch.Tensor) -> torch.Tensor:
    return advantages.unsqueeze(1) if advantages.dim() == 1 else advantages


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
