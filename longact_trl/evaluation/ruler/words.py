"""Words for needles and word lists: wonderwords' nouns, adjectives and verbs, read as RULER reads them."""

from functools import cache
from importlib import resources


@cache
def wonderwords(kind: str) -> tuple[str, ...]:
    """
    All different words of `kind` (`"noun"`, `"adjective"` or `"verb"`), sorted.

    Raises:
        `ImportError`: Without the package; says how to install it.
    """
    try:
        text = resources.files("wonderwords.assets").joinpath(f"{kind}list.txt").read_text(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise ImportError('RULER draws its words from wonderwords: pip install "longact-trl[eval]"') from error
    return tuple(sorted({line.rstrip() for line in text.splitlines()}))


@cache
def all_words() -> tuple[str, ...]:
    """Nouns, adjectives and verbs together: 8,166 with wonderwords 3.0.1."""
    return tuple(sorted({*wonderwords("noun"), *wonderwords("adjective"), *wonderwords("verb")}))
