"""Why a completion earned nothing, in a sentence for people. Rewards do not read this."""

import difflib

from .answers import answer_matches, short_repr
from .numbers import read_number
from .tags import ANSWER, END_ANSWER, END_THINK, THINK


def why_no_format_reward(text: str, think_prefilled: bool = False) -> str | None:
    """
    What a completion lacks for the format reward (r_fmt of Eq. 12).

    Args:
        text (`str`):
            Completion.
        think_prefilled (`bool`, *optional*, defaults to `False`):
            Whether the prompt ended with `<think>`.

    Returns:
        `str` or `None`: `None` where nothing is missing.
    """
    text = THINK + text if think_prefilled and THINK not in text else text
    missing = [tag for tag in (THINK, END_THINK, ANSWER, END_ANSWER) if tag not in text]
    return f"no {' and no '.join(missing)}" if missing else None


def why_no_answer_reward(text: str, golds: list[str], kind: str | None = None) -> str | None:
    """
    Why a completion did not earn the answer reward (r_ans of Eq. 12), with the nearest miss.

    Args:
        text (`str`):
            Completion.
        golds (`list[str]`):
            Gold answers.
        kind (`str`, *optional*):
            How they are compared.

    Returns:
        `str` or `None`: `None` where it did.
    """
    thinking, ended, after = text.rpartition(END_THINK)
    if not ended:
        return f"thinking never ends: no {END_THINK}"
    if ANSWER not in after or END_ANSWER not in after:
        return f"no {ANSWER} … {END_ANSWER} after {END_THINK}"
    if after.count(ANSWER) > 1 or after.count(END_ANSWER) > 1:
        return f"more than one {ANSWER}"
    answer = after.partition(ANSWER)[2].partition(END_ANSWER)[0].strip()
    if not answer:
        return "the answer is empty"
    if answer_matches(answer, golds, kind):
        return None
    return f"{short_repr(answer)} {_miss(answer, golds, kind)}"


def _miss(answer: str, golds: list[str], kind: str | None) -> str:
    nearest = max(golds, key=lambda gold: difflib.SequenceMatcher(None, answer[:200], gold[:200]).ratio())
    if kind == "list":
        return f"is not the list {', '.join(golds)}"
    if kind != "number":
        longer = ", which stands in it among other words" if nearest.lower() in answer.lower() else ""
        return f"is not {short_repr(nearest)}{longer}"
    value = read_number(answer)
    if value is None:
        return f"is not one number; {nearest} is wanted"
    numbers = [(gold, number) for gold in golds if (number := read_number(gold)) is not None]
    if not numbers:
        return f"is not {nearest}"
    gold, wanted = min(numbers, key=lambda pair: abs(pair[1].value - value.value))
    off = f", off by {abs(value.value / wanted.value - 1):.2%}" if wanted.value else ""
    return f"is not {gold}{off}"
