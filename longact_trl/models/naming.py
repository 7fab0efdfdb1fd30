"""What is said of a model that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HFValidationError


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
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"Cannot read {str(model)!r}: neither a folder with a model here, nor reachable on the Hub. Check the "
            f"name and the connection, or run `hf auth login` for a gated model. ({reason})"
        ) from error
