"""When an answer is right: one rule for each kind of answer, strict where a policy would find a loophole.

An answer that would need judgement ("Paris or London", "not 5") is wrong: in RL a false positive is found and
exploited, a false negative only teaches the policy to answer plainly. Work is linear in the text and never `eval`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable


# DocMath-Eval's tolerance: its gold values are rounded, and rounding on the way to them moves the third digit.
RELATIVE_TOLERANCE = 1.5e-3
# An answer longer than twice its gold and this many characters (a polite sentence) more is wrong unread.
MAX_SURPLUS_CHARS = 200
# A gold answer may stand in a short carrier phrase ("The answer is Paris.") of at most this many words.
MAX_CARRIER_WORDS = 6
# The only words such a phrase may hold. An open list would accept "not Paris", "Alice or Bob" and "Alice, Bob".
CARRIER_WORDS = frozenset(
    "a an answer are as at be by called correct final from he in is it its named of on she".split()
)
CARRIER_WORDS |= frozenset("that the they this was were 答 案 是 为 在".split())
SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "万": 1e4, "亿": 1e8}
CURRENCY_WORDS = frozenset("usd eur gbp cny rmb jpy dollar dollars euro euros pound pounds yuan yen 美 元".split())
YES_NO = {"yes": True, "no": False, "是": True, "否": False}

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(
    r"([+-]?)[$€£¥₹]?([+-]?)([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(e[+-]?[0-9]{1,3})?"
)
_LIST_SEPARATORS = tuple(map(re.compile, (r"\n", r"[;\n]", r"[,、\n]", r"[,、;\n]|\band\b|和")))
_LIST_MARKER = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")


def answer_matches(text: str, golds: list[str] | str, kind: str | None = None) -> bool:
    """
    Whether `text`, what stands between the answer tags, is right by the rule of its kind.

    - `choice`: one letter and nothing else (`B`, `(b)`, `B.`), never a letter found in prose.
    - `number`: one number and nothing else but currency, `%`, a scale word or a carrier phrase; two plain integers
      must be equal, other numbers agree within `RELATIVE_TOLERANCE`. With `%` on one side only, 25% is 25 or 0.25.
    - `string`: a gold, after Unicode, case, articles, punctuation and whitespace are normalised, alone or in a carrier
      phrase of at most `MAX_CARRIER_WORDS` words.
    - `list`: every gold once, in any order, nothing else; separated by newlines, `;`, `,` or `and`.
    - `yes_no`: yes or no.

    Args:
        text (`str`):
            The answer of the model.
        golds (`list[str]` or `str`):
            Gold answers, of which any one is right (for `list`: all of them together).
        kind (`str`, *optional*):
            One of the kinds above; `None` means `string`.

    Returns:
        `bool`

    Raises:
        `ValueError`: For an unknown kind, or a gold answer that is empty or cannot be of its kind.
    """
    kind = "string" if kind is None else kind
    if kind not in _MATCHERS:
        raise ValueError(f"answer_kind must be one of {', '.join(_MATCHERS)}, but is {kind!r}")
    golds = [golds] if isinstance(golds, str) else golds
    if not isinstance(golds, list) or not golds or not all(isinstance(gold, str) and gold.strip() for gold in golds):
        raise ValueError(f"answer must be a list of strings, none of them empty, but is {short_repr(golds)}")
    longest = sum(map(len, golds)) + len(golds) if kind == "list" else max(map(len, golds))
    if len(text) > 2 * longest + MAX_SURPLUS_CHARS:
        text = ""  # still matched, so that a bad gold is reported whatever the model wrote
    return _MATCHERS[kind](text, golds)


def short_repr(value: object) -> str:
    """`repr` cut to 80 characters, for error messages about long texts."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_cjk(char: str) -> bool:
    return "\u3040" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U0003ffff"


def _words(text: str) -> list[str]:
    """Words to compare by, none only if `text` is blank. Numbers keep sign and point; CJK splits by character."""
    plain = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold().replace("−", "-"))
    out = []
    for before, char, after in zip(f" {plain}", plain, f"{plain[1:]} ", strict=False):
        category = unicodedata.category(char)
        if after.isdigit() and ((char == "." and not before.isalpha()) or (char == "-" and not before.isalnum())):
            out.append(char)
        elif char in ".'’" or category == "Cf":
            continue  # U.S. is US, Schindler's is Schindlers, a zero-width space is nothing
        elif char == "`" or (category[0] in "PZC" and char not in "#%&@"):
            out.append(" ")  # C# is not C, 5% is not 5; symbols such as + and $ are no punctuation
        else:
            out.append(f" {char} " if _is_cjk(char) else char)
    words = "".join(out).split()
    start = int(words[:1] in (["a"], ["an"]))
    return [word for word in words[start:] if word != "the"] or words or text.split()


