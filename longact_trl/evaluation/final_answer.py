"""From a response to a score: what of it counts as the answer, and which benchmark's rule judges it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..rewards.answers import read_choice
from . import infinitebench, longbench_v2, ruler


THINK, END_THINK = "<think>", "</think>"
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Verdict(NamedTuple):
    """
    What became of one response.

    Args:
        score (`float` or `None`):
            From 0 to 1; `None` where the official script leaves the sample out.
        prediction (`str` or `None`):
            What was compared with the gold answers.
        unfinished (`bool`):
            Whether the budget ended while the model was still thinking.
    """

    score: float | None
    prediction: str | None
    unfinished: bool


def judge(doc: Mapping, response: str) -> Verdict:
    """
    Score a response to one row.

    Args:
        doc (`Mapping`):
            Row of `rows.py`: `benchmark`, `task`, `gold`, `reasoning`, `prompt`.
        response (`str`):
            Everything the model wrote.

    Returns:
        `Verdict`
    """
    answer, tagged, unfinished = response, False, False
    if doc["reasoning"]:
        answer, tagged, unfinished = final_answer(response, doc["prompt"].rstrip().endswith(THINK))
    if doc["benchmark"] == "longbench_v2":
        if response == "":
            return Verdict(None, None, unfinished)
        letter = (tagged and read_choice(answer)) or longbench_v2.extract_answer(answer)
        return Verdict(float(letter == doc["gold"][0]), letter, unfinished)
    if doc["benchmark"] == "ruler":
        return Verdict(ruler.score(doc["task"], answer, doc["gold"]), answer, unfinished)
    if doc["benchmark"] == "infinitebench":
        if tagged and doc["task"] == "longbook_choice_eng":
            answer = read_choice(answer) or answer
        return Verdict(infinitebench.score(doc["task"], answer, doc["gold"]), answer, unfinished)
    from ..rewards.tagged import answer_reward

    [right] = answer_reward([response], answer=[doc["gold"]], answer_kind=[doc["answer_kind"]])
    return Verdict(right, response, END_THINK not in response)


def final_answer(response: str, think_prefilled: bool) -> tuple[str, bool, bool]:
    """
    The part of a reasoning model's response that is scored: what follows its last `</think>`, and of that only what
    stands in `<answer>` tags where there are some. A model that does not think is scored on all it wrote.

    Args:
        response (`str`):
            Everything the model wrote.
        think_prefilled (`bool`):
            Whether the prompt ended with `<think>`.

    Returns:
        `tuple[str, bool, bool]`: The answer, whether it stood in tags, and whether thinking never ended (the answer
        is then empty).
    """
    _, ended, answer = response.rpartition(END_THINK)
    if not ended and (think_prefilled or THINK in response):
        return "", False, True
    tagged = _TAGGED.findall(answer)
    return (tagged[-1] if tagged else answer).strip(), bool(tagged), False


def process_results(doc: Mapping, results: Sequence[str]) -> dict[str, float | None]:
    """What lm-eval calls with a row and the model's responses to it, of which there is one."""
    return {"score": judge(doc, results[0]).score}


def mean_percent(scores: Sequence[float | None]) -> float:
    """Mean of the samples that have a score, in percent; NaN where none has."""
    scored = [score for score in scores if score is not None]
    return 100 * sum(scored) / len(scored) if scored else float("nan")


def keep_nothing(doc: Mapping, results: Sequence[str]) -> dict[str, float]:
    """The first of two turns has no score of its own."""
    return {"score": 0.0}
