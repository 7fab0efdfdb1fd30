"""What `longact check` says of gold answers: how they are compared, and where that was guessed."""

from collections.abc import Sequence

from ..data.golds import sounds_missing
from ..rewards.answers import YES_NO, read_choice, short_repr
from ..rewards.numbers import read_number
from ..rewards.text import words
from .verdict import Caution


def describe(answers: Sequence[list[str]], kinds: Sequence[str | None]) -> str:
    """
    Count gold answers by kind, and name those whose kind, sign or being there is a guess.

    Args:
        answers (`Sequence[list[str]]`):
            Gold answers of each row, which earn 1 under their own reward.
        kinds (`Sequence[str | None]`):
            How each row's are compared; `None` where the dataset does not say.

    Returns:
        `str`: A [`~longact_trl.check.verdict.Caution`] where something was guessed.
    """
    rows: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        rows.setdefault(kind or "string, since no answer_kind is given", []).append(index)
    found = ", ".join(f"{len(of)} {kind} ({short_repr(answers[of[0]][0])})" for kind, of in rows.items())
    found = f"each of {len(answers):,} earns 1 under its own reward: {found}"
    doubts = {
        "without answer_kind looks like {}, and is compared as text: add a column answer_kind": _other_kinds,
        "may stand for no answer": lambda golds, kind: "none" if any(map(sounds_missing, golds)) else None,
        "is read as negative": _doubtful_signs,
    }
    notes = []
    for note, doubt in doubts.items():
        reasons = [doubt(golds, kind) for golds, kind in zip(answers, kinds, strict=True)]
        if indices := [index for index, reason in enumerate(reasons) if reason]:
            first = indices[0]
            count = f" (as in {len(indices):,} rows)" if len(indices) > 1 else ""
            notes.append(f"{short_repr(answers[first][0])} of row {first}{count} {note.format(reasons[first])}")
    return Caution("; ".join([found, *notes])) if notes else found


def _other_kinds(golds: list[str], kind: str | None) -> str | None:
    if kind is not None:
        return None
    if all(read_number(gold) for gold in golds):
        return "a number"
    if all(" ".join(words(gold)) in YES_NO for gold in golds):
        return "yes or no"
    return "a choice" if all(map(read_choice, golds)) else None


def _doubtful_signs(golds: list[str], kind: str | None) -> str | None:
    is_doubtful = kind == "number" and any(read_number(gold).is_doubtful for gold in golds)
    return "negative" if is_doubtful else None
