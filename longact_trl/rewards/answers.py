"""When an answer is right: one rule for each kind of answer, strict where a policy would find a loophole.

An answer that would need judgement ("Paris or London", "not 5") is wrong: in RL a false positive is found and
exploited, a false negative only teaches the policy to answer plainly. Work is linear in the text and never `eval`.
"""

from collections.abc import Callable

from .lists import is_negative, is_same_list
from .numbers import CARRIER_WORDS, MAX_CARRIER_WORDS, read_number, same_number
from .text import fold, unwrap, words


# An answer longer than twice its gold and this many characters (a polite sentence) more is wrong unread.
MAX_SURPLUS_CHARS = 200
YES_NO = {"yes": True, "no": False, "true": True, "false": False, "是": True, "否": False}
YES_NO |= {"是 的": True, "对": True, "正 确": True, "错": False, "错 误": False}


def answer_matches(text: str, golds: list[str] | str, kind: str | None = None) -> bool:
    """
    Whether `text`, what stands between the answer tags, is right by the rule of its kind.

    - `choice`: one letter and nothing else (`B`, `(b)`, `B.`), never a letter found in prose.
    - `number`: one number, in digits or Chinese characters, and nothing else but currency, `%`, a scale word or a
      carrier phrase; a gold that is a plain integer must be met exactly, or rounded to the last digit that is written;
      other numbers agree within `RELATIVE_TOLERANCE`. With `%` on
      one side only, 25% is 25 or 0.25.
      Brackets around a gold or a loose dash beside it are a minus, as in accounts; in an answer they are only right
      where the gold has them, too.
    - `string`: a gold, after Unicode, case, articles, punctuation and whitespace are normalised, alone or in a carrier
      phrase of at most `MAX_CARRIER_WORDS` words.
    - `list`: every gold once, in any order, and nothing else but "The answer is" before them; separated by newlines,
      `;`, `,`, `|` or `and`, or numbered, or in quotes.
    - `yes_no`: yes or no, true or false, alone or in a carrier phrase.

    Quotes, a code fence, `$…$`, `\\boxed{…}` and emphasis around an answer change nothing.

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


def read_choice(text: str) -> str | None:
    """
    The letter that an answer consists of, as training and evaluation read it.

    Args:
        text (`str`):
            What stands between the answer tags.

    Returns:
        `str` or `None`: `"A"` … `"Z"` of `B`, `(b)`, `**B**` or `B.`; `None` for anything but one letter.
    """
    letter = fold(unwrap(text)).strip(" \r\n\t()[]{}【】〔〕.,:;*•·-、。\"'“”`«»「」").upper()
    return letter if len(letter) == 1 and "A" <= letter <= "Z" else None


def read_yes_no(text: str) -> bool | None:
    """
    Whether an answer says yes or no.

    Args:
        text (`str`):
            What stands between the answer tags.

    Returns:
        `bool` or `None`: `None` for anything but one of the two.
    """
    found = words(text)
    found = found[2:] if found[:2] == ["答", "案"] else found  # "是" is a carrier, too, and 是否 asks
    if " ".join(found).isascii() and len(found) <= MAX_CARRIER_WORDS + 1:
        found = [word for word in found if word not in CARRIER_WORDS]
    return YES_NO.get(" ".join(found))


def _match_string(text: str, golds: list[str]) -> bool:
    found = words(text)
    return any(_is_in_carrier(found, words(gold)) and is_negative(text) == is_negative(gold) for gold in golds)


def _is_in_carrier(found: list[str], gold: list[str]) -> bool:
    surplus = len(found) - len(gold)
    return 0 <= surplus <= MAX_CARRIER_WORDS and any(
        found[i : i + len(gold)] == gold and CARRIER_WORDS.issuperset(found[:i] + found[i + len(gold) :])
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
    return is_same_list(text, golds)


_MATCHERS = {
    "choice": _any_parsed("choice", read_choice, str.__eq__),
    "number": _any_parsed("number", read_number, same_number),
    "string": _match_string,
    "list": _match_list,
    "yes_no": _any_parsed("yes_no", read_yes_no, bool.__eq__),
}
