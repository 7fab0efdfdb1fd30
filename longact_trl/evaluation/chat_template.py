"""What a chat template makes of messages: the same on any day, and one message where it makes nothing."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING


if TYPE_CHECKING:  # what a configuration may say is known before transformers is loaded
    from transformers import PreTrainedTokenizerBase

# Llama 3's and SmolLM3's templates write "today". Any day would do; this one is recorded in the results.
DAY = date(2025, 1, 1)
TEMPLATE_OPTIONS = {"strftime_now": DAY.strftime}
"""Arguments of `apply_chat_template` that fix it: a variable of a template wins over transformers' own function."""


def render_chat(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[dict], thinking: bool) -> str:
    """
    What the model reads.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            With a chat template. One that knows `enable_thinking` is told whether the model may think.
        messages (`Sequence[dict]`):
            The conversation.
        thinking (`bool`):
            Whether the model may think.

    Returns:
        `str`: Up to where its answer begins.

    Raises:
        `ValueError`: If the template cannot be used, or refuses the messages.
    """
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
    try:
        return tokenizer.apply_chat_template(messages, **options, **TEMPLATE_OPTIONS)
    except Exception as error:  # a template computes, so it may raise anything
        roles = " and ".join(message["role"] for message in messages)
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} cannot be used for messages of {roles}: "
            f"{type(error).__name__}: {error}. Correct it."
        ) from error
