"""What a mixture's YAML may say, checked before any of its loaders is loaded."""

import os
from typing import Any

from ..settings.argument_classes import declared_parameters
from ..settings.messages import did_you_mean
from ..settings.paths import check_here
from ..settings.value_types import fits
from .synthetic_options import check_options


LOADERS = {
    "docqa": ("longact_trl.data.docqa", "load_docqa"),
    "memagent": ("longact_trl.data.memagent", "load_memagent"),
    "synthetic": ("longact_trl.data.synthetic", "load_synthetic"),
    "tiny_tasks": ("longact_trl.data.mixture", "load_tiny_tasks"),
}
"""Module and name of the function that loads or generates a source."""
OF_THE_RUN = {"tokenizer", "chat_template_kwargs"}
"""What a loader takes from the run and not from the mixture."""
SPLITS = {
    "docqa": ("train", "test"),
    "memagent": ("train", "validation"),
    "synthetic": ("train", "test"),
    "tiny_tasks": ("train", "test"),
}
"""Of what is generated, and on the Hub."""
NUMBERS = {"num_rows": 1, "num_prompts": 1, "seed": 0}
"""The least that each can be."""


def check_mixture(mixture: dict[str, Any]) -> None:
    """
    Check a mixture's seed, which loaders it names, what these are told, and that the files are there which it names.

    Args:
        mixture (`dict`):
            Content of the file.

    Raises:
        `ValueError`: For the first mistake.
    """
    if set(mixture) != {"seed", "sources"} or not mixture["sources"] or not isinstance(mixture["sources"], list):
        raise ValueError(f"a mixture must have `seed` and a list of `sources`, but is {mixture!r}")
    _check_number("the mixture's seed", mixture["seed"], 0)
    for source in mixture["sources"]:
        _check_source(source)


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "an integer from 0 on" if least == 0 else f"a whole number from {least} on"
        raise ValueError(f"{name} must be {kind}, but is {value!r}")


def _check_source(source: Any) -> None:
    loader = source.get("loader") if isinstance(source, dict) else source
    if not isinstance(source, dict) or not isinstance(loader, str) or loader not in LOADERS:
        hint = did_you_mean(str(loader), LOADERS, ". Did you mean {}?")
        raise ValueError(f"a source's loader must be one of {', '.join(LOADERS)}, but is {loader!r}{hint}")
    parameters = declared_parameters(*LOADERS[loader])
    known = sorted({"loader", "num_rows", *parameters} - OF_THE_RUN)
    for name in map(str, source):
        if name not in known:
            hint = did_you_mean(name, known, ". Did you mean {}?")
            raise ValueError(f"source {loader!r} has no option {name}: use {', '.join(known)}{hint}")
    if loader == "synthetic":
        if "tokens" not in source:
            raise ValueError("source 'synthetic' needs `tokens`: the length of every prompt, such as 16384")
        check_options(**{name: value for name, value in source.items() if name not in ("loader", "num_rows")})
    for name, least in NUMBERS.items():
        if source.get(name) is not None or (name in source and name in parameters):
            _check_number(f"{name} of source {loader!r}", source[name], least)
    for name, hint in parameters.items():
        if name in source and not fits(source[name], hint):
            kind = hint.__name__ if isinstance(hint, type) else hint
            raise ValueError(f"{name} of source {loader!r} must be {kind}, but is {source[name]!r}")
    if not 0 <= source.get("max_bad_share", 0) <= 1:
        raise ValueError(
            f"max_bad_share of source {loader!r} must be a share from 0 to 1 (0.01 for 1 %), but is "
            f"{source['max_bad_share']!r}"
        )
    for name in ("context_words", "num_needles"):
        least, most = source.get(name, (1, 1))
        if not 1 <= least <= most:
            raise ValueError(f"{name} of source {loader!r} must be the fewest and the most, but is {source[name]!r}")
    if "source" in source:
        check_here(f"source of {loader}", os.path.expanduser(source["source"]))
    elif "data_files" not in source and source.get("split", "train") not in SPLITS[loader]:
        hint = did_you_mean(source["split"], SPLITS[loader], ". Did you mean {}?")
        raise ValueError(
            f"split of source {loader!r} must be one of {', '.join(SPLITS[loader])}, but is {source['split']!r}{hint}"
        )
