"""The rows of a benchmark's published files: read, checked one by one, and named by what they hold."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datasets.exceptions import DatasetsError

from ..data.files import find_files
from ..data.files import read_rows as read_files
from ..data.source import read_source
from ..rewards.answers import short_repr


class Kind(NamedTuple):
    """What a field must hold, as a test and in words."""

    holds: Callable[[object], bool]
    words: str


def one_of(*values: str) -> Kind:
    """One of these words."""
    return Kind(lambda value: value in values, f"one of {', '.join(values)}")


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and no tokenizer reads
        return False


TEXT = Kind(_is_text, "text")
TEXTS = Kind(lambda value: bool(value) and isinstance(value, list) and all(map(TEXT.holds, value)), "a list of texts")
TEXT_OR_TEXTS = Kind(lambda value: TEXT.holds(value) or TEXTS.holds(value), "text or a list of texts")
NAME = Kind(lambda value: TEXT.holds(value) or type(value) is int, "a name or a number")


def read_rows(
    setting: str,
    source: str,
    file: str,
    num_samples: int | None,
    fields: Mapping[str, Kind],
    one_file: bool = True,
    check: Callable[[Mapping], object] | None = None,
) -> Iterator[dict]:
    """
    Rows of a file of a Hub dataset, of a local file, or of that file in a local folder.

    Args:
        setting (`str`):
            Field of the configuration that names the source, for messages.
        source (`str`):
            Hub id or path.
        file (`str`):
            Name of the file.
        num_samples (`int`, *optional*):
            Take the first ones; `None` takes all.
        fields (`Mapping[str, Kind]`):
            What each row must hold.
        one_file (`bool`, *optional*, defaults to `True`):
            Whether other files beside this one belong to other tasks, so that none may stand in for it.
        check (`Callable[[Mapping], object]`, *optional*):
            Raises a `ValueError` for a row whose fields do not go together.

    Returns:
        `Iterator[dict]`: One row after the other, each checked when it is its turn.

    Raises:
        `ValueError`: If the source cannot be read, or a row is something else; names file, row and field.
    """
    of = f"{file} in {source!r}"
    position = -1
    for position, row in enumerate(islice(_rows(setting, source, file, one_file), num_samples)):
        if position == 0 and (missing := [name for name in fields if name not in row]):
            raise ValueError(
                f"{setting}: the rows of {source!r} have no {', '.join(missing)}: is it the benchmark's {file}?"
            )
        for name, kind in fields.items():
            if not kind.holds(row.get(name)):
                is_what = f"is {short_repr(row[name])}" if name in row else "is missing"
                raise ValueError(f"{setting}: row {position} of {of}: `{name}` must be {kind.words}, but {is_what}.")
        try:
            if check:
                check(row)
        except ValueError as error:
            raise ValueError(f"{setting}: row {position} of {of}: {error}.") from error
        yield row
    if position < 0:
        raise ValueError(f"{setting}: {source!r} has no rows: is it the benchmark's {file}?")


def content_of(items: Iterable[object]) -> str:
    """
    A name for what is read, wherever it lies: one changed letter gives another.

    Args:
        items (`Iterable`):
            Rows, texts or other things that JSON can hold.

    Returns:
        `str`: Digits of a SHA-256.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


def _rows(setting: str, source: str, file: str, one_file: bool) -> Iterator[dict]:
    path = Path(source).expanduser()
    if (path / file).is_file():
        path = path / file
    elif path.exists() and path.name != file and (one_file or not (path.is_file() or any(path.rglob("*.parquet")))):
        raise ValueError(f"{setting}: {source!r} is no folder with {file}.")
    try:
        # Files here as they stand: `datasets` takes texts for dates, one row's type for that of all, and what it read
        # before for what lies there now where the time of change is the same.
        files = find_files(str(path), "train")
        if files is None:
            yield from read_source(str(path) if path.exists() else source, "train", None if path.exists() else file)
        else:
            yield from read_files(files)
    except (OSError, ValueError, DatasetsError) as error:
        where = "can neither be read here nor reached on the Hub" if not path.exists() else "cannot be read"
        raise ValueError(
            f"{setting}: {source!r} {where}. Download {file} from the Hub where there is a network, and give its "
            f"folder as `{setting}`. ({error})"
        ) from error
