"""Rows of files as they stand there, and one schema that holds them all."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Json

from .files import ROWS_AT_A_TIME, read_rows


MIXED = None
"""In place of a type: values of several, which `datasets` keeps as JSON and gives back as they were."""


def read_files(files: list[str]) -> Dataset:
    """
    Read files whose rows may have a field of several types, or a field that others do not have.

    `datasets` gives the rows of all files the types of the first, stops where another's differ, and makes a time of a
    text in JSON that looks like one.

    Args:
        files (`list[str]`):
            As in [`~longact_trl.data.files.read_rows`].

    Returns:
        `Dataset`: A field that is null in some rows has the type of the others; one of several types is
            [`~datasets.Json`].

    Raises:
        `ValueError`: Names the file, and the line, that is not what its name says.
    """
    types: dict[str, pa.DataType | None] = {}
    unread = read_rows(files)
    while rows := list(islice(unread, ROWS_AT_A_TIME)):
        for name in dict.fromkeys(name for row in rows for name in row):
            found = _type_of([row.get(name) for row in rows])
            types[name] = _common(types[name], found) if name in types else found
    typed = Features.from_arrow_schema(pa.schema([(n, t) for n, t in types.items() if t is not MIXED]))
    features = Features({name: typed.get(name, Json()) for name in types})
    stamps = [Path(file).stat().st_mtime_ns for file in files]  # an edited file is read again
    return Dataset.from_generator(
        _rows,
        features=features,
        gen_kwargs={"files": tuple(files), "stamps": tuple(stamps)},  # no lists: datasets would take them for shards
        writer_batch_size=ROWS_AT_A_TIME,
    )


def _rows(files: tuple[str, ...], stamps: tuple[int, ...]) -> Iterator[dict]:
    yield from read_rows(list(files))


def _type_of(values: list) -> pa.DataType | None:
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return MIXED


def _common(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    if MIXED in (one, other):
        return MIXED
    try:
        return (
            pa.unify_schemas([pa.schema([("", t)]) for t in (one, other)], promote_options="permissive").field(0).type
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return MIXED
