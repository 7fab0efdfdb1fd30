"""Where [`LongActConfig`] was in 0.1: what earlier runs' `training_args.bin` names."""

from .training.config import LongActConfig


__all__ = ["LongActConfig"]
