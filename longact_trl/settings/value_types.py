"""Whether a value that was read from YAML is of the type that a field or an argument has."""

import math
from enum import Enum
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def fits(value: Any, hint: Any) -> bool:
    """
    Whether a value read from YAML is of a type.

    Args:
        value (`Any`):
            The value.
        hint (`Any`):
            A type, or a union, `Literal`, `list` or `dict` of types. A number must be finite.

    Returns:
        `bool`
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin in (list, tuple):
        whole = origin is list or len(parts) == len(value if isinstance(value, list) else ())
        return isinstance(value, list) and whole and all(fits(item, parts[0]) for item in value)
    if hint in (float, int):  # `True` is an `int` to Python
        kind = Real if hint is float else Integral
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    return not isinstance(origin or hint, type) or isinstance(value, origin or hint)


def reads_text(hint: Any) -> bool:
    """Whether argparse makes something of a text for a field of this type."""
    return all(get_origin(part) is None or get_args(part)[0] is str for part in get_args(hint) or (hint,))


def named_values(hint: Any) -> list[str]:
    """The texts that a field of this type can have, where an enumeration or a `Literal` lists them; else none."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    named = [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]
    literal = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    return [str(member.value) for part in named for member in part] + [v for v in literal if isinstance(v, str)]
