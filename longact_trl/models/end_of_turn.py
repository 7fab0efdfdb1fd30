"""Where a model's turn ends: what its chat template writes there, and what generation stops at."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTENT = "content"


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """
    The token that a chat template writes behind an assistant's turn.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer, with or without a chat template.

    Returns:
        `str` or `None`: `None` without a template, or where it writes nothing there, or more than one token.
    """
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": _CONTENT}, {"role": "assistant", "content": _CONTENT}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    end = rendered.rpartition(_CONTENT)[2].strip()
    return end if end in tokenizer.get_vocab() else None


def check_end_of_turn(tokenizer: "PreTrainedTokenizerBase", eos_token: str | None) -> None:
    """
    Check that fine-tuning teaches the very end that generation will stop at. A Base model ends its text with another
    token than its chat template ends a turn.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's tokenizer as it is.
        eos_token (`str`, *optional*):
            What fine-tuning makes the end, as in [`~trl.SFTConfig`]. Default the tokenizer's own.

    Raises:
        `ValueError`: If they differ; says what to write.
    """
    wanted, found = end_of_turn(tokenizer), eos_token or tokenizer.eos_token
    if wanted is not None and found != wanted:
        raise ValueError(
            f"The chat template ends a turn with {wanted!r}, but generation would stop at {found!r}, which the model"
            f" is not taught to write: completions would run on to the longest allowed. Write `eos_token: {wanted!r}`."
        )
