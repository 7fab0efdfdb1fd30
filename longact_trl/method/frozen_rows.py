"""`update_rule="frozen_rows"`: rows outside the mask keep their bits, although the optimizer has momentum.

A row with zero gradient still moves under AdamW while its first moment is non-zero. So when a refresh drops a row
from the mask, its first moment is cleared. From then on zero gradient and zero momentum make the step of AdamW, SGD
and Lion exactly zero, parameter and float32 master alike. This happens between two steps, with no copy of the weights.
"""

from collections.abc import Iterable

import torch
from torch import nn

from .gradients import zero_rows


FIRST_MOMENTS = ("exp_avg", "momentum_buffer", "state1")
"""State keys of the first moment: Adam, AdamW and Lion; SGD; bitsandbytes."""

_ROWWISE_CLASSES = {"Adam", "AdamW", "SGD", "Lion", "FusedAdam", "DeepSpeedCPUAdam"}


def check_own_optimizer(optimizer_class: type, update_rule: str) -> None:
    """
    Check an optimizer that the user brings instead of `optim`.

    Args:
        optimizer_class (`type`):
            Its class.
        update_rule (`str`):
            `update_rule` of the training arguments.

    Raises:
        `ValueError`: If rows cannot be frozen with it.
    """
    if update_rule == "frozen_rows" and _ROWWISE_CLASSES.isdisjoint(base.__name__ for base in optimizer_class.mro()):
        raise ValueError(
            f"`update_rule='frozen_rows'` needs an optimizer whose step is zero where gradient and momentum are, got "
            f"{optimizer_class.__name__}. Pass one of {', '.join(sorted(_ROWWISE_CLASSES))}, or write "
            "`update_rule='masked_gradient'`."
        )


def check_no_weight_decay(optimizer: torch.optim.Optimizer, params: Iterable[nn.Parameter]) -> None:
    """
    Check that an optimizer that the user brings does not decay the weights whose rows are masked.

    Args:
        optimizer (`torch.optim.Optimizer`):
            Before it is wrapped for distributed training.
        params (`Iterable[nn.Parameter]`):
            Masked parameters.

    Raises:
        `ValueError`: If it does.
    """
    masked = set(params)
    for group in optimizer.param_groups:
        if group.get("weight_decay") and not masked.isdisjoint(group["params"]):
            raise ValueError(
                f"The optimizer decays W_Q and W_K (`weight_decay={group['weight_decay']}`), which would move rows "
                "that receive no gradient. Give them a parameter group of their own with `weight_decay=0`, or let the "
                "trainer make the optimizer (`optim`, `weight_decay`)."
            )


def check_deepspeed_optimizer(config: dict, weight_decay: float) -> None:
    """
    Check that DeepSpeed does not bring an optimizer of its own, whose one parameter group decays masked rows.

    Args:
        config (`dict`):
            DeepSpeed's configuration.
        weight_decay (`float`):
            What `"auto"` stands for.

    Raises:
        `ValueError`: If it does.
    """
    decay = config.get("optimizer", {}).get("params", {}).get("weight_decay", 0)
    if weight_decay if decay == "auto" else decay:
        raise ValueError(
            "The DeepSpeed config has an `optimizer` with weight decay, which would move rows of W_Q and W_K that "
            "receive no gradient. Remove it there: the trainer makes the same optimizer (`optim`, `weight_decay`)."
        )


def clear_first_moment(optimizer: torch.optim.Optimizer, param: nn.Parameter, rows: torch.Tensor) -> None:
    """
    Set the first moment of some rows of a parameter to zero, on this rank's share of it. Not a collective.

    Args:
        optimizer (`torch.optim.Optimizer`):
            The trainer's optimizer: plain, or wrapped by accelerate or DeepSpeed (ZeRO-1, 2, 3).
        param (`nn.Parameter` of shape (rows, ...)):
            Parameter whose first dimension is output rows; a `DTensor` under FSDP2.
        rows (`torch.BoolTensor` of shape (rows,)):
            `True` where the first moment is cleared; of shape (1, rows) where the second dimension is output rows.

    Raises:
        `ValueError`: If the optimizer keeps its state where it cannot be reached.
    """
    if hasattr(param, "_z3_optimizer"):  # ZeRO-3: a flat partition
        _clear_zero3(param, rows)
    elif hasattr(param, "_hp_mapping"):  # ZeRO-1/2: a fragment of a flat buffer, or none of it on this rank
        if param._hp_mapping is not None:
            _clear_zero12(optimizer.optimizer, param._hp_mapping, param.numel(), rows)
    elif set(FIRST_MOMENTS) & set(optimizer.state.get(param, ())):  # plain torch, also with FSDP2's DTensors
        for key in set(FIRST_MOMENTS) & set(optimizer.state[param]):
            if optimizer.state[param][key] is not None:  # SGD without momentum
                zero_rows(optimizer.state[param][key], rows.flatten(), rows.dim() - 1)
    elif optimizer.state:  # not just the time before the first step
        name = type(getattr(optimizer, "optimizer", optimizer)).__name__  # accelerate wraps it
        raise ValueError(
            f"{name} hides its state, so `update_rule='frozen_rows'` cannot clear momentum. Use "
            "`optim='adamw_torch'`, or `update_rule='masked_gradient'`."
        )


def _clear_zero12(zero_optimizer, fragment, numel: int, rows: torch.Tensor) -> None:
    if not fragment.optim_fragment:  # DeepSpeed links them within the step of the first parameter group: no others
        zero_optimizer._hp_optimizer_states_linked = False
        zero_optimizer._lazy_init_hp_params_optimizer_state()
    for key in set(FIRST_MOMENTS) & set(fragment.get_optim_state_keys()):
        _clear_flat(fragment.get_optim_state_fragment(key), fragment.lp_fragment_address.start, numel, rows)


def _clear_zero3(param: nn.Parameter, rows: torch.Tensor) -> None:
    from deepspeed.utils import safe_get_local_optimizer_state, safe_set_local_optimizer_state

    optimizer = param._z3_optimizer
    group, _, _ = optimizer.grad_position[optimizer.get_param_id(param)]
    state = optimizer.optimizer.state[optimizer.fp32_partitioned_groups_flat[group]]
    for key in set(FIRST_MOMENTS) & set(state):
        moment = safe_get_local_optimizer_state(param, key).clone()
        _clear_flat(moment, moment.numel() * optimizer._get_param_partition_rank(param), param.ds_numel, rows)
        safe_set_local_optimizer_state(param, moment, key)


def _clear_flat(moment: torch.Tensor, start: int, numel: int, rows: torch.Tensor) -> None:
    """Clear rows in a flat piece that holds elements `start…` of a parameter of `numel` elements (then padding)."""
    element = torch.arange(start, min(start + moment.numel(), numel), device=moment.device)
    row = element // (numel // rows.numel()) if rows.dim() == 1 else element % rows.numel()
    drop = rows.flatten().to(moment.device)[row]
    moment.view(-1)[: element.numel()].masked_fill_(drop, 0)
