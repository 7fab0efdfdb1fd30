"""From a response to a score: what of it counts as the answer, and what its benchmark says of that."""

import re
from collections.abc import Mapping

from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK
from .benchmarks import BENCHMARKS, Answer, Verdict


_TAGGED = re.compile(f"{ANSWER}(.*?){END_ANSWER}", re.DOTALL)


def judge(doc: Mapping, response: str) -> Verdict:
    """
    Score a response to one row.

    Args:
        doc (`Mapping`):
            Row of [`~lm_eval_tasks.rows`]: `benchmark`, `task`, `gold`, `reasoning`, `prompt`.
        response (`str`):
            Everything the model wrote.

    Returns:
        `Verdict`
    """
    answer = Answer(response, False, False, response)
    if doc["reasoning"]:
        answer = final_answer(response, doc["prompt"].rstrip().endswith(THINK))
    return BENCHMARKS[doc["benchmark"]].score(doc, answer)


def final_answer(response: str, think_prefilled: bool) -> Answer:
    """
    The part of a reasoning model's response that is scored: what follows its last `</think>`, and of that only what
    stands in `<answer>` tags where there are some. A model that does not think is scored on all it wrote.

    Args:
        response (`str`):
            Everything the model wrote.
        think_prefilled (`bool`):
            Whether the prompt ended with `<think>`.

    Returns:
        `Answer`: Unfinished, with an empty text, where thinking never ended.
    """
    _, ended, answer = response.rpartition(END_THINK)
    if not ended and (think_prefilled or THINK in response):
        return Answer("", False, True, response)
    tagged = _TAGGED.findall(answer)
    return Answer((tagged[-1] if tagged else answer).strip(), bool(tagged), False, response)
