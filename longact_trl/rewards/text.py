"""What typography adds to an answer, taken off: quotes, apostrophes, dashes, code fences and LaTeX around a value."""

import html
import re
import unicodedata
from functools import cache

from .currencies import COUNTRIES, NAMES, SYMBOLS, unglued


APOSTROPHES = "'‘’‚‛ʻʼʽʾʿˈˊˋʹ′‵´`՚׳ꞌ＇｀᾽᾿῾΄ߴߵ"
"""What keyboards, editors and languages write where ASCII has `'`."""
DASHES = "‐‑‒–—―⁃−⁻₋˗﹘﹣－➖֊᠆⸺⸻︱︲"
"""What PDFs and spreadsheets write where ASCII has `-`."""
PERCENT_WORDS = (
    "per[ -]?cents?|pct|prozent|procent(?:en|y|a)?|prosent(?:tia)?|pour ?cents?|por ?cientos?|por ?cento|per ?cento"
    "|процент(?:а|ов)?|persen|phần trăm"
)
LATEX_WRAPPERS = "boxed|fbox|mbox|emph|underline|(?:text|math)(?:rm|bf|it|sf|tt)|text"
MAX_WRAPPINGS = 8
"""Quotes in fences in dollars: no answer has more, and each costs a pass over the text."""

_ASCII = str.maketrans(
    dict.fromkeys(APOSTROPHES, "'") | dict.fromkeys(DASHES, "-") | dict(zip("٫٬،؛٪❛❜", ".,,;%''", strict=True))
)
_ENTITY = re.compile("&(?:[a-z]{2,8}|#[0-9]{2,5}|#x[0-9a-f]{2,5});", re.IGNORECASE)
"""Tables from web pages hold AT&amp;T."""
_SOFT_MINUS = re.compile(rf"(?<!\w)\xad(?=[{SYMBOLS}]?\.?\d)")
_OF_CURRENCY = rf"(?:{'|'.join(sorted(COUNTRIES))})?[{SYMBOLS}]|(?:{'|'.join(sorted(NAMES))})\.? ?"
_SIGN = re.compile(rf"(?<!\w)-(?=(?:{_OF_CURRENCY})?\.?\d)")
_GAP = re.compile(
    rf"(?<=[{SYMBOLS}])\s+(?=\d)"
    r"|(?<=\d)\s+(?=(?:°|(?:[kcm]?m[23]?|[nμ]m|[kmμ]?g|[cm]?l|lbs?|oz|ft|mi|mph|[kmg]?hz|[kmgt]b|[kmg]wh?|[ap]\.?m)(?!\w)))"
)
"""Between an amount and its unit some write a space: $ 5, 5 km, 10 p.m."""
_PERCENT = re.compile(rf"(?<=\d)\s*(?:%|(?:{PERCENT_WORDS})\b(?! points?\b))")
_POINT = re.compile(r"(?<![^\W\d_])\.(?=\d)")
_KEPT_MINUS, _KEPT_POINT = "\x00", "\x01"
_INDIAN_GROUPS = re.compile(r"(?<![\d,])\d{1,2}(?:,\d\d)+,\d{3}(?![\d,])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FENCE = re.compile(r"```(?:[\w+-]*\n)?(.*)```", re.DOTALL)
_LATEX = re.compile(rf"\\(?:{LATEX_WRAPPERS})\s*\{{(.*)\}}", re.DOTALL)
_PAIRS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\{", r"\}"), ("**", "**"), ("__", "__"))
_QUOTES = frozenset('"“”„‟«»‹›「」『』《》〈〉【】〖〗⟨⟩⟪⟫〝〞〟❝❞*_ʺˮ″' + APOSTROPHES)


def as_typed(text: str) -> str:
    """
    The text as a plain keyboard writes it: Unicode's NFKC, ASCII `'` and `-`, no HTML entities.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`
    """
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return unicodedata.normalize("NFKC", _SOFT_MINUS.sub("-", text).translate(_ASCII))


def fold(text: str) -> str:
    """[`as_typed`], in lower case, with ASCII digits and nothing invisible."""
    plain = as_typed(text).casefold().replace("i\u0307", "i")  # İstanbul
    if plain.isascii():
        return plain
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in plain
        if unicodedata.category(char) != "Cf"  # a zero-width space, a mark of direction
    )


def unwrap(text: str) -> str:
    r"""
    What stands inside quotes, a code fence, `$…$`, `\(…\)`, `\boxed{…}` or emphasis around the whole text.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: Never blank unless `text` is.
    """
    text = text.strip()
    for _ in range(MAX_WRAPPINGS):
        inside = _inside(text).strip()
        if not inside or inside == text:
            break
        text = inside
    return text


def _inside(text: str) -> str:
    if (fenced := _FENCE.fullmatch(text)) and "```" not in fenced[1]:
        return fenced[1]
    if (latex := _LATEX.fullmatch(text.removesuffix("."))) and _is_balanced(latex[1]):
        return latex[1]
    for opening, closing in _PAIRS:
        inside = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and opening not in inside and closing not in inside:
            return inside
    return text[1:-1] if text[:1] in _QUOTES and text[-1:] in _QUOTES else text


def _is_balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


def without_groups(text: str) -> str:
    """Numbers without the commas of their digit groups: 1,234,567 and 12,34,567."""
    return _THOUSANDS.sub("", _INDIAN_GROUPS.sub(lambda number: number[0].replace(",", ""), text))


def is_cjk(char: str) -> bool:
    """Whether Chinese or Japanese is written with it, which has no spaces between words."""
    return "\u3040" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U0003ffff"


def words(text: str) -> list[str]:
    """
    Words to compare by: without case, articles, punctuation and accents of typography.

    Args:
        text (`str`):
            Any text.

    Returns:
        `list[str]`: None only if `text` is blank. Numbers keep sign and point; CJK splits by character.
    """
    plain = without_groups(fold(unwrap(text))).replace(_KEPT_MINUS, " ").replace(_KEPT_POINT, " ")
    plain = _PERCENT.sub("%", _GAP.sub("", unglued(plain)))
    plain = _POINT.sub(_KEPT_POINT, _SIGN.sub(_KEPT_MINUS, plain))
    table = {ord(char): _in_words(char) for char in set(plain)}
    found = plain.translate(table | {ord(_KEPT_MINUS): "-", ord(_KEPT_POINT): "."}).split()
    start = int(found[:1] in (["a"], ["an"]))
    return [word for word in found[start:] if word != "the"] or found or text.split()


@cache
def _in_words(char: str) -> str:
    if char in ".'":
        return ""  # U.S. is US, Schindler's is Schindlers
    if unicodedata.category(char)[0] in "PZC" and char not in "#%&@‰":
        return " "  # C# is not C, 5% is not 5; symbols such as + and $ are no punctuation
    return f" {char} " if is_cjk(char) else char
