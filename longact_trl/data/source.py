"""A source as it is: files on this machine, or a dataset of the Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from pyarrow import ArrowException


MAX_PARTICULARS = 120
"""Characters that a message quotes of what is wrong."""
_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def read_source(
    source: str, split: str, data_files: str | list[str] | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """
    Read a source as it is: a `.jsonl`, `.json` or `.parquet` file, a folder of such files, or a dataset of the Hub.

    Args:
        source (`str`):
            Path or Hub id.
        split (`str`):
            Split of a Hub dataset. Local files, and those named in `data_files`, are one split whatever its name.
        data_files (`str` or `list[str]`, *optional*):
            Files of the Hub dataset or of the folder to read; default all.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether rows come one by one instead of being downloaded first.

    Raises:
        `ValueError`: If `source` is written like a path and nothing is there, a folder has no file to read, or a file
            is not what its name says.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix in _BUILDERS:
        return _load_files(source, path.suffix, [str(path)], streaming)
    if path.is_dir():
        patterns = (
            [data_files] if isinstance(data_files, str) else data_files or [f"*{suffix}" for suffix in _BUILDERS]
        )
        files = sorted(str(file) for pattern in patterns for file in path.glob(pattern))
        suffixes = {Path(file).suffix for file in files}
        if len(suffixes) != 1 or not suffixes <= set(_BUILDERS):
            raise ValueError(
                f"{source!r} must hold files of one kind among {', '.join(_BUILDERS)}, but {patterns} finds "
                f"{sorted(suffixes) or 'none'}: name the files in data_files"
            )
        return _load_files(source, suffixes.pop(), files, streaming)
    if path.exists() or path.suffix in _BUILDERS or source.startswith((".", "/", "~")):
        raise ValueError(
            f"source {source!r} is no {', '.join(_BUILDERS)} file and no folder: correct the path, or give a Hub id "
            "such as 'Tongyi-Zhiwen/DocQA-RL-1.6K'"
        )
    split = split if data_files is None else "train"  # what load_dataset calls the one split of named files
    return load_dataset(source, data_files=data_files, split=split, streaming=streaming)


def _load_files(source: str, suffix: str, files: list[str], streaming: bool) -> Dataset | IterableDataset:
    with named_errors(source, suffix):
        return load_dataset(_BUILDERS[suffix], data_files=files, split="train", streaming=streaming)


@contextmanager
def named_errors(source: str, kind: str) -> Iterator[None]:
    """
    Turn what `datasets` and Arrow raise for unreadable data into an error that names the source.

    Args:
        source (`str`):
            Path or Hub id that is read inside the context.
        kind (`str`):
            What it should hold, for the message.

    Raises:
        `ValueError`: Names the source and the reason. A Hub that cannot be reached stays the `OSError` that it is.
    """
    try:
        yield
    except (DatasetGenerationError, ArrowException, ValueError, TypeError, AttributeError, StopIteration) as error:
        reason = error.__cause__ or error
        if isinstance(reason, OSError):  # the Hub cannot be reached, or a file cannot
            raise
        raise ValueError(
            f"{source!r} cannot be read as {kind}: {type(reason).__name__}: {str(reason)[:MAX_PARTICULARS]}. Each "
            "row must be an object with the same keys and types."
        ) from error
