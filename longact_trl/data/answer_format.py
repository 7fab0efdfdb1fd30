"""How a prompt asks for its answer: one wording for all sources, the one that `format_reward` checks."""

from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK


ANSWER_FORMAT = (
    f"First reason about the question inside {THINK} and {END_THINK}, then give the final answer inside {ANSWER} and "
    f"{END_ANSWER}: {THINK} your reasoning {END_THINK} {ANSWER} your answer {END_ANSWER}."
)
# yes_no and string share a sentence: a prompt must not give away that its gold answer is yes or no.
_SHORT_ANSWER = f"Inside {ANSWER}, write only the answer itself, as short as possible, without a sentence around it."
ANSWER_HINTS = {
    "choice": f"Inside {ANSWER}, write only the letter of your choice.",
    "number": f"Inside {ANSWER}, write only one number, without explanation.",
    "string": _SHORT_ANSWER,
    "yes_no": _SHORT_ANSWER,
    "list": f"Inside {ANSWER}, write only the items, each on a line of its own.",
}


def ask_for_tags(question: str, kind: str | None = None) -> str:
    """
    `question` followed by the request to answer in `<think>` and `<answer>` tags.

    Args:
        question (`str`):
            What the user asks, without a request for another answer format.
        kind (`str`, *optional*):
            The row's `answer_kind`, for a sentence on what may stand inside `<answer>`.

    Returns:
        `str`
    """
    return f"{question.rstrip()}\n\n{ANSWER_FORMAT}" + (f" {ANSWER_HINTS[kind]}" if kind else "")
