"""Which settings Clip-Cov and KL-Cov (arXiv:2505.22617) can work with; `policy_losses.py` computes them."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from trl import GRPOConfig

POLICY_LOSSES = ("vanilla", "clip_cov", "kl_cov")
LOSS_TYPES = ("grpo", "dapo", "bnpo", "dr_grpo")
"""Those of TRL whose loss of a token is PPO's: -min(r·A, clamp(r)·A)."""


def check_policy_loss(args: "GRPOConfig") -> None:
    """
    Check the fields of Clip-Cov and KL-Cov, after TRL has filled in its own.

    Args:
        args (`LongActConfig`):
            Training arguments.

    Raises:
        `ValueError`: If they cannot work together; says what to write instead.
    """
    loss = args.policy_loss
    if loss not in POLICY_LOSSES:
        raise ValueError(f"Unknown `policy_loss` {loss!r}. Write one of {', '.join(map(repr, POLICY_LOSSES))}.")
    if loss == "vanilla":
        return
    if not 0 < getattr(args, f"{loss}_ratio") <= 1:
        raise ValueError(f"`{loss}_ratio` is a share of the tokens in (0, 1], got {getattr(args, f'{loss}_ratio')}.")
    if args.loss_type not in LOSS_TYPES:
        raise ValueError(
            f"`policy_loss={loss!r}` changes PPO's loss of a token, which `loss_type={args.loss_type!r}` does not "
            f"have. Write one of {', '.join(map(repr, LOSS_TYPES))}."
        )
    if args.importance_sampling_level != "token":
        raise ValueError(
            f"`policy_loss={loss!r}` needs a ratio for each token. Write `importance_sampling_level='token'`, got "
            f"{args.importance_sampling_level!r}."
        )
    if loss == "clip_cov" and not args.clip_cov_lb < args.clip_cov_ub:
        raise ValueError(
            f"No covariance lies between `clip_cov_lb`={args.clip_cov_lb} and `clip_cov_ub`={args.clip_cov_ub}. Write "
            "a lower bound below the upper one, e.g. 1.0 and 5.0."
        )
    if loss == "kl_cov":
        _check_kl_cov(args)


def _check_kl_cov(args: "GRPOConfig") -> None:
    if args.kl_cov_coef <= 0:
        raise ValueError(f"`kl_cov_coef` must be above 0, got {args.kl_cov_coef}.")
    for name in ("delta", "off_policy_mask_threshold"):
        if getattr(args, name) is not None:
            raise ValueError(f"KL-Cov does not clip or drop tokens: remove `{name}`={getattr(args, name)}.")
    if args.gradient_accumulation_steps % (args.steps_per_generation * args.num_iterations) == 0:
        raise ValueError(
            "KL-Cov does nothing where each batch serves a single optimizer step, because log-probs are then still "
            f"those of sampling. Write `steps_per_generation: {2 * args.gradient_accumulation_steps}` (two steps a "
            f"batch; it is {args.steps_per_generation} with `gradient_accumulation_steps` "
            f"{args.gradient_accumulation_steps}) or `num_iterations: 2`."
        )
