"""LongAct for TRL: long-context RL that trains only the rows of W_Q and W_K behind high-magnitude channels."""

from ._version import __version__
from .callback import MaskRefreshCallback
from .config import LongActConfig
from .magnitude import measure_magnitudes
from .masks import select_rows
from .rewards import answer_reward, format_reward
from .trainer import LongActTrainer


__all__ = [
    "LongActConfig",
    "LongActTrainer",
    "MaskRefreshCallback",
    "__version__",
    "answer_reward",
    "format_reward",
    "measure_magnitudes",
    "select_rows",
]
