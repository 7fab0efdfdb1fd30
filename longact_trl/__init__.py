"""LongAct for TRL: long-context RL that trains only the rows of W_Q and W_K behind high-magnitude channels."""

from .callback import MaskRefreshCallback
from .config import LongActConfig
from .magnitude import measure_magnitudes
from .masks import select_rows
from .rewards import answer_reward, format_reward
from .trainer import LongActTrainer


__version__ = "0.1.0"

__all__ = [
    "LongActConfig",
    "LongActTrainer",
    "MaskRefreshCallback",
    "answer_reward",
    "format_reward",
    "measure_magnitudes",
    "select_rows",
]
