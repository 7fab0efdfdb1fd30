"""RULER's metrics, as `scripts/eval/evaluate.py` and `scripts/eval/synthetic/constants.py` define them."""

import re

from .protocol import TASKS


CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f]")


def postprocess(prediction: str) -> str:
    """The prediction as it is scored: stripped, and each control character (tabs too) one newline."""
    return CONTROL_CHARACTERS.sub("\n", prediction.strip()).strip()


def score(task: str, prediction: str, outputs: list[str]) -> float:
    """
    Score of one raw prediction.

    Args:
        task (`str`): One of the 13 tasks.
        prediction (`str`): What the model wrote after the answer prefix.
        outputs (`list[str]`): The gold answers; they are compared as they are, without post-processing.

    Returns:
        `float` from 0 to 1: the share of the gold answers contained in the prediction (`string_match_all`), or for
        question answering whether any is (`string_match_part`). Upper and lower case are alike, and a match needs no
        word boundary.

    Raises:
        `ZeroDivisionError` or, for question answering, `ValueError`: without gold answers, as officially.
    """
    text = postprocess(prediction).lower()
    found = [float(output.lower() in text) for output in outputs]
    return max(found) if TASKS[task].metric == "string_match_part" else sum(found) / len(found)


def score_batch(task: str, predictions: list[str], references: list[list[str]]) -> float:
    """
    Score of a task over raw predictions: 0 to 100, rounded to two digits as Python rounds (3.125 to 3.12).

    When the first sample's first gold answer is `None` (a test set without answers), the score is 0, as in
    `evaluate.py`.

    Raises:
        `ZeroDivisionError`: without samples, as officially.
    """
    if references and references[0] and references[0][0] is None:
        return 0.0
    scores = [score(task, prediction, outputs) for prediction, outputs in zip(predictions, references, strict=True)]
    return round(sum(scores) / len(scores) * 100, 2)
