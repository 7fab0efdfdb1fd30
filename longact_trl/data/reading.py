"""What goes wrong while data are read, said with the name of what was read."""

from collections.abc import Iterator
from contextlib import contextmanager

from datasets.exceptions import DatasetGenerationError
from pyarrow import ArrowException


MAX_PARTICULARS = 120
"""Characters that a message quotes of what is wrong."""


class Unreadable(ValueError):
    """A file or dataset that is not what it should be. The message names it."""


@contextmanager
def named_errors(source: str, kind: str) -> Iterator[None]:
    """
    Turn what `datasets` and Arrow raise for unreadable data into an error that names the source.

    Args:
        source (`str`):
            Path or Hub id that is read inside the context.
        kind (`str`):
            What it should hold, for the message.

    Raises:
        `ValueError`: Names the source and the reason. A Hub that cannot be reached stays the `OSError` that it is.
    """
    try:
        yield
    except Unreadable:
        raise
    except (DatasetGenerationError, ArrowException, ValueError, TypeError, AttributeError, StopIteration) as error:
        reason = error.__cause__ or error
        if isinstance(reason, Unreadable):  # named already
            raise reason from error
        if isinstance(reason, OSError) and not _is_of_a_file(reason, source):  # the Hub cannot be reached
            raise
        what = f"{type(reason).__name__}: {str(reason)[:MAX_PARTICULARS].rstrip('.')}"
        raise Unreadable(
            f"{source!r} cannot be read as {kind}: {what}. Each row must be an object with the keys of this source."
        ) from error
    except OSError as error:
        if (error.errno is not None or "://" in source) and not _is_of_a_file(error, source):
            raise
        raise Unreadable(f"{source!r} cannot be read as {kind}: {str(error)[:MAX_PARTICULARS]}") from error  # Arrow's


def _is_of_a_file(error: OSError, source: str) -> bool:
    """A broken link, a folder called `rows.jsonl`, a file of somebody else."""
    is_of_a_file = isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError)
    return is_of_a_file and error.errno is not None and "://" not in source
