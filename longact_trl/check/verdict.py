"""What a check says: pass, warn, fail, or that it could not be made here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps


PASS, WARN, FAIL, UNKNOWN = "pass", "warn", "fail", "could not check"


class Caution(str):
    """What a check returns when the run works, and the user should know something."""


class CannotCheck(Exception):
    """What a check raises when this machine cannot tell; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """
    One line of the report.

    Args:
        check (`str`):
            What was checked.
        status (`str`):
            `"pass"`, `"warn"`, `"fail"` or `"could not check"`.
        text (`str`):
            What was found, and for a failure what to write instead.
    """

    check: str
    status: str
    text: str


def verdict_of(check: str, function: Callable[[], str]) -> Verdict:
    """
    Turn what a check does into a verdict: it returns what it found, or raises what is wrong.

    Args:
        check (`str`):
            Its name.
        function (`Callable`):
            Returns a text, or a [`Caution`] to warn; raises `ValueError` to fail and [`CannotCheck`].

    Returns:
        `Verdict`: The verdict.
    """
    try:
        text = function()
    except CannotCheck as reason:
        return Verdict(check, UNKNOWN, str(reason))
    except ValueError as error:
        return Verdict(check, FAIL, str(error))
    return Verdict(check, WARN if isinstance(text, Caution) else PASS, text)


def once(read: Callable) -> property:
    """A property read once. Whoever asks first sees why it cannot be read, later ones that it could not."""

    @wraps(read)
    def get(self):
        if read.__name__ not in self.known:
            self.known[read.__name__] = None
            self.known[read.__name__] = (read(self),)
        if self.known[read.__name__] is None:
            raise CannotCheck(f"needs the {read.__name__.replace('_', ' ')}, see above")
        return self.known[read.__name__][0]

    return property(get)
