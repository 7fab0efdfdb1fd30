"""Rollouts of a step as the page shows them: in groups, with what each earned and why."""

import json
import re
from collections.abc import Iterable, Mapping

import numpy
import pandas

from ..rewards.reasons import why_no_answer_reward, why_no_format_reward
from ..training.completion_tables import REASON


SEVERAL = (list, tuple, numpy.ndarray)
OF_A_REWARD = re.compile("rewards/(.+)/mean")
"""What GRPOTrainer logs of a reward function."""
NOT_REWARDS = {"step", "prompt", "completion", "advantage", "answer", "answer_kind", REASON}


def reward_columns(table: pandas.DataFrame) -> list[str]:
    """The columns of a rollout table that are rewards."""
    is_numeric = pandas.api.types.is_numeric_dtype
    return [name for name in table.columns if name not in NOT_REWARDS and is_numeric(table[name])]


def groups_of(table: pandas.DataFrame) -> list[dict]:
    """
    The groups of one step: completions of one prompt, with rewards and, where gold answers are known, the reasons.

    Args:
        table (`pandas.DataFrame`):
            Rows of one step, as GRPOTrainer writes them, or those that dynamic sampling threw away.

    Returns:
        `list[dict]`: `prompt`, `gold`, `kind`, `rows` and, of what was thrown away, `reason`; a row has `completion`,
        `rewards`, `advantage` and `why`.
    """
    names = reward_columns(table)
    groups: dict[tuple, dict] = {}
    for row in table.to_dict("records"):
        prompt, reason = text_of(row["prompt"]), row.get(REASON)
        golds = _golds_of(row.get("answer"))
        kind = row.get("answer_kind") if isinstance(row.get("answer_kind"), str) else None
        new = {"prompt": prompt, "gold": golds, "kind": kind, "reason": reason, "rows": []}
        completion = text_of(row["completion"])
        groups.setdefault((prompt, reason), new)["rows"].append(
            {
                "completion": completion,
                "rewards": {name: float(row[name]) for name in names if is_number(row[name])},
                "advantage": row["advantage"] if is_number(row.get("advantage")) else None,
                "why": _why(row, completion, golds, kind),
            }
        )
    return list(groups.values())


def _why(row: dict, completion: str, golds: list[str] | None, kind: str | None) -> list[str]:
    reasons = []
    if row.get("format_reward") == 0:
        reasons.append(f"format: {why_no_format_reward(completion) or 'tags are not each there once and in order'}")
    if row.get("answer_reward") == 0 and golds:
        reasons.append(f"answer: {why_no_answer_reward(completion, golds, kind) or 'earned 0'}")
    return reasons


def text_of(messages) -> str:
    """A prompt or completion as text: messages are told apart by their roles."""
    if not isinstance(messages, SEVERAL):
        return "" if _is_missing(messages) else str(messages)
    turns = [(message.get("role") or "", _said(message)) for message in messages]
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"[{role}] {content}" for role, content in turns)


def _said(message: Mapping) -> str:
    """A message's text, `[image]` and the like between its texts, and the tools that it calls. Parquet gives each
    message all fields that one of them has."""
    content = message.get("content")
    parts = content if isinstance(content, SEVERAL) else [] if content is None else [content]
    said = [part.get("text") or f"[{part.get('type')}]" if isinstance(part, Mapping) else str(part) for part in parts]
    if message.get("reasoning_content"):
        said.insert(0, f"[reasoning] {message['reasoning_content']}")
    calls = message.get("tool_calls")
    for call in () if calls is None else calls:
        function = call.get("function") or call
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            given = {name: value for name, value in arguments.items() if value is not None}
            arguments = json.dumps(given, ensure_ascii=False, default=_plain)
        said.append(f"[calls] {function.get('name')}({arguments or ''})")
    return "\n".join(said)


def _plain(value) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _golds_of(answer) -> list[str] | None:
    if isinstance(answer, SEVERAL):
        return [str(gold) for gold in answer]
    return None if _is_missing(answer) else [str(answer)]


def _is_missing(value) -> bool:
    return value is None or value != value


def is_number(value) -> bool:
    """Whether a value can be drawn."""
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")


def rewards_in(log: Iterable[Mapping]) -> dict[str, str]:
    """Reward functions whose means are logged: what the mean is called, to the function's name, in order."""
    names = dict.fromkeys(name for entry in log for name in entry)
    return {name: found[1] for name in names if (found := OF_A_REWARD.fullmatch(name))}
