"""Gold answers as sources hold them, in text, numbers, yes or no, or missing, as the texts that rewards compare."""

import math
from datetime import date, datetime, time
from decimal import Decimal

from ..rewards.answers import short_repr


class InvalidRow(ValueError):
    """A row that cannot be used. The message is the reason, and after a first `: ` what is particular to the row."""


# What pandas and spreadsheets write for "no value". An answer may well be "none" or "nil", not "None" or "NULL".
_MISSING = frozenset(
    "nan NaN NAN -nan -NaN None null NULL N/A n/a NA <NA> <na> NaT #N/A #NA #VALUE! #REF! #DIV/0! #NAME? #NUM! #NULL! "
    "1.#IND -1.#IND 1.#QNAN -1.#QNAN inf -inf Infinity -Infinity - -- --- – — −".split()
)


def sounds_missing(gold: str) -> bool:
    """
    Whether a text is what programs write for no value: `nan`, `None`, `N/A`, a lone dash, nothing.

    Args:
        gold (`str`):
            Gold answer.

    Returns:
        `bool`
    """
    return not gold.strip() or gold.strip() in _MISSING


def gold_texts(truth: object) -> list[str]:
    """
    The gold answers of a row as texts.

    Args:
        truth (`object`):
            One answer or a list of them: text, numbers, dates, or `True` and `False`, which become `yes` and `no`.

    Returns:
        `list[str]`: Without `None`, NaN, infinities and empty texts; with them alone, nothing.

    Raises:
        `InvalidRow`: For a gold answer of another type.
    """
    values = list(truth) if isinstance(truth, list | tuple) else [truth]
    return [text for text in map(_text, values) if text and text.strip()]


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():  # what tables make of an integer where another row has none
        value = int(value)
    if isinstance(value, datetime) and value.time() == time():  # what tables make of a date
        value = value.date()
    if isinstance(value, int | float | Decimal | date):
        return str(value)
    raise InvalidRow(f"a gold answer that is neither text nor a number: {short_repr(value)}")
