"""Files that others read while they are written, and that a kill must not cut off."""

import json
import os
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """
    Write a file beside `path` and rename it: whoever reads it finds the old one or the new one, also after a kill.

    Args:
        path (`str` or `Path`):
            File; folders above it are made.
        text (`str`):
            What it holds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.writing")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: str | Path, content: object) -> None:
    """Write a JSON file as [`write_whole`] does; what JSON has no word for is written as its `str`."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
