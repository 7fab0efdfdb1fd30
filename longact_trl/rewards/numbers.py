"""The one number of an answer: signs, digit groups, currencies, percent and scales, as people write them."""

import re
import unicodedata
from typing import NamedTuple

from .chinese_numerals import joined, with_digits
from .currencies import CJK, is_currency, unglued
from .text import LATEX_WRAPPERS, PERCENT_WORDS, fold, is_cjk, unwrap


RELATIVE_TOLERANCE = 1.5e-3
"""DocMath-Eval's: its gold values are rounded, and rounding on the way to them moves the third digit."""
MAX_CARRIER_WORDS = 6
"""Words that may stand around an answer ("The answer is 5.")."""
# The only words that may. An open list would accept "not Paris", "Alice or Bob" and "Alice, Bob".
CARRIER_WORDS = frozenset(
    "a an answer are as at be by called correct final from he in is it its named of on she".split()
)
CARRIER_WORDS |= frozenset("that the they this was were 答 案 是 为 在".split())

_SCALES = {
    "hundred": 1e2,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "lakh": 1e5,
    "crore": 1e7,
}
_SCALES |= {f"{name}s": scale for name, scale in _SCALES.items()}
_SCALES |= {"mn": 1e6, "mln": 1e6, "mio": 1e6, "bn": 1e9, "mrd": 1e9, "tn": 1e12}
# 百万 and 万亿 are products.
_SCALES |= {"十": 1e1, "百": 1e2, "千": 1e3, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8}
_PERCENT = re.compile(
    rf"%|\b(?:{PERCENT_WORDS})\b(?: points?\b)?|\byüzde\b|\bpercentage points?\b"
    r"|个?百分[点之]|個?百分[點之]|パーセント|퍼센트"
)
_MINUS = re.compile(r"\b(?:minus|negative)\b|[负負]")
_LATEX = re.compile(rf"\\(?:{LATEX_WRAPPERS})\s*(?=\{{)|\\[()\[\],;!]")
_DIGITS = re.compile(
    r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?"
    r"|[1-9][0-9]{0,2}(?:(?: [0-9]{3})+|(?:'[0-9]{3})+)(?:\.[0-9]+)?(?![0-9])|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(e[+-]?[0-9]{1,3})?"
)
_POWER_OF_TEN = re.compile(
    r"(?<=[0-9]) ?(?:×|\*|[·⋅∙]|\\times|\\cdot|x) ?10 ?(?:\^|\*\*) ?(?:\{ ?([+-]?[0-9]{1,3}) ?\}|([+-]?[0-9]{1,3}))"
)
_TOKEN = re.compile(r"[^\W\d_\u3040-\u9fff\uf900-\ufaff]+|\S")
_NO_CENTS = re.compile(r"(?<=[0-9]) ?/[-=](?!\w)")  # Rs. 500/-, KSh 500/=
_BRACKETED_WORDS = re.compile(r"\(([^()0-9]+)\)")
_NEUTRAL = frozenset(".:,'\"“”„‟«»‹›「」『』《》〈〉【】⟨⟩*_[]{}。、ʺ″•·")
"""Punctuation that says nothing of the value, unlike brackets and dashes."""


class Number(NamedTuple):
    """
    A number as it was written.

    Args:
        value (`float` or `int`):
            With sign and scale, `%` not applied; `int` for a plain integer.
        has_percent (`bool`):
            Whether it is followed by a percent sign or word.
        is_integer (`bool`):
            Whether it is written as a plain integer, 2019 or 2019.0: the tolerance is not for what is counted.
        unit (`float`):
            What its last digit counts: 1 in 2019 and in 2.019 thousand, 0.1 in 4999.6.
        is_doubtful (`bool`):
            Whether the sign is written in a way that may mean something else: (5), 5- and "- 5" are -5 in accounts,
            and 5 in brackets, before a dash or after a bullet elsewhere.
    """

    value: float | int
    has_percent: bool
    is_integer: bool
    unit: float
    is_doubtful: bool


def read_number(text: str) -> Number | None:
    """
    The one number that a text consists of.

    Args:
        text (`str`):
            A number, maybe with a sign, a currency, `%`, a scale word or a carrier phrase.

    Returns:
        `Number` or `None`: `None` if there is no number, more than one, or anything else beside it.
    """
    if any(unicodedata.category(char) == "No" for char in text):
        return None  # NFKC would read 10² as 102
    folded = fold(unwrap(text))
    if not _DIGITS.search(folded) and not is_cjk(max(folded, default="")):
        return None
    plain = _LATEX.sub(" ", folded.replace("\\%", "%").replace("\\$", "$").replace("{,}", ",").replace("u.s.", "us"))
    plain = _MINUS.sub(" minus ", CJK.sub(" cny ", _PERCENT.sub(" % ", " ".join(plain.split()))))
    plain = _BRACKETED_WORDS.sub(_without_brackets, _NO_CENTS.sub("", unglued(plain)))
    plain = _POWER_OF_TEN.sub(r"e\1\2", joined(plain)) if _DIGITS.search(plain) else with_digits(plain)
    found = list(_DIGITS.finditer(plain))
    if len(found) != 1:
        return None
    [number] = found
    before, after = _before(plain[: number.start()]), _after(plain[number.end() :])
    if before is None or after is None or (before.percent and after.percent):
        return None
    digits = re.sub("[, ']", "", number[1])
    value = after.scale * float(digits + (number[2] or ""))
    if value == float("inf"):
        return None
    has_percent = before.percent or after.percent
    whole, _, decimals = digits.partition(".")
    is_integer = not decimals.strip("0") and not number[2] and not has_percent and after.scale == 1.0
    value = int(whole or 0) if is_integer else value
    unit = after.scale * float(f"1e{int((number[2] or 'e0')[1:]) - len(decimals)}")
    is_bracketed = before.opens or after.closes
    if before.sign and is_bracketed and before.is_sign_outside:
        return None  # -(5) may be -5 or 5
    is_doubtful = before.is_loose or after.is_negative or (is_bracketed and not before.sign)
    if before.sign and after.is_negative:
        return None
    return Number(-value if is_doubtful or before.sign == "-" else value, has_percent, is_integer, unit, is_doubtful)


