"""What a user reads: a mistake as one message, and nothing that nobody can act on."""

import difflib
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


PACKAGE = Path(__file__).parents[1]


@contextmanager
def usage_errors(exit_code: int = 2) -> Iterator[None]:
    """
    Say what a user got wrong in one message without a traceback, and stop.

    That is every `ValueError` which this package raises. One from elsewhere keeps its traceback: nobody knows yet
    what it means.

    Args:
        exit_code (`int`, *optional*, defaults to `2`):
            With which the program ends.
    """
    try:
        yield
    except ValueError as error:
        *_, innermost = traceback.extract_tb(error.__traceback__)
        if not Path(innermost.filename).is_relative_to(PACKAGE):
            raise
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        colour = "\033[31m{}\033[0m" if sys.stderr.isatty() else "{}"
        print(colour.format(f"Error: {error}{notes}"), file=sys.stderr)
        sys.exit(exit_code)


def did_you_mean(name: str, known: Iterable[str], question: str, otherwise: str = "") -> str:
    """
    A question for the nearest known name.

    Args:
        name (`str`):
            What was written.
        known (`Iterable[str]`):
            What could have been.
        question (`str`):
            What to ask, with `{}` for the name.
        otherwise (`str`, *optional*, defaults to `""`):
            What to say where none is near.

    Returns:
        `str`: The question, or `otherwise`.
    """
    in_lower_case = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), in_lower_case, n=1)
    return question.format(in_lower_case[close[0]]) if close else otherwise
