"""LongAct for TRL: long-context RL that trains only the rows of W_Q and W_K behind high-magnitude channels."""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__


if TYPE_CHECKING:
    from .analysis.perturb.perturbation import perturb_activations
    from .method.magnitude import measure_magnitudes
    from .method.masks import select_rows
    from .rewards import answer_reward, format_reward
    from .training.config import LongActConfig
    from .training.mask_refresh import MaskRefreshCallback
    from .training.trainer import LongActTrainer

__all__ = [
    "LongActConfig",
    "LongActTrainer",
    "MaskRefreshCallback",
    "__version__",
    "answer_reward",
    "format_reward",
    "measure_magnitudes",
    "perturb_activations",
    "select_rows",
]

# TRL's trainer imports vLLM and DeepSpeed where they are installed, so it is loaded when it is first asked for.
_MODULES = {
    "LongActConfig": "training.config",
    "LongActTrainer": "training.trainer",
    "MaskRefreshCallback": "training.mask_refresh",
    "answer_reward": "rewards",
    "format_reward": "rewards",
    "measure_magnitudes": "method.magnitude",
    "perturb_activations": "analysis.perturb.perturbation",
    "select_rows": "method.masks",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
