"""A source as it is: files on this machine, or a dataset of the Hub."""

from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_dataset_builder, load_from_disk

from .files import BUILDERS, find_files, is_saved, read_rows
from .reading import named_errors


def read_source(
    source: str, split: str, data_files: str | list[str] | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """
    Read a source as it is: a `.jsonl`, `.json` or `.parquet` file, a folder of such files or of `save_to_disk`, or a
    dataset of the Hub.

    Args:
        source (`str`):
            Path or Hub id.
        split (`str`):
            Split of a Hub dataset or of a folder, see [`~longact_trl.data.files.find_files`]. A file, and those named
            in `data_files`, are one split whatever its name.
        data_files (`str` or `list[str]`, *optional*):
            Files of the Hub dataset or of the folder to read; default all.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether rows come one by one instead of being downloaded first.

    Raises:
        `ValueError`: If `source` is written like a path and nothing is there, a folder has no such split or
            no file to read, or a file is not what its name says.
    """
    path = Path(source).expanduser()
    if is_saved(path):
        with named_errors(source, "what save_to_disk writes"):
            saved = load_from_disk(str(path))
        if isinstance(saved, DatasetDict):
            if split not in saved:
                raise ValueError(f"{source!r} has no split {split!r} but {', '.join(map(repr, saved))}: choose one")
            saved = saved[split]
        return saved.to_iterable_dataset() if streaming else saved
    if (files := find_files(source, split, data_files)) is not None:
        suffix = Path(files[0]).suffix
        with named_errors(source, suffix):
            return load_dataset(BUILDERS[suffix], data_files=files, split="train", streaming=streaming)
    if path.exists() or path.suffix in BUILDERS or source.startswith((".", "/", "~")):
        raise ValueError(
            f"source {source!r} is no {', '.join(BUILDERS)} file and no folder: correct the path, or give a Hub id "
            "such as 'Tongyi-Zhiwen/DocQA-RL-1.6K'"
        )
    split = split if data_files is None else "train"  # what load_dataset calls the one split of named files
    return load_dataset(source, data_files=data_files, split=split, streaming=streaming)


def source_rows(source: str, split: str, data_files: str | list[str] | None = None) -> Iterable[dict]:
    """
    Rows of a source one by one, those of files each with its own fields and types.

    Args:
        source, split, data_files:
            As in [`read_source`].

    Returns:
        `Iterable[dict]`
    """
    files = find_files(source, split, data_files)
    if files is None and not Path(source).expanduser().exists():
        files = _files_of_the_hub(source, split, data_files)
    return read_source(source, split, data_files, streaming=True) if files is None else read_rows(files)


def _files_of_the_hub(source: str, split: str, data_files: str | list[str] | None) -> list[str] | None:
    """URLs of a split's files, where all are of one kind that is read here and the split is there."""
    builder = load_dataset_builder(source, data_files=data_files)
    found = (builder.config.data_files or {}).get("train" if data_files else split, ())
    suffixes = {Path(file).suffix for file in found}
    return [str(file) for file in found] if len(suffixes) == 1 and suffixes <= set(BUILDERS) else None
