"""Eq. 12: the rule-based rewards."""

from .tagged import answer_reward, format_reward


__all__ = ["answer_reward", "format_reward"]
