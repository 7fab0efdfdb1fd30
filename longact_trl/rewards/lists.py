"""The items of an answer that is a list, as people write lists: on lines, numbered, with bullets, joined by "and"."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from .numbers import read_number
from .text import as_typed, fold, unwrap, without_groups, words


# A short word only between two items: after a comma it may be an item, and in "I've" or "Charles I" it is none.
_AND = (
    r"\b(?:and|as well as|und|sowie|et|ainsi que|así como|en|og|och|oraz|és|και|và|și|şi)\b|(?<=\s)&(?=\s)"
    r"|(?<=[^\s,;、])\s(?:y|e|(?-i:i)|и|і|та|ve|و|और)\s|以及|和|与|與|及|跟|と|및|그리고"
)
# A gold may hold any of the separators, so each is tried; every try must give the whole list.
_SEPARATORS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for marks in (r"\n", r"[;\n]", r"[,、\n]", r"[,、;\n]")
    for pattern in (marks, rf"{marks}[ \n]?(?:{_AND})|{marks}", rf"{marks}|{_AND}")
)
_WORD = re.compile(_AND, re.IGNORECASE)
_JOINED = frozenset(separator for separator in _SEPARATORS if _AND in separator.pattern)
_LEAD = re.compile(
    r"\s*(?:(?:the |my )?(?:final |correct )?answers?(?: is| are)?\b(?:\s*:)?|答案(?:是|为|為)?\s*[:：]?)(?=.)",
    re.IGNORECASE,
)
_BULLETS = re.compile("<br ?/?>|[|•‣◦▪●○■□◆◇►▶➢➤✓✔★☆※❖∙⦁]")
_TITLES = re.compile("(?<=[」』》〉】])\\s*(?=[「『《〈【])")  # 《红楼梦》《西游记》
_QUOTED = re.compile("\"([^\"]+)\"|“([^“”]+)”|「([^「」]+)」|『([^『』]+)』|«([^«»]+)»|„([^„“”]+)[“”]|'([^']+)'")
_BETWEEN_QUOTED = re.compile(rf"(?:[\s,;、.\[\](){{}}]|{_AND})*", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_FINEST = re.compile(rf"[,、;\n][ \n]?(?:{_AND})|[,、;\n]|{_AND}", re.IGNORECASE)
_MOST_PARTS = 40
"""Parts of items that hold separators themselves, which are put together again."""
_LINE_MARKER = re.compile(r"(?:[-–—*+·]|\(?\d{1,3}[.)]) ")
_CIRCLED = re.compile("[①-⑳⑴-⒛❶-❿➀-➓⓵-⓾㈠-㈩㊀-㊉]|[1-9]\ufe0f?\u20e3")
_LABEL = re.compile(
    r"(?<![A-Za-z0-9.,])(?:[(\[]?(\d{1,3}|[a-z]|[ivx]{2,5})(?:[)\]、:]|\.(?!\d))|#(\d{1,3})(?=[:.)\s])|^(\d{1,3}) - )"
    r"|(?<!\w)\(?([一二三四五六七八九十]{1,3})[)、.:]",
    re.IGNORECASE | re.MULTILINE,
)
_TRAILING_AND = re.compile(rf"(?:{_AND})$", re.IGNORECASE)
_ROMAN = "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split()
_CHINESE = [ten + one for ten in ("", "十", "二十") for one in ("", *"一二三四五六七八九")][1:]
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def is_same_list(text: str, golds: list[str]) -> bool:
    """
    Whether a text lists every gold once, in any order, and nothing else.

    Args:
        text (`str`):
            What the model wrote.
        golds (`list[str]`):
            Items, none with a newline.

    Returns:
        `bool`
    """
    separators = _SEPARATORS
    if any(_WORD.fullmatch(gold.strip()) for gold in golds):  # an item that is itself a word for "and"
        separators = tuple(separator for separator in _SEPARATORS if separator not in _JOINED)
    are_numbers = all(_PLAIN_NUMBER.fullmatch(without_groups(as_typed(gold)).strip()) for gold in golds)
    key = _number_key if are_numbers else _signed_key
    wanted = Counter(map(key, golds))
    forms = dict.fromkeys((text, unwrap(text), _without_brackets(text) if len(golds) > 1 else text))
    forms |= {text[lead.end() :]: None for text in [*forms] if (lead := _LEAD.match(text))}
    return any(
        len(items) == len(golds) and Counter(map(key, items)) == wanted
        for form in forms
        for items in _readings(form, separators)
    ) or (separators == _SEPARATORS and _is_made_of(text, golds))


def is_negative(text: str) -> bool:
    """Whether a text is a negative number: (5) and 5- may be, and they have the words of 5."""
    number = read_number(text)
    return number is not None and number.value < 0


def _key(item: str) -> tuple[str, ...]:
    return tuple(words(item))


def _signed_key(item: str) -> tuple[tuple[str, ...], bool]:
    return _key(item), is_negative(item)


def _number_key(item: str) -> tuple[str, ...] | float:
    """Where all golds are plain numbers: 5.0 is 5, and 1 234 is 1234."""
    number = read_number(item)
    is_plain = number is not None and not (number.has_percent or number.is_doubtful)
    return number.value if is_plain else _key(item)


def _without_brackets(text: str) -> str:
    """(5, 3) is no -5 of accounts."""
    inside = text.strip()[1:-1]
    return inside if text.strip() in (f"({inside})", f"（{inside}）") and not set("()（）") & set(inside) else text


def _is_made_of(text: str, golds: list[str]) -> bool:
    """Whether a text is all golds and separators, where golds hold separators: "Tom and Jerry and Felix"."""
    text, *golds = (re.sub(r"[^\S\n]+", " ", fold(part)).strip(" \n.") for part in (text, *golds))
    gaps = [(gap.start(), gap.end()) for gap in _FINEST.finditer(text)]
    if not len(golds) <= len(gaps) < _MOST_PARTS:
        return False
    starts, ends = [0, *(end for _, end in gaps)], [*(start for start, _ in gaps), len(text)]
    sizes = {gold: len(_FINEST.findall(gold)) + 1 for gold in golds}

    @cache
    def fits(part: int, left: tuple[str, ...]) -> bool:
        if not left or part >= len(starts):
            return not left and part == len(starts)
        return any(
            text[starts[part] : ends[part + sizes[gold] - 1]].strip() == gold
            and fits(part + sizes[gold], left[: left.index(gold)] + left[left.index(gold) + 1 :])
            for gold in dict.fromkeys(left)
            if part + sizes[gold] <= len(starts)
        )

    return fits(0, tuple(golds))


def _readings(text: str, separators: Sequence[re.Pattern]) -> Iterator[list[str]]:
    # NFKC would glue ① to its item.
    text = _CIRCLED.sub(lambda mark: f"\n{int(unicodedata.numeric(mark[0][0]))}) ", text)
    lines = (" ".join(line.split()) for line in as_typed(_TITLES.sub("\n", text)).splitlines())
    text = "\n".join(line for line in lines if line)
    for plain in dict.fromkeys((text, _BULLETS.sub("\n", text), without_groups(text))):
        for separator in separators:
            items = separator.split(plain)
            if separator in _JOINED and not (items[0].strip() and items[-1].strip()):
                continue  # "and" stands between two items, and at an end is a part of one: 和田 is not 田
            yield [item for item in items if item.strip()]
        lines = plain.split("\n")
        if all(map(_LINE_MARKER.match, lines)):
            yield [_LINE_MARKER.sub("", line, count=1) for line in lines]
        yield from _numbered(plain)
        if _QUOTED.search(plain) and _BETWEEN_QUOTED.fullmatch(_QUOTED.sub(",", plain)):
            yield [item[item.lastindex] for item in _QUOTED.finditer(plain)]


def _numbered(text: str) -> Iterator[list[str]]:
    """Items behind 1, 2, 3 …, a, b, c …, i, ii, iii … or 一、二、三, wherever these stand."""
    marks = [(mark, mark[mark.lastindex].lower()) for mark in _LABEL.finditer(text)]
    for labels in (map(str, range(1, len(marks) + 1)), _CHINESE, _ALPHABET, _ROMAN):
        labels, starts = iter(labels), []
        expected = next(labels, None)
        for mark, label in marks:
            if label == expected:
                starts.append(mark)
                expected = next(labels, None)
        if len(starts) > 1 and not text[: starts[0].start()].strip():
            ends = [mark.start() for mark in starts[1:]] + [len(text)]
            items = (text[mark.end() : end].rstrip(" \n,;、。") for mark, end in zip(starts, ends, strict=True))
            yield [_TRAILING_AND.sub("", item) for item in items]
