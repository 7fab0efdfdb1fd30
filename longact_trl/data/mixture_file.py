"""What a mixture's YAML may say, as far as that is known before any of its loaders is loaded."""

from typing import Any

from ..settings.messages import did_you_mean


LOADER_NAMES = ("docqa", "memagent", "synthetic", "tiny_tasks")


def check_mixture(mixture: dict[str, Any]) -> None:
    """
    Check a mixture's seed, and which loaders it names and how many rows of each.

    Args:
        mixture (`dict`):
            Content of the file.

    Raises:
        `ValueError`: For the first mistake.
    """
    if set(mixture) != {"seed", "sources"} or not mixture["sources"] or not isinstance(mixture["sources"], list):
        raise ValueError(f"a mixture must have `seed` and a list of `sources`, but is {mixture!r}")
    seed = mixture["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"the mixture's seed must be an integer from 0 on, but is {seed!r}")
    for source in mixture["sources"]:
        _check_source(source)


def _check_source(source: Any) -> None:
    loader = source.get("loader") if isinstance(source, dict) else source
    if not isinstance(source, dict) or not isinstance(loader, str) or loader not in LOADER_NAMES:
        hint = did_you_mean(str(loader), LOADER_NAMES, ". Did you mean {}?")
        raise ValueError(f"a source's loader must be one of {', '.join(LOADER_NAMES)}, but is {loader!r}{hint}")
    num_rows = source.get("num_rows")
    if num_rows is not None and (isinstance(num_rows, bool) or not isinstance(num_rows, int) or num_rows < 1):
        raise ValueError(f"num_rows of source {loader!r} must be a whole number from 1 on, but is {num_rows!r}")
