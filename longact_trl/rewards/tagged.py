"""Rewards of Eq. 12: `r = r_fmt + r_ans`, each 0 or 1, as TRL reward functions.

Both take plain and conversational completions and scan them with `str.find`: linear in a completion of any size,
without timeouts and without state, hence safe in any thread.
"""

from collections.abc import Callable

from .answers import answer_matches, short_repr
from .tags import ANSWER, END_ANSWER, END_THINK, THINK


def format_reward(completions: list, strict: bool = False, think_prefilled: bool = False, **kwargs) -> list[float]:
    """
    1 for a completion with the four tags `<think> </think> <answer> </answer>`, else 0 (r_fmt of Eq. 12).

    To choose an option, hand TRL a partial: `functools.partial(format_reward, strict=True)`. TRL 1.16 logs it under
    the name `format_reward`.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            B completions, plain or conversational.
        strict (`bool`, *optional*, defaults to `False`):
            Whether each tag must stand exactly once and in order, with nothing but whitespace outside them and an
            answer that is not empty.
        think_prefilled (`bool`, *optional*, defaults to `False`):
            Whether the chat template ends the prompt with `<think>`, so that a completion starts inside it. See
            [`prefills_think`].

    Returns:
        `list[float]`: B rewards.
    """
    texts = [_text(completion) for completion in completions]
    if think_prefilled:
        texts = [text if THINK in text else THINK + text for text in texts]
    check = _is_strictly_tagged if strict else _is_tagged
    return [float(check(text)) for text in texts]


def answer_reward(
    completions: list,
    answer: list,
    answer_kind: list[str | None] | None = None,
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs,
) -> list[float]:
    """
    1 for a completion whose one `<answer>` after `</think>` is right, else 0 (r_ans of Eq. 12).

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            B completions, plain or conversational.
        answer (`list[list[str]]`):
            Dataset column: B lists of gold answers, of which any one is right (for `list`: all are wanted). A bare
            string counts as a list of one.
        answer_kind (`list[str]`, *optional*):
            Dataset column: how each answer is compared, one of `choice`, `number`, `string`, `list`, `yes_no`; `None`
            means `string`. See [`~answers.answer_matches`].
        log_extra (`Callable`, *optional*):
            TRL's: takes gold answers into its table of completions, so that `longact page` can say why one earned 0.

    Returns:
        `list[float]`: B rewards.

    Raises:
        `ValueError`: If a column is missing or of another length, or a gold answer cannot be of its kind.
    """
    kinds = [None] * len(completions) if answer_kind is None else answer_kind
    for name, column in (("answer", answer), ("answer_kind", kinds)):
        if isinstance(column, str) or len(column) != len(completions):
            raise ValueError(
                f"{name} must be a list of {len(completions)} entries, one a completion, but is {short_repr(column)}"
            )
    if log_extra is not None:
        log_extra("answer", list(answer))
        log_extra("answer_kind", list(kinds))
    rewards = []
    for completion, golds, kind in zip(completions, answer, kinds, strict=True):
        text = _answer_text(_text(completion))
        rewards.append(float(answer_matches(text or "", golds, kind)))
    return rewards


def prefills_think(tokenizer, **chat_template_kwargs) -> bool:
    """
    Whether the chat template ends the generation prompt with `<think>`, so that completions lack it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer with or without a chat template.
        **chat_template_kwargs:
            What training passes to the template, such as `enable_thinking=True`.

    Raises:
        `ValueError`: If the template closes the thinking block: no completion could then earn a reward.
    """
    if tokenizer.chat_template is None:
        return False
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True, **chat_template_kwargs
    ).rstrip()
    if prompt.endswith(END_THINK):
        raise ValueError(
            f"the chat template ends the prompt with {prompt[-24:]!r}, so no completion can hold `<think> </think>`: "
            "set chat_template_kwargs={'enable_thinking': True} or choose a template that leaves thinking open"
        )
    return prompt.endswith(THINK)


def _text(completion: str | list[dict]) -> str:
    if isinstance(completion, str):
        return completion
    if not completion or completion[-1].get("role", "assistant") != "assistant":  # cut off after a tool's turn
        return ""
    message = completion[-1]
    # A tokenizer with a response template has TRL split the reasoning off; the tags were there when it was generated.
    reasoning = message.get("reasoning_content") or message.get("thinking")
    return (f"{THINK}{reasoning}{END_THINK}" if reasoning else "") + (message.get("content") or "")


def _answer_text(text: str) -> str | None:
    """What the single `<answer>` after the last `</think>` holds; None if there is none, or a choice of several."""
    end_think = text.rfind(END_THINK)
    start, end = text.find(ANSWER, end_think), text.rfind(END_ANSWER)
    if end_think < 0 or start < 0 or end < start:
        return None
    inside = text[start + len(ANSWER) : end]
    return None if ANSWER in inside or END_ANSWER in inside or ANSWER in text[end:] else inside.strip()


def _is_tagged(text: str) -> bool:
    return all(tag in text for tag in (THINK, END_THINK, ANSWER, END_ANSWER))


def _is_strictly_tagged(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in (THINK, END_THINK, ANSWER, END_ANSWER)):
        return False
    text = text.strip()
    between = text[text.find(END_THINK) + len(END_THINK) : text.find(ANSWER)]
    in_order = text.startswith(THINK) and text.endswith(END_ANSWER) and text.find(END_THINK) < text.find(ANSWER)
    return in_order and not between.strip() and bool(_answer_text(text))
