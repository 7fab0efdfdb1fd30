"""Where recipes lie, and where runs go."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from .messages import did_you_mean


CONFIG = "quickstart.yaml"
"""The quick start's recipe."""
PACKAGE = Path(__file__).parents[1]
MODEL = PACKAGE / "assets" / "tiny_qwen3"
"""The embedded model."""
DATA_FILES = (".jsonl", ".json", ".parquet")
"""How names of files with data end, and ids of the Hub do not."""


def recipe_root() -> Path:
    """
    Folder that holds `recipes/` and `accelerate_configs/`: the repository, or the package where it was installed from
    a wheel.

    Returns:
        `Path`: The folder.

    Raises:
        `ValueError`: If there is neither.
    """
    for folder in (PACKAGE, PACKAGE.parent):
        if (folder / "recipes" / CONFIG).is_file():
            return folder
    raise ValueError(f"recipes/{CONFIG} is neither in {PACKAGE.parent} nor in {PACKAGE}. Install longact-trl again.")


def free_folder(output_dir: str | Path) -> Path:
    """`output_dir`, or the first of `output_dir-2`, `-3`, … that does not exist: no run overwrites an earlier one."""
    folder, number = Path(output_dir), 1
    while folder.exists():
        number += 1
        folder = Path(f"{output_dir}-{number}")
    return folder


@contextmanager
def new_folder(output_dir: str | Path) -> Iterator[Path]:
    """[`free_folder`], made at once: what is started at the same time takes another. Gone if it stays empty."""
    while True:
        folder = free_folder(output_dir)
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # another process was faster
            continue
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something
            for path in made:
                path.rmdir()


def output_folder(output: Path | None, command: str, model: str) -> AbstractContextManager[Path]:
    """Where a command writes what it found of a model: `output`, or a folder that no earlier one has used."""
    return nullcontext(output) if output else new_folder(Path("runs", command, Path(model).name))


def relative(path: Path) -> str:
    """A path below the working directory as one would type it, any other one in full."""
    path, here = path.resolve(), Path.cwd().resolve()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)


def check_here(name: str, value: str) -> None:
    """
    Check that what can only be meant as a path is there: no id of the Hub begins like one, or has two slashes.

    Args:
        name (`str`):
            Field, for the message.
        value (`str`):
            Path or Hub id.

    Raises:
        `ValueError`: If it is a path, and nothing lies there.
    """
    is_path = value.startswith(("/", ".", "~")) or value.rstrip("/").count("/") > 1 or value.endswith(DATA_FILES)
    if is_path and not Path(value).exists():
        where = f" in {Path.cwd()}" if not Path(value).is_absolute() else ""
        above = Path(value).parent
        beside = [str(above / other.name) for other in above.iterdir()] if above.is_dir() else []
        hint = did_you_mean(str(Path(value)), beside, " Did you mean {!r}?")
        raise ValueError(
            f"`{name}`: there is no {value!r}{where}.{hint} Write the path of what is there, or a Hub id."
        )


def check_folders(folders: list[str]) -> None:
    """Check that folders are there; raises `ValueError` for one that is not."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"There is no folder {folder!r} in {Path.cwd()}.")


def recipe_configs(recipe_dir: str | Path) -> list[str]:
    """Names of the YAML files beside a recipe, as `--config` takes them."""
    return sorted(path.relative_to(recipe_dir).as_posix() for path in Path(recipe_dir).rglob("*.yaml"))
