"""Rollouts of a step as the page shows them: in groups, with what each earned and why."""

import pandas

from ..rewards.reasons import why_no_answer_reward, why_no_format_reward
from ..training.completion_tables import REASON


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
        gold = row.get("answer")
        golds = None if gold is None else [gold] if isinstance(gold, str) else [str(g) for g in gold]
        kind = row.get("answer_kind") if isinstance(row.get("answer_kind"), str) else None
        new = {"prompt": prompt, "gold": golds, "kind": kind, "reason": reason, "rows": []}
        completion = text_of(row["completion"])
        groups.setdefault((prompt, reason), new)["rows"].append(
            {
                "completion": completion,
                "rewards": {name: row[name] for name in names if is_number(row[name])},
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
    if isinstance(messages, str):
        return messages
    turns = [(message.get("role") or "", str(message.get("content") or "")) for message in messages]
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"[{role}] {content}" for role, content in turns)


def is_number(value) -> bool:
    """Whether a value can be drawn."""
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
