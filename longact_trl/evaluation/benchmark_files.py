"""The rows of a benchmark's published files, as they are or with a message that says what is wrong with them."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from datasets.exceptions import DatasetsError

from ..data.source import read_source


def read_rows(
    setting: str, source: str, file: str, num_samples: int | None, fields: Sequence[str], one_file: bool = True
) -> Dataset:
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
        fields (`Sequence[str]`):
            What each row must have.
        one_file (`bool`, *optional*, defaults to `True`):
            Whether other files beside this one belong to other tasks, so that none may stand in for it.

    Raises:
        `ValueError`: If the source cannot be read, or its rows are something else.
    """
    path = Path(source).expanduser()
    if (path / file).is_file():
        path = path / file
    elif path.exists() and path.name != file and (one_file or not (path.is_file() or any(path.rglob("*.parquet")))):
        raise ValueError(f"{setting}: {source!r} is no folder with {file}.")
    try:
        rows = read_source(str(path) if path.exists() else source, "train", None if path.exists() else file)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"{setting}: {source!r} can neither be read here nor reached on the Hub. Download {file} from the Hub "
            f"where there is a network, and give its folder as `{setting}`. ({error})"
        ) from error
    if missing := [name for name in fields if name not in rows.column_names]:
        raise ValueError(
            f"{setting}: the rows of {source!r} have no {', '.join(missing)}: is it the benchmark's {file}?"
        )
    return rows if num_samples is None else rows.select(range(min(num_samples, len(rows))))
