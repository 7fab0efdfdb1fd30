"""Files of a source on this machine: which of them are a split, and their rows as they stand there."""

import io
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import fsspec
from datasets import load_dataset_builder
from pyarrow import parquet

from .reading import Unreadable, named_errors


BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""Suffixes that are read, and what `datasets` calls their format."""
ROWS_AT_A_TIME = 100
"""Rows of a Parquet file held at once: a prompt may take a megabyte."""
_TRAIN = re.compile(r"(?:^|[-._ 0-9/])(?:train|training)(?:[-._ 0-9/]|$)")
# Names that `datasets` takes for no split ("testset", "TEST"), and that a user may well mean for one.
_HELD_OUT = re.compile(
    r"(?:^|[^a-z])(?:test\w{0,4}|eval\w*|valid\w*|val|dev|devset|h[eo]ld[\W_]?out|unseen)(?:[^a-z]|$)|测试|測試|验证|驗證"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SPLIT = re.compile("test|eval|valid(?:ation)?|val|dev")


def find_files(source: str, split: str, data_files: str | list[str] | None = None) -> list[str] | None:
    """
    The files of a source that are a split.

    A file is one split whatever its name, and so are the files named in `data_files`. A folder has the splits that
    `datasets` finds in it: by names such as `train.jsonl` or `test/rows.parquet`, by the shards of
    `data/train-00000-of-00001.parquet`, or by the `configs` of its README. Where nothing names a split, the files that
    lie in it are one split.

    Args:
        source (`str`):
            Path or Hub id.
        split (`str`):
            Split to find in a folder.
        data_files (`str` or `list[str]`, *optional*):
            Patterns of files in the folder, instead of the split's own.

    Returns:
        `list[str]`, or `None` where the source is neither a file nor a folder of files here.

    Raises:
        `ValueError`: If the folder has no such split, or one that shares a file with another, or no files of one kind
            that can be read.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix in BUILDERS:
        return [str(path)]
    if not path.is_dir() or is_saved(path):
        return None
    path = path.resolve()  # as datasets names the files in it
    if data_files is not None:
        patterns = [data_files] if isinstance(data_files, str) else data_files
        return _of_one_kind(source, _found(path, patterns), patterns)
    splits = _splits_of(source, path)
    both = {file for of, files in splits.items() for file in files if of != split} & set(splits.get(split, ()))
    if both and set(splits[split]) != both:
        raise ValueError(
            f"{source!r} has a file that `datasets` takes for a part of two splits, {Path(min(both)).name!r}: rename "
            "it or give one file as the source"
        )
    if split in splits and _are_named(path, splits):
        return _of_one_kind(source, splits[split], [split])
    if _are_named(path, splits):
        raise ValueError(
            f"{source!r} has no split {split!r} but {', '.join(map(repr, splits))}: choose one of them, or give one "
            "file as the source"
        )
    patterns = [f"*{suffix}" for suffix in BUILDERS]
    files = _found(path, patterns) or splits.get("train", [])
    names = {file: Path(file).relative_to(path).as_posix() for file in files}
    held_out = [file for file, name in names.items() if _sounds_held_out(name, names.values())]
    if held_out and len(held_out) < len(files):
        raise ValueError(
            f"{source!r} has files whose names sound held out, such as {Path(held_out[0]).name!r}, and others, but no "
            "splits by names that `datasets` knows (train, test): rename them or give one file as the source"
        )
    return _of_one_kind(source, files, patterns)


def _found(folder: Path, patterns: list[str]) -> list[str]:
    return sorted(str(file) for pattern in patterns for file in folder.glob(pattern) if not file.is_dir())


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _splits_of(source: str, folder: Path) -> dict[str, list[str]]:
    try:
        found = load_dataset_builder(str(folder)).config.data_files or {}
    except FileNotFoundError:  # nothing that datasets reads
        return {}
    except Exception as error:
        raise ValueError(
            f"the splits of the folder {source!r} cannot be told apart: {' '.join(str(error).split())}. Give one file "
            "as the source, or name the files in data_files"
        ) from error
    return {str(split): [str(file) for file in files] for split, files in found.items()}


def _are_named(folder: Path, splits: dict[str, list[str]]) -> bool:
    """Whether it is names that make the splits: `datasets` calls what nothing names `train`."""
    readme = folder / "README.md"
    return (
        bool(splits)
        and set(splits) != {"train"}
        or any(_TRAIN.search(Path(file).relative_to(folder).as_posix()) for file in splits.get("train", []))
        or (readme.is_file() and "data_files:" in readme.read_text(encoding="utf-8", errors="replace"))
    )


def _sounds_held_out(name: str, names: Collection[str]) -> bool:
    """Whether a file is called `myTest`, or `qatest` beside a `qatrain`."""
    return bool(_HELD_OUT.search(_CAMEL.sub("_", name).lower())) or any(
        name[: part.start()] + "train" + name[part.end() :] in names for part in _SPLIT.finditer(name)
    )


def _of_one_kind(source: str, files: list[str], patterns: list[str]) -> list[str]:
    suffixes = {Path(file).suffix for file in files}
    if len(suffixes) != 1 or not suffixes <= set(BUILDERS):
        raise ValueError(
            f"{source!r} must hold files of one kind among {', '.join(BUILDERS)}, but {patterns} finds "
            f"{sorted(suffixes) or 'none'}: name the files in data_files, or give one file as the source"
        )
    return files


def read_rows(files: list[str]) -> Iterator[dict]:
    """
    The rows of files, one by one, each with the fields and types that it has itself.

    `datasets` gives all rows the types of the first: a field that is null in one file and text in the next cannot be
    read, even where nobody wants it.

    Args:
        files (`list[str]`):
            Paths or URLs that `fsspec` opens, with a suffix of `BUILDERS`.

    Yields:
        `dict`: A row.

    Raises:
        `ValueError`: Names the file, and the line, that is not what its name says; or if there is no row.
    """
    is_empty = True
    for file in files:
        suffix = Path(file).suffix
        with named_errors(file, suffix), fsspec.open(file, "rb") as raw:
            for row in _parquet_rows(raw) if suffix == ".parquet" else _json_rows(raw):
                is_empty = False
                yield row
    if is_empty:
        raise Unreadable(f"there is no row in {', '.join(map(repr, files))}")


def _parquet_rows(raw: io.BufferedIOBase) -> Iterator[dict]:
    for batch in parquet.ParquetFile(raw).iter_batches(batch_size=ROWS_AT_A_TIME):
        yield from batch.to_pylist()


def _json_rows(raw: io.BufferedIOBase) -> Iterator[dict]:
    """Rows of a file of JSON lines, or of one JSON list."""
    text = io.TextIOWrapper(raw, encoding="utf-8-sig")
    is_first = True
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith("["):
            rows = _parsed(line + text.read(), number)
        else:
            rows = [_parsed(line, number)]
        for row in rows:
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: no object but {type(row).__name__}")
            yield row
        is_first = False


def _parsed(text: str, line: int) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {line}: {error}") from None  # whose message this is


def stamp_of(file: str) -> tuple[int, int, int]:
    """
    What of a file on this machine changes when it is edited: size, and times of its last change in nanoseconds, of
    which `cp --preserve`, archives and coarse clocks leave the first as it was.
    """
    stat = Path(file).stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
