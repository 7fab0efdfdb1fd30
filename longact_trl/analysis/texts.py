"""Texts to look at a model with: a user's files, or three kinds that every Python brings along."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data.tiny_tasks import generate_rows
from ..models.reading import load_tokenizer
from .options import check_task, parse_length
from .questions import benchmark_texts


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODULES = ("argparse", "asyncio/base_events", "collections/__init__", "dataclasses", "datetime", "decimal", "difflib")
MODULES += ("doctest", "email/message", "fractions", "http/client", "inspect", "ipaddress", "json/decoder", "locale")
MODULES += ("mailbox", "optparse", "os", "pathlib", "pickle", "pydoc", "random", "shutil", "smtplib", "socket")
MODULES += ("statistics", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "tokenize", "typing", "uuid")
MAX_UNKNOWN = 0.05  # of a built-in text's tokens; a word-level tokenizer made for one task cannot read the others
DEFAULT_LENGTH = 2048  # tokens of a built-in text
CHARACTERS_A_TOKEN = 8  # more than any tokenizer spends on these texts, so enough is cut for `num_tokens`


def _prose() -> Iterator[str]:
    """The reference manual of Python's language, 450,000 characters of English from the standard library."""
    from pydoc_data.topics import topics

    yield from topics.values()


def _code() -> Iterator[str]:
    """Modules of the standard library."""
    library = Path(os.__file__).parent
    for module in MODULES:
        if (file := library / f"{module}.py").is_file():
            yield file.read_text("utf-8")


def _facts() -> Iterator[str]:
    """Synthetic facts among filler, with questions and answers: `longact_trl.data.tiny_tasks`, without end."""
    for row in generate_rows(0):
        yield f"{row['prompt'][0]['content']} {row['demonstration']}"


BUILT_IN: dict[str, Callable[[], Iterator[str]]] = {"prose": _prose, "code": _code, "facts": _facts}


def read_texts(
    model: str, files: Sequence[Path], benchmark: str | None, length: str | None, window: int | None
) -> dict[str, torch.Tensor]:
    """
    The texts that a user asked for, or the built-in ones.

    Args:
        model (`str`):
            Hub id or folder, for its tokenizer.
        files (`Sequence[Path]`):
            A user's texts; empty for none.
        benchmark (`str` or `None`):
            Name of a benchmark, e.g. `"ruler/cwe"`.
        length (`str` or `None`):
            Tokens of each text, e.g. `"4k"`.
        window (`int` or `None`):
            Tokens that the model can read; `None` is no limit.

    Returns:
        `dict[str, torch.LongTensor]`: Name to token ids of shape (S,).

    Raises:
        `ValueError`: If both files and a benchmark are named, or a text does not fit.
    """
    if files and benchmark:
        raise ValueError("Write --text or --benchmark, not both.")
    num_tokens = parse_length(length) if length else None
    window = sys.maxsize if window is None else window
    if num_tokens and num_tokens > window:
        raise ValueError(f"--length {length} is more than the {window:,} tokens that {model} can read.")
    if benchmark:
        check_task(benchmark)
    tokenizer = load_tokenizer(model)
    if files:
        texts = file_texts(tokenizer, files, num_tokens)
    elif benchmark:
        texts = benchmark_texts(tokenizer, benchmark, num_tokens or min(DEFAULT_LENGTH, window))
    else:
        texts = built_in_texts(tokenizer, num_tokens or min(DEFAULT_LENGTH, window))
    for name, ids in texts.items():
        if len(ids) > window:
            raise ValueError(
                f"{name!r} has {len(ids):,} tokens, {model} can read {window:,}. Cut it with --length {window}."
            )
    return texts


def built_in_texts(tokenizer: "PreTrainedTokenizerBase", num_tokens: int) -> dict[str, torch.Tensor]:
    """
    Prose, code and synthetic facts, as far as the tokenizer knows their words.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's.
        num_tokens (`int`):
            Length of each text; shorter only where a text ends before.

    Returns:
        `dict[str, torch.LongTensor]`: Name to token ids of shape (S,).
    """
    found = {}
    for name, parts in BUILT_IN.items():
        ids = encode(tokenizer, _begin(parts(), CHARACTERS_A_TOKEN * num_tokens))[:num_tokens]
        unknown = 0 if tokenizer.unk_token_id is None else (ids == tokenizer.unk_token_id).float().mean().item()
        if unknown <= MAX_UNKNOWN:
            found[name] = ids
    if not found:
        raise ValueError("The tokenizer does not know the words of any built-in text. Name your own with --text FILE.")
    return found


def _begin(parts: Iterator[str], num_characters: int) -> str:
    taken, size = [], 0
    for part in parts:
        taken.append(part)
        size += len(part)
        if size >= num_characters:
            break
    return "\n\n".join(taken)


def file_texts(tokenizer: "PreTrainedTokenizerBase", files: Sequence[Path], num_tokens: int | None) -> dict:
    """
    A user's own texts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's.
        files (`Sequence[Path]`):
            UTF-8 text.
        num_tokens (`int` or `None`):
            Where to cut; `None` takes all of it.

    Returns:
        `dict[str, torch.LongTensor]`: Name of the file to token ids of shape (S,).

    Raises:
        `ValueError`: If a file cannot be read, is empty, or two have the same name.
    """
    found = {}
    for file in files:
        try:
            ids = encode(tokenizer, file.read_text("utf-8"))[:num_tokens]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"Cannot read {str(file)!r} as UTF-8 text: {error}") from error
        if len(ids) < 2:
            raise ValueError(f"{str(file)!r} holds {len(ids)} tokens: there is nothing to measure.")
        if file.stem in found:
            raise ValueError(f"Two texts are called {file.stem!r}: rename one, so that they can be told apart.")
        found[file.stem] = ids
    return found


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> torch.Tensor:
    """Token ids of shape (S,), without the tokenizer's warning that a text is longer than the model's window."""
    return torch.tensor(tokenizer(text, verbose=False)["input_ids"])
