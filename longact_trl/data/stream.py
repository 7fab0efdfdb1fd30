"""A uniform sample of a stream: rows of a source too large to keep, in one reading and little memory."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from datasets import Dataset, Features, Value

from .reading import named_errors
from .rows import code_hash, convert_or_name, keep_valid, logger, stamps_of, with_problem
from .source import source_rows


Row = TypeVar("Row")
SLOT = "slot"
"""Column of a row's place in the sample: the row that came last to a place has it."""


class NoSuchGroup(ValueError):
    """No row of the stream is of the group that was asked for."""


def stream_rows(
    convert_row: Callable[[dict], dict],
    features: Features,
    max_bad_share: float,
    max_rows: int,
    seed: int,
    group: str | None = None,
    group_of: Callable[[dict], str] = lambda row: "",
    **source: str | list[str] | None,
) -> Dataset:
    """
    [`~longact_trl.data.rows.convert_rows`] for a source too large to download: a sample of its stream in which each
    row is as likely as any other, wherever it stands. The stream is read once; rows that may yet be replaced are on
    disk.

    Args:
        convert_row, features, max_bad_share:
            As in [`~longact_trl.data.rows.convert_rows`].
        max_rows (`int`):
            Rows of the sample, good or bad; all of them where there are fewer.
        seed (`int`):
            Seed of the sample and of its order.
        group (`str`, *optional*):
            What `group_of` gives for the rows to sample from. Default all rows.
        group_of (`Callable`, *optional*):
            A module's own function from a row of the source to its group.
        **source:
            `source`, `split` and `data_files` of [`~longact_trl.data.source.read_source`].

    Raises:
        `ValueError`: If more than `max_bad_share` of the sample is bad, or no row is of the group.
    """
    arguments = {  # no lists: datasets would take them for shards
        "convert_row": convert_row,
        "columns": tuple(features),
        "code": code_hash(convert_row),
        "stamps": stamps_of(**source),
        "max_rows": max_rows,
        "seed": seed,
        "group": group,
        "group_of": group_of,
        "source": source,
    }
    with_slot = Features({**with_problem(features), SLOT: Value("int64")})
    try:
        with named_errors(source["source"], "rows"):
            seen = Dataset.from_generator(_generate, features=with_slot, gen_kwargs=arguments)
    except ValueError as error:
        if isinstance(reason := getattr(error.__cause__, "__cause__", None), NoSuchGroup):
            raise NoSuchGroup(str(reason)) from error
        raise
    last = {slot: index for index, slot in enumerate(seen[SLOT])}
    if len(last) < max_rows:
        logger.warning("%s: there are only %d of the %d rows asked for", source["source"], len(last), max_rows)
    order = [last[slot] for slot in sorted(last)]
    random.Random(seed).shuffle(order)  # the first rows of the stream took the first places
    return keep_valid(seen.select(order).remove_columns(SLOT), source["source"], max_bad_share)


def reservoir(rows: Iterable[Row], size: int, seed: int) -> Iterator[tuple[int, Row]]:
    """
    Places for a uniform sample of rows (Vitter's algorithm R): when the last row has come, the rows that came last to
    each place are the sample.

    Args:
        rows (`Iterable`):
            Rows one by one.
        size (`int`):
            Places.
        seed (`int`):
            Seed of the sample.

    Yields:
        `tuple[int, Row]`: A place from 0 to `size - 1`, and the row that takes it. About `size · (1 + ln(n / size))`
            of n rows take one.
    """
    rng = random.Random(seed)
    for number, row in enumerate(rows):
        place = number if number < size else rng.randrange(number + 1)
        if place < size:
            yield place, row


def _generate(convert_row, columns, code, stamps, max_rows, seed, group, group_of, source) -> Iterator[dict]:
    groups = Counter()

    def of_the_group() -> Iterator[dict]:
        for row in source_rows(**source):
            found = group_of(row)
            groups[found] += 1
            if group is None or found == group:
                yield row

    for slot, row in reservoir(of_the_group(), max_rows, seed):
        yield {**convert_or_name(row, convert_row, columns, code), SLOT: slot}
    if groups and group is not None and not groups[group]:
        found = ", ".join(f"{name} ({count})" for name, count in groups.most_common())
        raise NoSuchGroup(f"{source['source']!r} has no row of {group!r}: there are {found}")
