"""What the fields of [`LongActConfig`] may be, checked where nothing heavy is loaded."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..method.sparsity import check_sparsity_ratio
from ..method.strategies import STRATEGIES
from ..settings.choices import (
    LENGTH_POLICIES,
    OF_SHARED_PREFIXES,
    ROW_SPARSE_CHOICES,
    ROWWISE_OPTIMIZERS,
    SALIENCY_SOURCES,
    SHARED_PREFIX_CHOICES,
    TEXTS_OF_GRPO,
    UPDATE_RULES,
)
from ..settings.messages import did_you_mean
from .number_ranges import check_numbers
from .policy_loss_settings import POLICY_LOSSES


CHOICES = {
    "strategy": STRATEGIES,
    "update_rule": UPDATE_RULES,
    "saliency_source": SALIENCY_SOURCES,
    "row_sparse_gradients": ROW_SPARSE_CHOICES,
    "prompt_length_policy": LENGTH_POLICIES,
    "shared_prefix": SHARED_PREFIX_CHOICES,
    "policy_loss": POLICY_LOSSES,
}


def check_fields(args: Any) -> None:
    """
    Check each field by itself, as it was given.

    Args:
        args (`LongActConfig`):
            Training arguments, or anything with its fields.

    Raises:
        `ValueError`: For the first that cannot be; says what to write instead.
    """
    if args.num_generations is not None and args.num_generations < 1:
        raise ValueError(f"`num_generations` must be a number of completions, got {args.num_generations}.")
    check_numbers(args)
    for name, choices in CHOICES.items():
        _check_choice(name, getattr(args, name), choices)
    check_texts(args, TEXTS_OF_GRPO)
    if STRATEGIES[args.strategy].masks:
        check_sparsity_ratio(args.sparsity_ratio)
    if args.prefix_chunk_size is not None and args.prefix_chunk_size < 1:
        raise ValueError(
            f"`prefix_chunk_size` must be a positive number of tokens, got {args.prefix_chunk_size}. Write `null` "
            "to keep a prompt's activations whole."
        )
    for name in OF_SHARED_PREFIXES:
        if args.shared_prefix == "off" and getattr(args, name):
            raise ValueError(
                f"`{name}={getattr(args, name)}` is about shared prompts, and `shared_prefix='off'` shares none. "
                "Write 'auto'."
            )
    if args.heatmap_steps < 0:
        raise ValueError(f"`heatmap_steps` must be 0 (never) or a number of steps, got {args.heatmap_steps}.")
    if args.max_logged_completions < 1:
        raise ValueError(
            f"`max_logged_completions` must be a positive number of completions, got {args.max_logged_completions}. "
            "Write `log_completions=False` to keep none."
        )
    if args.max_resamples < 1:
        raise ValueError(
            f"`max_resamples` must be a positive number of generation batches, got {args.max_resamples}. Write "
            "`dynamic_sampling=False` to sample once."
        )


def check_optimizer(args: Any) -> None:
    """
    Check that unselected rows can keep their bits under the optimizer, where they are to.

    Args:
        args (`LongActConfig`):
            Training arguments, or anything with its fields.

    Raises:
        `ValueError`: If they cannot.
    """
    optim = getattr(args.optim, "value", args.optim)
    if STRATEGIES[args.strategy].masks and args.update_rule == "frozen_rows" and optim not in ROWWISE_OPTIMIZERS:
        raise ValueError(
            f"`update_rule='frozen_rows'` needs an optimizer whose step is zero where gradient and momentum are, "
            f"got `optim={optim!r}`. Write one of {', '.join(ROWWISE_OPTIMIZERS)}, or "
            "`update_rule='masked_gradient'`."
        )


def check_texts(args: Any, texts: Mapping[str, Iterable[str]]) -> None:
    """
    Check fields that a library takes as any text.

    Args:
        args (`Any`):
            Object with the fields; what is no text is left to the library.
        texts (`Mapping[str, Iterable[str]]`):
            What each can be.

    Raises:
        `ValueError`: For the first that cannot be, with the nearest that can.
    """
    for name, choices in texts.items():
        if isinstance(value := getattr(args, name), str):
            _check_choice(name, value, choices)


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        hint = did_you_mean(str(value), choices, " Did you mean {!r}?")
        raise ValueError(f"Unknown `{name}` {value!r}. Write one of {', '.join(map(repr, choices))}.{hint}")
