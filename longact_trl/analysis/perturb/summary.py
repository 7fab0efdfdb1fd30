"""What a study of clamped channels says: numbers for JSON, tables for Markdown and the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from ...evaluation.statistics import Interval
from ..questions import LONGBENCH_V2, PAPER_CASE, Question
from .answer_study import Answers
from .calibration import CLAMPS, CONDITIONS
from .loss_study import LossStudy


NUM_EXAMPLES = 3
SHOWN = (700, 300)  # first and last characters of a long completion


def summarise(settings: dict, study: LossStudy, questions: Sequence[Question], answers: dict[str, Answers]) -> dict:
    """
    All numbers of a study, ready for JSON.

    Args:
        settings (`dict`):
            What was asked for.
        study (`LossStudy`):
            Losses.
        questions (`Sequence[Question]`):
            What was asked.
        answers (`dict[str, Answers]`):
            By condition.

    Returns:
        `dict`: `settings`; `losses` by text, condition and λ, with intervals; `gaps` between conditions on the same
        chunks; `answers` by condition; `questions`.
    """
    ratio = settings["sparsity_ratio"]
    ratios = sorted({r for _, condition, r in study.by_chunk if condition != "none"})
    pairs = (("bottom", "random"), ("random", "top"), ("none", "bottom"))
    texts = list(settings["chunks"])
    return {
        "settings": settings,
        "losses": {
            text: {
                condition: {r: study.mean(text, condition, r)._asdict() for r in ratios} for condition in CONDITIONS
            }
            for text in texts
        },
        "gaps": {
            text: {f"{higher} - {lower}": study.gap(text, lower, higher, ratio)._asdict() for lower, higher in pairs}
            for text in texts
        },
        "answers": {condition: {**asdict(a), "accuracy": a.accuracy._asdict()} for condition, a in answers.items()},
        "questions": [
            {"name": q.name, "prompt": q.text, "answers": q.answers, "truncated": q.truncated} for q in questions
        ],
    }


def markdown(summary: dict) -> str:
    """
    The study as tables, and answers side by side.

    Args:
        summary (`dict`):
            As [`summarise`] returns it.

    Returns:
        `str`
    """
    settings, answers = summary["settings"], summary["answers"]
    ratio = settings["sparsity_ratio"]
    title = f"{Path(settings['model']).name}: {ratio:.0%} of the channels of {settings['projections']} clamped"
    lines = [f"# {title}", "", f"Task: {settings['task']}, {_how(settings)}.", ""]
    lines += [
        "| clamped | correct | no answer | accuracy (95 % interval) | distinct-2 | longest repeat, tokens | tokens |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for condition, a in answers.items():
        lines.append(
            f"| {condition} | {_correct(a['scores'])} | {a['scores'].count(None)} | {Interval(**a['accuracy'])} "
            f"| {a['distinct_2']:.2f} | {a['longest_repeat']:.1f} | {a['tokens']:.1f} |"
        )
    if settings["task"] == LONGBENCH_V2:
        lines += ["", "`longact report` with this folder prints it as the paper's Table 7, with the paper's counts."]
    lines += ["", "Loss in nats a token (95 % interval over chunks):", ""]
    lines += ["| text | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    for text, by_condition in summary["losses"].items():
        cells = [_number(by_condition[condition][ratio]) for condition in CONDITIONS]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    lines += ["", "Differences on the same chunks:", "", "| text | " + " | ".join(_first(summary["gaps"])) + " |"]
    lines += ["|---" * (len(_first(summary["gaps"])) + 1) + "|"]
    for text, gaps in summary["gaps"].items():
        lines.append(f"| {text} | {' | '.join(_number(gap, '+') for gap in gaps.values())} |")
    lines += ["", "## Answers side by side", ""]
    lines += ["| question | right | " + " | ".join(answers) + " |", "|---" * (len(answers) + 2) + "|"]
    questions = summary["questions"]
    for i in sorted(range(len(questions)), key=lambda i: questions[i]["name"] != PAPER_CASE)[:NUM_EXAMPLES]:
        cells = [_cell(_cut(a["completions"][i])) for a in answers.values()]
        figure = " (Fig. 6)" if questions[i]["name"] == PAPER_CASE else ""
        right = _cell(", ".join(questions[i]["answers"]))
        lines.append(f"| {_cell(questions[i]['name'])}{figure} | {right} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _how(settings: dict) -> str:
    sampled = f"temperature {settings['temperature']:g}" if settings["temperature"] else "greedy"
    return f"{settings['num_prompts']} questions, {sampled}; clamped to {CLAMPS[settings['clamp']]}"


def accuracy_table(settings: dict, answers: dict[str, Answers]) -> Table:
    """Answers under each condition: correct ones, as in the paper's Table 7, and what repetition there is."""
    table = Table(
        title=f"{settings['num_prompts']} answers to {settings['task']}, λ = {settings['sparsity_ratio']}",
        title_justify="left",
    )
    for column in ("clamped", "correct", "no answer", "accuracy (95 %)", "distinct-2", "longest repeat", "tokens"):
        table.add_column(column)
    for condition, a in answers.items():
        cells = (
            _correct(a.scores),
            str(a.scores.count(None)),
            str(a.accuracy),
            f"{a.distinct_2:.2f}",
            f"{a.longest_repeat:.1f}",
            f"{a.tokens:.1f}",
        )
        table.add_row(condition, *cells)
    return table


def loss_table(settings: dict, study: LossStudy) -> Table:
    """Loss by text and condition."""
    table = Table(title=f"Loss, nats a token, λ = {settings['sparsity_ratio']}", title_justify="left")
    for column in ("text", *CONDITIONS):
        table.add_column(column)
    for text in settings["chunks"]:
        means = [study.mean(text, condition, settings["sparsity_ratio"]) for condition in CONDITIONS]
        table.add_row(text, *(_number(mean._asdict()) for mean in means))
    return table


def _number(interval: dict, sign: str = "") -> str:
    return f"{interval['value']:{sign}.2f} ({interval['low']:{sign}.2f} to {interval['high']:{sign}.2f})"


def _first(mapping: dict) -> dict:
    return next(iter(mapping.values()))


def _correct(scores: Sequence[float | None]) -> str:
    return f"{round(sum(score or 0.0 for score in scores), 1):g} / {len(scores)}"


def _cut(text: str) -> str:
    """A long completion without its middle; `perturb.json` has all of it."""
    return text if len(text) <= sum(SHOWN) else f"{text[: SHOWN[0]]} […] {text[-SHOWN[1] :]}"


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table, as it is: not as markup."""
    flat = " ".join(text.split()) or "(nothing)"
    for character in "\\`*_|<>[]~":
        flat = flat.replace(character, f"\\{character}")
    return flat
