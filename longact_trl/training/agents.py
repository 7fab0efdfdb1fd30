"""What agents add to a run: the tools that stand in every prompt, and environments that may bring the prompts."""

from collections.abc import Callable, Sequence
from inspect import getmembers, isfunction
from typing import Any

from transformers.utils import get_json_schema

from ..data.length import Tools


EnvironmentFactory = Callable[[], Any] | dict[str, Callable[[], Any]] | None
NO_TOOLS = ("reset", "get_reward")
"""Methods of an environment that the model cannot call, as in [`~trl.GRPOTrainer`]."""


def with_tools(tools: Sequence[Callable] | None, factory: EnvironmentFactory) -> tuple[EnvironmentFactory, Tools]:
    """
    Look at the tools of a run before its trainer is made.

    Args:
        tools (`Sequence[Callable]`, *optional*):
            Functions that every prompt offers.
        factory (`EnvironmentFactory`, *optional*):
            `environment_factory` of [`~trl.GRPOTrainer`]: makes an environment, or one for each name.

    Returns:
        `tuple[EnvironmentFactory, Tools]`: A factory that first gives the environment that was looked at, for one may
        be dear to make, and the JSON schemas of the tools in a prompt: a list, or one for each environment's name.

    Raises:
        `ValueError`: If an environment cannot be reset.
    """
    shared = list(tools or ())
    if factory is None:
        return None, list(map(get_json_schema, shared)) or None
    if not isinstance(factory, dict):
        environment = factory()
        return _beginning_with(environment, factory), list(map(get_json_schema, shared + _methods(environment)))
    environments = {name: make() for name, make in factory.items()}
    factories = {name: _beginning_with(environments[name], make) for name, make in factory.items()}
    return factories, {
        name: list(map(get_json_schema, shared + _methods(environment))) for name, environment in environments.items()
    }


def _methods(environment: Any) -> list[Callable]:
    names = [name for name, _ in getmembers(type(environment), predicate=isfunction)]
    if "reset" not in names:
        raise ValueError(
            f"{type(environment).__name__} has no method `reset`, with which each episode begins: an "
            "`environment_factory` must make environments that have one."
        )
    return [getattr(environment, name) for name in names if name not in NO_TOOLS and not name.startswith("_")]


def _beginning_with(environment: Any, factory: Callable[[], Any]) -> Callable[[], Any]:
    made = [environment]
    return lambda: made.pop() if made else factory()