def same_number(answer: Number, gold: Number) -> bool:
    """
    Whether an answer is the gold number, within `RELATIVE_TOLERANCE`. A gold that is a plain integer must be met
    exactly, or rounded to the last digit that is written.

    Args:
        answer (`Number`):
            What the model wrote. A doubtful sign is right only where the gold has one, too.
        gold (`Number`):
            Gold answer; a doubtful sign counts as a minus.

    Returns:
        `bool`
    """
    if answer.is_doubtful and not gold.is_doubtful:
        return False
    if answer.is_integer and gold.is_integer:
        return answer.value == gold.value  # a count, a year: 2019 is not 2020, which the tolerance would accept
    # Nor is it 2020.1, 2020e0, 2020% or 2.020 thousand. 2.02 thousand it is, rounded to its last digit.
    if gold.is_integer and abs(gold.value) > 1 and abs(answer.value - gold.value) > max(1, answer.unit) / 2:
        return False
    if answer.has_percent == gold.has_percent:
        return _is_close(answer.value, gold.value)
    # 25% is what 25 means where percent are asked for, and 0.25 where a fraction is. 2500% for 25 is a slip of scale.
    percent, bare = (answer.value, gold.value) if answer.has_percent else (gold.value, answer.value)
    return _is_close(percent, bare) or (abs(bare) <= 1 and _is_close(percent / 100, bare))


def _is_close(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= RELATIVE_TOLERANCE * abs(wanted)


class _Before(NamedTuple):
    sign: str
    is_loose: bool  # the minus does not touch what it belongs to
    is_sign_outside: bool
    opens: bool
    percent: bool


class _After(NamedTuple):
    scale: float
    percent: bool
    closes: bool
    is_negative: bool


def _before(text: str) -> _Before | None:
    """What stands before the digits: a carrier phrase, then sign, bracket and currency in any order."""
    tokens = [token for token in _TOKEN.finditer(text) if token[0] not in _NEUTRAL]
    signs, opens, percents, is_loose, is_outside = [], 0, 0, False, False
    start, following = len(text), ""
    while tokens:
        token = tokens[-1][0]
        if token in ("+", "-", "minus"):
            signs.append("+" if token == "+" else "-")
            is_loose |= token == "-" and text[tokens[-1].end() :][:1].isspace()
            is_outside |= opens > 0
        elif token == "(":
            opens += 1
        elif token == "%":
            percents += 1
        elif not is_currency(token, following):
            break
        start, following = tokens.pop().start(), token
    lead = [token[0] for token in tokens]
    is_glued = bool(lead) and tokens[-1].end() == start and not is_cjk(lead[-1])  # A5, x-5
    if is_glued or not CARRIER_WORDS.issuperset(lead) or len(lead) > MAX_CARRIER_WORDS:
        return None
    if len(signs) > 1 or opens > 1 or percents > 1:
        return None
    return _Before("".join(signs), is_loose, is_outside, opens > 0, percents > 0)


def _after(text: str) -> _After | None:
    """What stands behind the digits: percent or a scale, then a currency; a bracket or a minus of accounts."""
    tokens = [token for token in _TOKEN.findall(text) if token not in _NEUTRAL]
    closes, minuses, percents = tokens.count(")"), tokens.count("-"), tokens.count("%")
    tokens = [token for token in tokens if token not in (")", "-", "%")]
    scale = 1.0
    while tokens and tokens[0] in _SCALES:
        scale *= _SCALES[tokens.pop(0)]
    if not all(map(is_currency, tokens, [*tokens[1:], ""])):
        return None
    if max(closes, minuses, percents) > 1 or (percents and scale > 1.0):
        return None
    return _After(scale, percents > 0, closes > 0, minuses > 0)


def _without_brackets(unit: re.Match) -> str:
    """(USD) 5 and 5 (million) hold a unit in brackets, unlike accounts, which hold a number in them."""
    parsed = _after(unit[1])
    return unit[0] if parsed is None or parsed.is_negative else f" {unit[1]} "
