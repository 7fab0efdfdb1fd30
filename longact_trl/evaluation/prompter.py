"""How a benchmark's text becomes what the model reads: chat template, room in the window, truncation counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .chat_template import render_chat
from .protocols.truncation import keep_ends, truncate_prompt


if TYPE_CHECKING:  # what a configuration may say is known before transformers is loaded
    from transformers import PreTrainedTokenizerBase

PROTOCOLS = ("official", "reasoning")
# Ours, as RULER lets reasoning models write (branch rulerv1-ns). The paper does not state its evaluation budget.
REASONING_TOKENS = 4096


@dataclass(frozen=True)
class Prompter:
    """
    Everything about a model that its prompts depend on.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's tokenizer.
        chat (`bool`):
            Whether prompts go through the chat template. Without, the text itself is continued.
        protocol (`str`):
            `"official"`: budgets as published. `"reasoning"`: as many tokens more as `reasoning_tokens`, and the
            chat template is asked to leave thinking open.
        reasoning_tokens (`int`):
            See `protocol`.
        window (`int`, *optional*):
            Tokens that prompt and completion share; `None` is no limit.
    """

    tokenizer: "PreTrainedTokenizerBase"
    chat: bool
    protocol: str = "official"
    reasoning_tokens: int = REASONING_TOKENS
    window: int | None = None

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if self.chat and self.tokenizer.chat_template is None:
            raise ValueError(
                f"{self.tokenizer.name_or_path!r} has no chat template: set `chat: false` for a completion model."
            )

    @property
    def reasoning(self) -> bool:
        return self.protocol == "reasoning"

    def budget(self, published: int) -> int:
        """Tokens the model may write where the benchmark publishes this many."""
        return published + self.reasoning_tokens * self.reasoning

    def render(self, text: str, system: str | None = None) -> str:
        """
        What the model reads for one user message.

        Args:
            text (`str`):
                The user's message.
            system (`str`, *optional*):
                A system message; left out where the chat template refuses one.

        Returns:
            `str`: Up to where the model's answer begins.

        Raises:
            `ValueError`: If the chat template cannot be used.
        """
        if not self.chat:
            return text
        messages = [{"role": "user", "content": text}]
        if system:
            try:
                return render_chat(self.tokenizer, [{"role": "system", "content": system}, *messages], self.reasoning)
            except ValueError:
                pass
        return render_chat(self.tokenizer, messages, self.reasoning)

    def encode(self, rendered: str) -> list[int]:
        """Token ids of a rendered prompt as the backends make them: no second BOS where the template wrote one."""
        bos = self.tokenizer.bos_token
        has_bos = bos is not None and rendered.startswith(bos)
        return self.tokenizer.encode(rendered, add_special_tokens=not has_bos)

    def num_tokens(self, rendered: str) -> int:
        """Tokens of a rendered prompt."""
        return len(self.encode(rendered))

    def fit(
        self,
        text: str,
        limit: int,
        budget: int,
        system: str | None = None,
        keep: Callable[[Sequence[int], int], Sequence[int]] = keep_ends,
        always_decode: bool = False,
    ) -> dict:
        """
        Render a prompt, without its middle where it is longer than the benchmark or the window allows.

        Args:
            text (`str`):
                The whole prompt.
            limit (`int`):
                Tokens that the benchmark allows, before the chat template.
            budget (`int`):
                Tokens that the completion needs in the window.
            system, keep, always_decode:
                See [`render`] and [`~protocols.truncation.truncate_prompt`].

        Returns:
            `dict`: `prompt` (`str`), `prompt_tokens` (`int`, of the rendered prompt), `truncated` (`bool`).

        Raises:
            `ValueError`: If the window has no room for the completion.
        """
        while True:
            shortened, truncated = truncate_prompt(text, self.tokenizer, limit, keep, always_decode)
            prompt = self.render(shortened, system)
            num_tokens = self.num_tokens(prompt)
            excess = num_tokens + budget - self.window if self.window else 0
            if excess <= 0:
                return {"prompt": prompt, "prompt_tokens": num_tokens, "truncated": truncated}
            # What the window cannot hold goes as well; decoded text may tokenise to a few tokens more, hence the loop.
            limit = min(limit, len(self.tokenizer.encode(text))) - excess
            if limit < 1:
                raise ValueError(
                    f"A window of {self.window} tokens has no room for a prompt beside {budget} new tokens: raise "
                    "`max_model_length` or lower `reasoning_tokens`."
                )


def prompter_from_metadata(
    tokenizer: str | None = None,
    pretrained: str | None = None,
    chat: bool | None = None,
    protocol: str = "official",
    reasoning_tokens: int = REASONING_TOKENS,
    max_model_length: int | None = None,
    revision: str | None = None,
    **_: object,
) -> Prompter:
    """
    The prompter that lm-eval's `metadata` describes.

    Args:
        tokenizer (`str`, *optional*):
            Hub id or folder; `pretrained`, which lm-eval takes from its `--model_args`, where it is missing.
        pretrained (`str`, *optional*):
            See `tokenizer`.
        chat (`bool`, *optional*):
            Default: whether the tokenizer has a chat template.
        protocol, reasoning_tokens, max_model_length:
            See [`Prompter`].
        revision (`str`, *optional*):
            Commit of the tokenizer on the Hub.

    Returns:
        `Prompter`

    Raises:
        `ValueError`: If neither names a tokenizer, or there is none of that name.
    """
    if not (tokenizer or pretrained):
        raise ValueError('The task needs the model\'s tokenizer: give --metadata \'{"tokenizer": "MODEL"}\'.')
    name = tokenizer or pretrained
    loaded = _load_tokenizer(name, revision, _files_of(name))
    chat = loaded.chat_template is not None if chat is None else chat
    return Prompter(loaded, chat, protocol, reasoning_tokens, max_model_length)


def _files_of(folder: str) -> tuple:
    """What tells whether the files of a local tokenizer are still the same."""
    from ..data.files import stamp_of

    files = sorted(Path(folder).glob("*.*")) if Path(folder).is_dir() else []
    return tuple((file.name, *stamp_of(str(file))) for file in files)


@cache
def _load_tokenizer(name: str, revision: str | None, files: tuple) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    from ..models.reading import read_tokenizer

    options = {"revision": revision or "main", "trust_remote_code": False}
    return read_tokenizer(name, lambda model: AutoTokenizer.from_pretrained(model, **options))
