"""Files that others read while they are written, and that a kill must not cut off."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    Context for writing a file beside `path`, which is renamed at the end: whoever reads finds the old one or the new
    one, also after a kill, and of two processes that write it at once the last one's stays.

    Args:
        path (`str` or `Path`):
            File; folders above it are made.

    Returns:
        `Path`: What to write, with the same suffix. Where an error ends the context, it is gone and `path` is as it
        was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".writing-{secrets.token_hex(4)}-{path.name}")  # another one than any other process's
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """
    Write a text in UTF-8 as [`whole_file`] does.

    Args:
        path (`str` or `Path`):
            File; folders above it are made.
        text (`str`):
            What it holds.
    """
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write a JSON file as [`write_whole`] does; what JSON has no word for is written as its `str`."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