def read_choice(text: str) -> str | None:
    """
    The letter that an answer consists of, as training and evaluation read it.

    Args:
        text (`str`):
            What stands between the answer tags.

    Returns:
        `str` or `None`: `"A"` … `"Z"` of `B`, `(b)`, `**B**` or `B.`; `None` for anything but one letter.
    """
    letter = unicodedata.normalize("NFKC", text).strip(" \r\n\t()[].:*、。\"'“”‘’`").upper()
    return letter if len(letter) == 1 and "A" <= letter <= "Z" else None


def _number(text: str) -> tuple[float, bool, bool] | None:
    """Value of the one number in `text`, whether it has a %, whether it is a plain integer; None if there is none."""
    if any(char.isdigit() and not char.isdecimal() for char in text):
        return None  # NFKC would read 10² as 102
    plain = unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace("\\%", "%").replace("\\$", "$")
    found = list(_NUMBER.finditer(plain))
    if len(found) != 1:
        return None
    sign, sign_after_currency, digits, exponent = found[0].groups()
    before, after = plain[: found[0].start()], plain[found[0].end() :].strip(" \r\n\t*.。$€£¥₹")
    is_glued = before[-1:].isalnum() and not _is_cjk(before[-1])  # A5, x-5
    lead, rest = _words(before.rstrip(" \r\n\t*:")), _words(after)
    percent = rest[:1] in (["%"], ["percent"])
    scale = SCALES.get(rest[0], 1.0) if rest else 1.0
    rest = rest[1:] if percent or scale > 1.0 else rest
    is_plain = CARRIER_WORDS.issuperset(lead) and CURRENCY_WORDS.issuperset(rest) and len(lead) <= MAX_CARRIER_WORDS
    value = scale * float(digits.replace(",", "") + (exponent or ""))
    value = -value if "-" in (sign, sign_after_currency) else value
    if is_glued or not is_plain or (sign and sign_after_currency) or abs(value) == float("inf"):
        return None
    return value, percent, "." not in digits and not exponent and not percent and scale == 1.0


def _same_number(answer: tuple[float, bool, bool], gold: tuple[float, bool, bool]) -> bool:
    (value, has_percent, is_integer), (wanted, gold_has_percent, gold_is_integer) = answer, gold
    if is_integer and gold_is_integer:
        return value == wanted  # a count, a year, an identifier: 2019 is not 2020, which the tolerance would accept
    if has_percent == gold_has_percent:
        return _is_close(value, wanted)
    # 25% is what 25 means where percent are asked for, and 0.25 where a fraction is. 2500% for 25 is a slip of scale.
    percent, bare = (value, wanted) if has_percent else (wanted, value)
    return _is_close(percent, bare) or (abs(bare) <= 1 and _is_close(percent / 100, bare))


def _is_close(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= RELATIVE_TOLERANCE * abs(wanted)


def _is_gold_in_carrier(words: list[str], gold: list[str]) -> bool:
    surplus = len(words) - len(gold)
    return 0 <= surplus <= MAX_CARRIER_WORDS and any(
        words[i : i + len(gold)] == gold and CARRIER_WORDS.issuperset(words[:i] + words[i + len(gold) :])
        for i in range(surplus + 1)
    )


def _any_parsed(kind: str, parse: Callable, same: Callable) -> Callable[[str, list[str]], bool]:
    def matches(text: str, golds: list[str]) -> bool:
        parsed = [parse(gold) for gold in golds]
        if None in parsed:
            gold = golds[parsed.index(None)]
            raise ValueError(f"the gold answer {short_repr(gold)} is no {kind}: correct it or set another answer_kind")
        value = parse(text)
        return value is not None and any(same(value, gold) for gold in parsed)

    return matches


def _match_list(text: str, golds: list[str]) -> bool:
    if any("\n" in gold for gold in golds):
        raise ValueError(
            f"a gold answer of kind list must stand on one line, newlines part the items: {short_repr(golds)}"
        )
    wanted = Counter(tuple(_words(gold)) for gold in golds)
    text = unicodedata.normalize("NFKC", text)
    splits = [[item for item in separator.split(text) if item.strip()] for separator in _LIST_SEPARATORS]
    splits.append([_LIST_MARKER.sub("", line) for line in splits[0]])
    # A gold may hold any one of the separators, so each is tried; every try must give the whole list.
    return any(Counter(tuple(_words(item)) for item in items) == wanted for items in splits)


_MATCHERS = {
    "choice": _any_parsed("choice", read_choice, str.__eq__),
    "number": _any_parsed("number", _number, _same_number),
    "string": _any_parsed("string", _words, _is_gold_in_carrier),
    "list": _match_list,
    "yes_no": _any_parsed("yes_no", lambda text: YES_NO.get(" ".join(_words(text))), bool.__eq__),
}
