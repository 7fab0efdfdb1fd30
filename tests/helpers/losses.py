"""A batch of log-probs, and covariances written from the paper's formula."""

import math
from types import SimpleNamespace

import torch


def batch(seed: int = 0, rows: int = 6, tokens: int = 40) -> dict[str, torch.Tensor]:
    """Ragged completions, one of them all padding, with garbage in the padding, and a policy that has moved."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (rows,), generator=generator)
    lengths[1], lengths[2] = 0, tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    old = -3 * torch.rand(rows, tokens, generator=generator)
    logps = old + 0.3 * torch.randn(rows, tokens, generator=generator)
    return {
        "prompt_ids": torch.ones(rows, 3, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 3, dtype=torch.long),
        "completion_ids": torch.ones(rows, tokens, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.randn(rows, generator=generator),
        "old_per_token_logps": old.masked_fill(mask == 0, float("nan")),
        "logps": logps.masked_fill(mask == 0, float("nan")),
        "num_items_in_batch": mask.sum(),
    }


def reference_cov(logps, advantages, mask) -> dict[tuple[int, int], float]:
    """Covariance of every valid token, by hand."""
    valid = [(i, t) for i in range(len(mask)) for t in range(mask.size(1)) if mask[i, t]]
    mean_a = math.fsum(advantages[i].item() for i, _ in valid) / len(valid)
    mean_l = math.fsum(logps[i, t].item() for i, t in valid) / len(valid)
    return {(i, t): (advantages[i].item() - mean_a) * (logps[i, t].item() - mean_l) for i, t in valid}


def settings(policy_loss: str, **kwargs) -> SimpleNamespace:
    defaults = dict(clip_cov_ratio=0.1, clip_cov_lb=0.0, clip_cov_ub=0.5, kl_cov_ratio=0.1, kl_cov_coef=1.0, seed=0)
    defaults |= dict(epsilon=0.2, epsilon_high=0.28)
    return SimpleNamespace(policy_loss=policy_loss, **{**defaults, **kwargs})


def tokens_of(selected: torch.Tensor) -> set[tuple[int, int]]:
    return set(map(tuple, selected.nonzero().tolist()))
