"""Rows of files as they stand there, and one schema that holds them all."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features

from .files import ROWS_AT_A_TIME, read_rows, stamp_of


TEXT, TEXTS = pa.string(), pa.list_(pa.string())


def read_files(files: list[str], check_row: Callable[[dict], dict], code: str) -> Dataset:
    """
    Read files whose rows may have a field of several types, or a field that others do not have.

    `datasets` gives the rows of all files the types of the first, stops where another's differ, and makes a time of a
    text in JSON that looks like one.

    Args:
        files (`list[str]`):
            As in [`~longact_trl.data.files.read_rows`].
        check_row (`Callable`):
            A module's own function from a row as it stands there to the row that is kept.
        code (`str`):
            Hash of its code, which only marks the cache entry.

    Returns:
        `Dataset`: A field that is null in some rows has the type of the others. One of several types is text, which
            for what is none is JSON; where some are lists, lists of texts.

    Raises:
        `ValueError`: Names the file, and the line, that is not what its name says.
    """
    types: dict[str, pa.DataType] = {}
    unread = map(check_row, read_rows(files))
    while rows := list(islice(unread, ROWS_AT_A_TIME)):
        for name in dict.fromkeys(name for row in rows for name in row):
            found = _type_of([row.get(name) for row in rows])
            types[name] = _common(types[name], found) if name in types else found
    stamps = [stamp_of(file) for file in files]  # an edited file is read again
    arguments = {"files": files, "stamps": stamps}
    for kind, type_ in (("texts", TEXT), ("lists", TEXTS)):
        arguments[kind] = [name for name, found in types.items() if found == type_]
    return Dataset.from_generator(
        _rows,
        features=Features.from_arrow_schema(pa.schema(list(types.items()))),
        gen_kwargs={
            "check_row": check_row,
            "code": code,
            **{name: tuple(value) for name, value in arguments.items()},  # datasets would take lists for shards
        },
        writer_batch_size=ROWS_AT_A_TIME,
    )


def _rows(check_row: Callable, code: str, files: tuple, stamps: tuple, texts: tuple, lists: tuple) -> Iterator[dict]:
    for row in map(check_row, read_rows(list(files))):
        row |= {name: _text(row.get(name)) for name in texts}
        row |= {name: _texts(row.get(name)) for name in lists}
        yield row


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return json.dumps(value, ensure_ascii=False, default=str)


def _texts(value: Any) -> list[str | None] | None:
    return None if value is None else list(map(_text, value if isinstance(value, list) else [value]))


def _type_of(values: list) -> pa.DataType:
    kinds = {type(value) for value in values}
    if not {int, float} <= kinds:  # else 3 stays 3
        try:
            return pa.array(values).type
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    return TEXTS if list in kinds else TEXT


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if {one, other} == {pa.int64(), pa.float64()}:
        return TEXT
    try:
        return (
            pa.unify_schemas([pa.schema([("", t)]) for t in (one, other)], promote_options="permissive").field(0).type
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return TEXTS if pa.types.is_list(one) or pa.types.is_list(other) else TEXT
