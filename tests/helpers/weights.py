"""Weights and hooks of a model, compared."""

import torch


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_no_hooks(model: torch.nn.Module) -> None:
    """No hook of ours is left on any parameter or module; transformers leaves one of its own on the embedding."""
    for name, param in model.named_parameters():
        assert not param._backward_hooks, name
        assert not param._post_accumulate_grad_hooks, name
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        assert not [hook for hook in hooks if hook.__module__.startswith("longact_trl")], name


def assert_same_weights(model, other) -> None:
    expected = weights_of(other)
    for name, weight in weights_of(model).items():
        assert torch.equal(weight, expected[name]), name
