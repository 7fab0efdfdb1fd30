"""How a recipe reads its YAML: names resolved beside the recipe, a base file, overrides, no unknown keys."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import yaml
from trl import ModelConfig

from .arguments import Parser
from .messages import did_you_mean
from .paths import recipe_configs
from .value_types import fits, named_values, reads_text


def parse_recipe(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    recipe_dir: str | Path,
    other_options: Sequence[str] = (),
) -> tuple:
    """
    Parse `--config NAME.yaml --any_field value …` into dataclasses; the command line wins over the file.

    A bare `NAME.yaml` is looked up beside the recipe, and so is a path such as `paper/NAME.yaml` where the working
    directory has no such file. A file may name another one as `base`, or several of which later ones win, looked up
    beside it, whose keys it overrides.

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses to fill.
        argv (`Sequence[str]`):
            Command line without the program's name.
        recipe_dir (`str` or `Path`):
            Folder of the recipe.
        other_options (`Sequence[str]`, *optional*):
            Options that somebody else reads, for the hint at a typo.

    Returns:
        `tuple`: One instance of each dataclass.

    Raises:
        `ValueError`: If there is no such file, it has a key that no dataclass has or a value that its field cannot
            have, or a token is given.
    """
    argv = [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    parser = Parser(dataclass_types)
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 == len(argv):
            raise ValueError("`--config` needs a file, e.g. `--config qwen3_8b.yaml`.")
        path = find_config(argv[at + 1], recipe_dir)
        config = read_config(path)
        variables = config.pop("env", {})
        check_values(path, config, dataclass_types)
        if not isinstance(variables, dict):
            raise ValueError(f"{path}: `env` must hold `NAME: value` lines, got {variables!r}.")
        os.environ.update({str(key): str(value) for key, value in variables.items()})
        parser.set_defaults_with_config(**config)
        argv = argv[:at] + argv[at + 2 :]
    parser.check_names(argv, other_options)
    try:
        parsed = parser.parse_args_and_config(argv)
    except ValueError as error:  # TRL's or transformers' own checks; the message is theirs, the mistake the user's
        raise ValueError(str(error)) from error
    except Exception as error:  # what those trip over
        raise ValueError(f"The configuration cannot be used: {type(error).__name__}: {error}.") from error
    if any(getattr(args, "hub_token", None) for args in parsed):
        raise ValueError(
            "`hub_token` does not belong into a file or a command line, which end up in logs and training_args.bin. "
            "Set HF_TOKEN or run `hf auth login` instead."
        )
    return parsed


def check_values(path: Path, config: dict, dataclass_types: Sequence[type]) -> None:
    """
    Check that each key of a file is a field, and each value of a type that the field can have.

    Args:
        path (`Path`):
            The file, for messages.
        config (`dict`):
            What it says.
        dataclass_types (`Sequence[type]`):
            Dataclasses with the fields.

    Raises:
        `ValueError`: For the first key or value that cannot be.
    """
    fields = {name: field for cls in dataclass_types for name, field in cls.__dataclass_fields__.items()}
    hints = {name: hint for cls in dataclass_types for name, hint in get_type_hints(cls).items()}
    for key, value in config.items():
        if key not in fields:
            hint = did_you_mean(str(key), fields, "Did you mean `{}`?", "Remove it.")
            raise ValueError(f"{path} has an unknown key `{key}`. {hint}")
        is_default = value is None and fields[key].default is None
        # A text is converted as on the command line, which names what it cannot convert.
        if not (is_default or fits(value, hints[key]) or (isinstance(value, str) and reads_text(hints[key]))):
            name = getattr(hints[key], "__name__", str(hints[key])) if not get_args(hints[key]) else str(hints[key])
            raise ValueError(f"{path}: `{key}` cannot be {value!r}: it must be {name.replace('NoneType', 'None')}.")
        names = named_values(hints[key]) or list(fields[key].metadata.get("choices", ()))
        if isinstance(value, str) and names and value not in names:
            hint = did_you_mean(value, names, "Did you mean `{}`?", f"Write one of {', '.join(names)}.")
            raise ValueError(f"{path}: `{key}` cannot be {value!r}. {hint}")


def find_config(name: str, recipe_dir: str | Path) -> Path:
    """
    File behind a name given as `--config`.

    Args:
        name (`str`):
            A bare name, or a path, relative to the working directory or else to the recipe's.
        recipe_dir (`str` or `Path`):
            Folder of the recipe.

    Returns:
        `Path`: An existing file.

    Raises:
        `ValueError`: If there is none; lists the recipe's own files.
    """
    if "\0" in name:
        raise ValueError(f"There is no config {name!r}: no path holds a NUL.")
    path, beside = Path(name), Path(recipe_dir, name)
    if not os.path.dirname(name) or (beside.is_file() and not path.is_file() and not name.startswith(".")):
        path = beside
    if not path.is_file():
        own = recipe_configs(recipe_dir)
        stems = [config.removesuffix(".yaml") for config in own]
        hint = did_you_mean(name.removesuffix(".yaml"), stems, " Did you mean {}.yaml?")
        if Path(name).is_file():
            hint = f" A bare name is one of the recipe's: write `./{name}` for the file that is here."
        raise ValueError(f"There is no config {str(path)!r}.{hint} Give a path, or one of {', '.join(own)}.")
    return path


def read_config(path: Path, above: tuple[Path, ...] = ()) -> dict:
    """
    Read a YAML file on top of its `base`, one file or a list.

    Args:
        path (`Path`):
            YAML file.
        above (`tuple[Path, ...]`, *optional*):
            Files that have this one as their base.

    Returns:
        `dict`: Keys of all, later bases winning over earlier ones and the file's own over both.

    Raises:
        `ValueError`: If a file is no YAML mapping, or is its own base.
    """
    if path.resolve() in above:
        raise ValueError(f"{path} is its own `base`. Remove that line in one of the files.")
    try:
        config = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML in UTF-8: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold `key: value` lines, got {type(config).__name__}.")
    bases = config.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: `base` must name a file or a list of files, got {bases!r}.")
    merged: dict = {}
    for base in bases:
        merged |= read_config(find_config(f"{path.parent}/{base}", path.parent), (*above, path.resolve()))
    return merged | config


class _Loader(yaml.SafeLoader):
    """PyYAML's, which takes the last of two lines with one key without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"`{twice[0]}` stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def model_init_kwargs(model_args: ModelConfig, given: dict | None) -> dict:
    """
    What a trainer loads the model with.

    Args:
        model_args (`ModelConfig`):
            Revision, dtype and attention implementation.
        given (`dict`, *optional*):
            The trainer's own `model_init_kwargs`, which win.

    Returns:
        `dict`: Keyword arguments of `from_pretrained`.
    """
    names = {"revision": "model_revision", "dtype": "dtype", "attn_implementation": "attn_implementation"}
    return {**{key: getattr(model_args, name) for key, name in names.items()}, **(given or {})}
