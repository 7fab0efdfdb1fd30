"""Weights of Q and K that something else reads, too: a mask for them would be a mask for that."""

from collections.abc import Mapping, Sequence

from torch import nn


def check_tied_to_nothing_else(
    model: nn.Module, weights: Mapping[str, tuple[nn.Parameter, Sequence[nn.Module]]]
) -> None:
    """
    Check that weights are held by their own modules alone.

    Args:
        model (`nn.Module`):
            The model in which to look.
        weights (`dict[str, Holders]`):
            By the name of a projection.

    Raises:
        `ValueError`: If another module holds one; names both.
    """
    holders = {id(weight): (name, modules) for name, (weight, modules) in weights.items()}
    for path, module in model.named_modules():
        name, modules = holders.get(id(module._parameters.get("weight")), ("", ()))
        if modules and not any(module is inner for each in modules for inner in each.modules()):
            raise ValueError(
                f"LongAct needs the rows of W_Q and W_K, but the weight of {name} is also that of "
                f"{path.removeprefix('base_model.model.')}, whose gradient would be masked with it."
            )
