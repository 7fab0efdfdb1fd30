"""What `longact inspect` and `longact perturb` are told, judged before torch or a model is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..method.sparsity import check_sparsity_ratio
from ..settings.paths import check_here


KINDS = ("q", "k", "v")


def check_options(
    model: str,
    sparsity_ratio: float,
    kinds: str,
    layers: str | None = None,
    lengths: Sequence[str | None] = (),
    files: Sequence[Path] = (),
) -> None:
    """
    Check options by themselves.

    Args:
        model (`str`):
            Folder or Hub id.
        sparsity_ratio (`float`):
            λ.
        kinds (`str`):
            Some of `q,k,v`.
        layers (`str`, *optional*):
            Numbers and ranges, e.g. `"0,5,10-12"`.
        lengths (`Sequence[str | None]`, *optional*):
            Numbers of tokens as people write them.
        files (`Sequence[Path]`, *optional*):
            Texts to read.

    Raises:
        `ValueError`: For the first that cannot be meant.
    """
    check_here("MODEL", model)
    check_sparsity_ratio(sparsity_ratio)
    check_kinds(kinds.split(","))
    parse_layers(layers)
    for length in lengths:
        if length is not None:
            parse_length(length)
    for file in files:
        if not file.is_file():
            raise ValueError(f"Cannot read {str(file)!r} as UTF-8 text: there is no such file.")


def refuse(options: Mapping[str, object], reason: str) -> None:
    """`ValueError` for the first of these options that was given (is true), with the reason."""
    for name, given in options.items():
        if given:
            raise ValueError(f"{name} {reason}. Leave it out.")


def check_kinds(kinds: Sequence[str]) -> None:
    """`ValueError` unless these are some of q, k and v."""
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"Unknown projections {','.join(kinds)!r}. Write some of {','.join(KINDS)}.")


def parse_layers(layers: str | None) -> dict[str, range] | None:
    """
    Numbers of layers as people write them.

    Args:
        layers (`str`, *optional*):
            Numbers and ranges, e.g. `"0,5,10-12"`.

    Returns:
        `dict[str, range]` or `None`: Each part and the layers it means; `None` where none are named.

    Raises:
        `ValueError`: If they cannot be read.
    """
    if layers is None:
        return None
    found = {}
    for part in layers.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"Cannot read layers {layers!r}. Write numbers and ranges, as in 0,5,10-12.")
        found[part.strip()] = range(int(first), int(last or first) + 1)
    return found


def parse_length(length: str) -> int:
    """
    A number of tokens as people write it.

    Args:
        length (`str`):
            `"4096"`, `"4k"` (1k is 1,024).

    Returns:
        `int`

    Raises:
        `ValueError`: If it is none.
    """
    number = length.lower().removesuffix("k")
    if not number.isdigit() or int(number) == 0:
        raise ValueError(f"Cannot read a length from {length!r}. Write tokens: 4096, or 4k.")
    return int(number) * (1024 if length.lower().endswith("k") else 1)
