"""Numbers in Chinese characters, 一万二千三百, as digits."""

import itertools
import math
import re


_DIGITS = "零一二三四五六七八九"
_UNITS = ("", "十", "百", "千")
_SIZES = ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十"))
_PLAIN = str.maketrans("〇○壹贰貳叁參肆伍陆陸柒捌玖拾佰仟萬億點两兩", "零零一二二三三四五六六七八九十百千万亿点二二")
"""What is written on cheques and elsewhere, in everyday characters."""
_LONGEST = 40
"""Characters of a number below 10^16, and of one that is none."""
_UNIT = "千?[万亿]|千"
_MIXED = re.compile(
    rf"(?<![\d.,])(?:\d{{1,4}}(?:{_UNIT})){{1,3}}(?:\d{{1,4}}(?:{_UNIT})|\d{{3,4}})(?![\d.,])", re.ASCII
)
_PART = re.compile(rf"(\d+)({_UNIT}|)", re.ASCII)
_RUN = re.compile("[零一二三四五六七八九十百千万亿点]+")


def with_digits(text: str) -> str:
    """
    A text with the one number in it that Chinese characters write.

    Args:
        text (`str`):
            Text without ASCII digits.

    Returns:
        `str`: The same with digits; unchanged if there is no such number or more than one, or if it may mean another:
            一百五 is said for 150.
    """
    plain = text.translate(_PLAIN)
    runs = list(_RUN.finditer(plain))
    if len(runs) != 1 or len(runs[0][0]) > _LONGEST:
        return text
    [run] = runs
    whole, point, decimals = run[0].partition("点")
    value = _value(whole)
    if value is None or (point and (not decimals or set(decimals) - set(_DIGITS))):
        return text
    decimals = "".join(str(_DIGITS.index(char)) for char in decimals)
    return f"{plain[: run.start()]}{value}{point and '.'}{decimals}{plain[run.end() :]}"


def joined(text: str) -> str:
    """
    A text whose one number has digits before several characters for a power of ten: 3亿5000万 as 350000000.

    Args:
        text (`str`):
            Text with ASCII digits.

    Returns:
        `str`: Unchanged unless every part is smaller than a unit of the one before. 1万2 is said for 12,000 and for
            10,002.
    """
    plain = text.translate(_PLAIN)
    runs = list(_MIXED.finditer(plain))
    if len(runs) != 1:
        return text
    [run] = runs
    sizes = {name: size for size, name in _SIZES}
    parts = [(int(digits), math.prod(map(sizes.get, unit))) for digits, unit in _PART.findall(run[0])]
    for (_, above), (digits, size) in itertools.pairwise(parts):
        if not digits * size < above or (size == 1 and digits < above // 10):
            return text
    return f"{plain[: run.start()]}{sum(digits * size for digits, size in parts)}{plain[run.end() :]}"


def _value(numeral: str) -> str | None:
    """Digits of 二〇一九, said one by one, or of 二千零一十九."""
    if len(numeral) > 1 and set(numeral) <= set(_DIGITS):
        return "".join(str(_DIGITS.index(char)) for char in numeral)
    total, group, digit = 0, 0, 0
    for char in numeral:
        if char in _DIGITS:
            digit = _DIGITS.index(char)
        elif char in _UNITS:
            group, digit = group + (digit or 1) * 10 ** _UNITS.index(char), 0
        elif char == "万":
            total, group, digit = total + (group + digit) * 10**4, 0, 0
        else:
            total, group, digit = (total + group + digit) * 10**8, 0, 0
    total += group + digit
    # Only what is written as it should be: nothing is left to guess.
    written = _written(total)
    return str(total) if numeral in (written, "十" + written[2:] if written.startswith("一十") else written) else None


def _written(value: int) -> str:
    """As it should be written, below 10^16: 一千零二十, 三亿零五万."""
    if value < 10:
        return _DIGITS[value]
    size, name = next((size, name) for size, name in _SIZES if value >= size)
    head, rest = divmod(value, size)
    zero = _DIGITS[0] if rest < size // 10 else ""
    return _written(head) + name + (zero + _written(rest) if rest else "")
