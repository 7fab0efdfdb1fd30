"""What is said of a model that cannot be read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HFValidationError


READ_AS_JSON = ("*config.json", "*token*.json", "vocab.json")
"""Of a model's folder, what its configuration and tokenizer are read from."""


@contextmanager
def naming(model: str | Path) -> Iterator[None]:
    """
    Turn what transformers and the Hub raise for a model that is not there into an error that says what to do.

    Args:
        model (`str` or `Path`):
            Hub id or folder that is read inside the context.

    Raises:
        `ValueError`: Names the model, and in brackets the first line of the reason.
    """
    try:
        yield
    except (OSError, HFValidationError) as error:
        if broken := broken_file(model):
            raise ValueError(broken) from error
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"Cannot read {str(model)!r}: neither a folder with a model here, nor reachable on the Hub. Check the "
            f"name and the connection, or run `hf auth login` for a gated model. ({reason})"
        ) from error


def broken_file(model: str | Path) -> str | None:
    """
    Which file of a model's folder is no JSON object, when something could not be read: the libraries' own reasons name
    none.

    Args:
        model (`str` or `Path`):
            Hub id or folder.

    Returns:
        `str` or `None`: A sentence; `None` where all are whole.
    """
    for file in sorted({file for pattern in READ_AS_JSON for file in Path(model).glob(pattern)}):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{file} cannot be read as JSON ({error}): was it cut off?"
        if not isinstance(content, dict):
            return f"{file} is no JSON object: copy or download it again."
    return None
