"""From a run's files to what the page's script reads, in parts that are unpacked when somebody looks at them."""

import base64
import gzip
import json
from pathlib import Path

import pandas

from ..pictures.heatmaps import KINDS, kind_of, layer_of
from ..rewards.reasons import why_no_answer_reward, why_no_format_reward
from .run_files import RunFiles, reward_columns


TEMPLATE = Path(__file__).parents[1] / "assets" / "run.html"
CURVES = (
    ("reward", "Reward"),
    ("rewards/answer_reward/mean", "Answer right"),
    ("rewards/format_reward/mean", "Format right"),
    ("completions/mean_length", "Tokens of a completion"),
    ("entropy", "Entropy"),
    ("frac_reward_zero_std", "Groups without advantage"),
    ("longact/frac_groups_degenerate", "Groups replaced by dynamic sampling"),
    ("longact/groups_degenerate_left", "Groups that could not be replaced"),
    ("longact/mask_churn", "Mask churn"),
    ("longact/energy_share", "Energy in selected rows"),
    ("longact/density_q", "Density of W_Q"),
    ("longact/grad_norm_selected_share", "Gradient in selected rows"),
    ("grad_norm", "Gradient norm"),
    ("loss", "Loss"),
    ("step_time", "Seconds a step"),
    ("longact/refresh_seconds", "Seconds of a mask refresh"),
    ("num_tokens", "Tokens so far"),
    ("learning_rate", "Learning rate"),
)
"""Logged quantities, in the order in which a reader asks for them."""


def page_of(runs: list[RunFiles]) -> str:
    """
    One HTML file about runs, which needs neither a server nor a network.

    Args:
        runs (`list[RunFiles]`):
            One run, or several to be laid over each other.

    Returns:
        `str`
    """
    parts: list[str] = []
    described = [_run(i, run, parts) for i, run in enumerate(runs)]
    content = json.dumps({"curves": CURVES, "runs": described}).replace("</", "<\\/")
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace("__PARTS__", "\n".join(parts)).replace("__DATA__", content)


def _run(number: int, run: RunFiles, parts: list[str]) -> dict:
    steps = {}
    for step, table in run.rollouts.items():
        groups = groups_of(table)
        steps[step] = len(table)
        parts.append(_part(f"rollouts-{number}-{step}", groups))
    if run.masks:
        parts.append(_part(f"masks-{number}", _masks(run)))
    return {
        "name": run.folder.name,
        "settings": {name: str(value) for name, value in run.settings.items()},
        "log": {name: [[e["step"], e[name]] for e in run.log if _is_number(e.get(name))] for name, _ in CURVES},
        "rollouts": steps,
        "masks": sorted(run.masks),
    }


def groups_of(table: pandas.DataFrame) -> list[dict]:
    """
    The groups of one step: completions of one prompt, with rewards and, where gold answers are known, the reasons.

    Args:
        table (`pandas.DataFrame`):
            Rows of one step, as GRPOTrainer writes them.

    Returns:
        `list[dict]`: `prompt`, `gold`, `kind` and `rows`; a row has `completion`, `rewards`, `advantage` and `why`.
    """
    names = reward_columns(table)
    groups: dict[str, dict] = {}
    for row in table.to_dict("records"):
        prompt = _text(row["prompt"])
        gold = row.get("answer")
        golds = None if gold is None else [gold] if isinstance(gold, str) else [str(g) for g in gold]
        kind = row.get("answer_kind") if isinstance(row.get("answer_kind"), str) else None
        group = groups.setdefault(prompt, {"prompt": prompt, "gold": golds, "kind": kind, "rows": []})
        completion = _text(row["completion"])
        group["rows"].append(
            {
                "completion": completion,
                "rewards": {name: row[name] for name in names if _is_number(row[name])},
                "advantage": row["advantage"] if _is_number(row["advantage"]) else None,
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


def _masks(run: RunFiles) -> list[dict]:
    """Each projection's rows, and at how many checkpoints each was selected."""
    steps = sorted(run.masks)
    projections = []
    for name, newest in run.masks[steps[-1]].items():
        counts = sum(run.masks[step][name].int() for step in steps if name in run.masks[step])
        projections.append(
            {
                "layer": layer_of(name),
                "kind": KINDS[kind_of(name)],
                "heads": newest.shape[0],
                "counts": base64.b64encode(counts.clamp(max=255).byte().numpy().tobytes()).decode(),
                "last": base64.b64encode(newest.byte().numpy().tobytes()).decode(),
            }
        )
    return projections


def _text(messages) -> str:
    """A prompt or completion as text: messages are told apart by their roles."""
    if isinstance(messages, str):
        return messages
    turns = [(message.get("role") or "", str(message.get("content") or "")) for message in messages]
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"[{role}] {content}" for role, content in turns)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")


def _part(name: str, content: object) -> str:
    packed = gzip.compress(json.dumps(content).encode(), mtime=0)
    return f'<script type="text/plain" id="{name}">{base64.b64encode(packed).decode()}</script>'
