"""What is wrong with a study's file, said before anything of it runs."""

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from ..evaluation.config import EvaluationConfig
from ..settings.paths import recipe_root
from ..settings.recipe_yaml import find_config, parse_recipe
from ..training.command_line import COLD_START, GRPO, read_fields


OF_A_RUN = {
    "train": ("seed", "output_dir", "resume_from_checkpoint"),
    "evaluate": ("model", "output_dir", "label"),
}
"""What the study itself gives each run."""
RECIPES = {"grpo_longact.py": GRPO, "sft_cold_start.py": COLD_START}
PUNCTUATION = " _.+=-"
LONGEST = 100


def check_name(name: object) -> None:
    """`ValueError` unless an arm's name is one of a folder, on every system, and stands in a table and a command."""
    if not isinstance(name, str):
        raise ValueError(f"An arm is called {name!r}, which YAML does not read as a text. Write it in quotes.")
    known = all(c.isalnum() or unicodedata.category(c)[0] == "M" or c in PUNCTUATION for c in name)
    if not name or not known or len(name) > LONGEST or name[0] in ".- " or name[-1] in ". ":
        raise ValueError(
            f"An arm cannot be called {name!r}, which names a folder. Write letters, digits, spaces and any of "
            f"{PUNCTUATION.strip()}, at most {LONGEST}, beginning with a letter or a digit."
        )


def check_seeds(seeds: object) -> None:
    """`ValueError` unless they are different whole numbers that a generator of random numbers takes."""
    known = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not known or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(
            f"`seeds` must be whole numbers, none of them negative and none of them twice, got {seeds!r}. Write how "
            "many, as in 5 for 0 to 4, or a list, as in [42, 43, 44]."
        )


def check_texts(of: str, settings: Mapping, names: tuple[str, ...]) -> None:
    """`ValueError` unless each is a text."""
    for name in names:
        if name in settings and not isinstance(settings[name], str):
            raise ValueError(f"`{name}` of {of} must be a text, got {settings[name]!r}.")


def check_decided(of: str, settings: Mapping, part: str) -> None:
    """`ValueError` for what the study decides."""
    if given := [name for name in OF_A_RUN[part] if name in settings]:
        raise ValueError(f"`{given[0]}` is what the study gives each of its runs: remove it from {of}.")


def check_training(of: str, settings: Mapping) -> None:
    """
    Check fields and values of an arm as its recipe will: the first arm may train for a day before the second is tried.

    Args:
        of (`str`):
            Whose they are, for the message.
        settings (`Mapping`):
            All that is told to the training, with `recipe`, `config` and `accelerate_config`.

    Raises:
        `ValueError`: For the first mistake.
    """
    check_texts(of, settings, ("recipe", "config", "accelerate_config"))
    others = {name: value for name, value in settings.items() if name not in ("recipe", "accelerate_config")}
    recipes = recipe_root() / "recipes"
    if not (recipes / settings["recipe"]).is_file():
        raise ValueError(f"There is no recipe {settings['recipe']!r}. Write {' or '.join(RECIPES)}.")
    with _named(of):
        find_config(settings["accelerate_config"], recipe_root() / "accelerate_configs")
        find_config(settings["config"], recipes)
        if settings["recipe"] in RECIPES:
            with suppress(LookupError):  # another TRL has moved its classes; the recipe finds them
                read_fields(RECIPES[settings["recipe"]], as_options(others), recipes)


def check_evaluation(settings: Mapping) -> None:
    """`ValueError` for what `recipes/evaluate.py` would not take."""
    with _named("`evaluate`"):
        parse_recipe((EvaluationConfig,), as_options({**settings, "model": "of a run"}), recipe_root() / "recipes")


def as_options(arguments: Mapping) -> list[str]:
    """`--name value`, as the recipes read them."""
    options = []
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        options += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return options


@contextmanager
def _named(of: str) -> Iterator[None]:
    """Say of whom an error is. Variables that a configuration sets are those of its own run."""
    variables = dict(os.environ)
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{of}: {error}") from error
    finally:
        os.environ.clear()
        os.environ.update(variables)
