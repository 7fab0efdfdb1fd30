"""What a user reads: a mistake as one message, and nothing that nobody can act on."""

import difflib
import sys
import traceback
from collections.abc import Iterable, Iterator, Set
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
            What could have been; of several that begin with `name`, the first is meant.
        question (`str`):
            What to ask, with `{}` for the name.
        otherwise (`str`, *optional*, defaults to `""`):
            What to say where none is near.

    Returns:
        `str`: The question, or `otherwise`.
    """
    known = sorted(known) if isinstance(known, Set) else known
    name, in_lower_case = name.lower(), {other.lower(): other for other in known}
    close = difflib.get_close_matches(name, in_lower_case, n=1)
    if len(name) > 2 and not (close and close[0].startswith(name)):
        # What was cut short: for `adamw` the first of its kind, `adamw_torch`, and not `grokadamw`.
        close = [other for other in in_lower_case if other.startswith(name)] or close
    return question.format(in_lower_case[close[0]]) if close else otherwise
