"""One number, written as people write it: right in every spelling, wrong with every other sign, scale or number."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longact_trl.rewards.answers import answer_matches
from longact_trl.rewards.numbers import read_number


EVERYTHING = list(HealthCheck)
FUZZ = settings(deadline=None, database=None, derandomize=True, suppress_health_check=EVERYTHING)
CASES = {  # gold: what is right, what is wrong
    "-31.5": (
        ["minus 31.5", "negative 31.5", "负31.5", "-$31.5", "$-31.5", "-USD 31.5", "USD -31.5", "(-31.5)", "–$31.5"]
        + ["-31.5%", "−31.5 USD", "\u200e-31.5", "-\u200e31.5", "\xad31.5", "the answer is –31.5"],
        ["31.5", "(31.5)", "31.5-", "- 31.5", "-(31.5)", "--31.5", "+31.5", "+-31.5", "±31.5", "31.5 (loss)"]
        + ["minus -31.5", "(31.5", "31.5)", "a-31.5"],
    ),
    "31.5": (
        ["31.5", "+31.5", "(+31.5)", "$31.5", "31.5."],
        ["(31.5)", "- 31.5", "– 31.5", "31.5-", "31.5 –", "($31.5)", "$(31.5)", "(31.5)%", "(31.5 million)"]
        + ["- $31.5", "-$ 31.5", "31.5)", "(31.5", "（31.5）", "*-31.5*", "the answer is (31.5)", "minus 31.5"]
        + ["¬31.5", "~31.5", "≈31.5", "<31.5", "31.5?", "31.5±1", "31.5/1", "/31.5", "31.5‰", "31.5 eur ‰", "31.5c"]
        + ["31.5°", "31.5¢", "31.5 cents", "31.5 bps", "31.5 usd or eur", "not 31.5", "€31.5-€32", "31.5 a", "31.5 s"],
    ),
    "(31.5)": (["-31.5", "(31.5)", "–31.5", "($31.5)", "-$31.5"], ["31.5", "$31.5", "(32)", "(-32)", "+31.5"]),
    "- 31.5": (["-31.5", "(31.5)"], ["31.5"]),
    "31.5-": (["-31.5"], ["31.5"]),
    "1234.5": (
        [
            "USD 1,234.5",
            "JP¥1,234.5",
            "CN¥ 1,234.5",
            "US$1,234.5",
            "RMB 1234.5",
            "EUR 1234.5",
            "€1.2345e3",
            "$ 1,234.5",
            "HK$1,234.5",
            "NT$1234.5",
        ]
        + ["A$1234.5", "Rs. 1,234.5", "₹1,234.5", "INR 1,234.5", "U.S. $1,234.5", "人民币1234.5元", "美元1234.5"]
        + ["￥1,234.5", "₩1234.5", "R$1,234.5", "CHF 1'234.5", "USD1,234.5", "the answer is USD 1,234.5"]
        + ["1,234.5 euros", "1,234.5 US dollars", "1,234.5元", "1234.5 ₽", "1,234.5USD", "$1,234.5 USD", "1,234.5 kr"]
        + ["1234.5 rand", "1234.5 Kč", "1234.5 руб.", "MYR 1234.5", "1234.5 dirhams", "1234.5 (USD)", "(EUR) 1234.5"]
        + ["1 234.5", "1\u202f234.5", "1\u00a0234.5", "1’234.5", "1\\,234.5", "1{,}234.5", "\\$1,234.5"],
        ["USD 1,234.5 or EUR 1,234.5", "1,234.5 apples", "A1234.5", "xUSD 1234.5", "USD/1234.5", "1.234,5", "1234,5"]
        + ["12,34.5", "cents 1234.5", "won't be 1234.5", "more than USD 1234.5"],
    ),
    "1234567": (
        [
            "12,34,567",
            "₹12,34,567",
            "1 234 567",
            "1'234'567",
            "12.34567 lakh",
            "1.234567 million",
            "１，２３４，５６７",
        ]
        + ["१२३४५६७", "123.4567万", "0.01234567 亿", "Rs. 12,34,567", "1,234,567"],
        ["12,34,56,7", "1,2,3,4,5,6,7", "1,23,4567", "1234 567", "1.234.567", "123,4567", "12345,67", "1,234,56"],
    ),
    "12345678": (["1,23,45,678", "1.2345678 crore", "12,345,678"], ["1,23,45,6,78"]),
    "14.22%": (
        [
            "14.22 per cent",
            "14.22 percent",
            "14.22 PERCENT",
            "14.22 pct",
            "14.22％",
            "14.22 percentage points",
            "0.1422",
        ]
        + ["14.22 per-cent", "14.22٪", "٪14.22", "14.22 procent", "14.22 процента", "14.22 phần trăm", "yüzde 14.22"]
        + ["14.22 (%)", "14.22 (per cent)"]
        + ["百分之14.22", "14.22个百分点", "14.22 Prozent", "14.22 pour cent", "14.22 por ciento", "14.22"],
        ["14.22‰", "1422%", "14.22 percent million", "14.22% %", "%14.22%", "14.22 per", "百分之14.22%"],
    ),
    "12345678901234567": (["12,345,678,901,234,567"], ["12345678901234568"]),  # equal as floats
    "5000000": (
        ["5 million", "5 millions", "US$5 million", "5 million US dollars", "RMB 5 million", "500万元", "5百万"]
        + ["5 Mio", "EUR 5 Mio.", "0.005 Mrd", "$5mn", "$5 mn", "50 lakh", "0.5 crore", "50 hundred thousand"],
        ["5 million or more", "5 m", "5M", "5 billion", "5 lakh", "-5 million", "5 million %"],
    ),
    "10100": (["10 100"], ["10, 100", "10 or 100", "10-100"]),
    "300": (
        ["三百", "叁佰", "三百元", "答案是三百", "人民币三百元", "「三百」", "三百。", "叁佰圆"],
        [
            "三百个",
            "三百零",
            "三百多",
            "约三百",
            "二百",
            "三百或四百",
            "三百一",
            "不是三百",
            "三万",
            "-三百",
            "（三百）",
        ]
        + ["三百 三百", "三", "百", "三百万", "大于三百", "三百至四百"],
    ),
    "350000000": (
        ["3亿5000万", "3亿5000万元", "3億5千万", "3.5亿"],
        ["3亿5000", "3亿50000万", "3亿5", "5000万3亿", "3亿5000万或4亿", "3亿5000万2", "3亿 5000万"],
    ),
    "12000": (
        ["1万2千", "1万2000", "一万二千", "壹万贰仟", "一萬二千", "一万两千"],
        ["1万2", "1万200", "一万二", "一万零二千", "二千一万", "一二千", "千万"],
    ),
    "105": (["一百零五", "一百〇五"], ["一百五", "一百五十", "一零五零", "百零五"]),
    "15": (["十五", "一十五"], ["五十", "十十五", "五十一"]),
    "300050000": (["三亿零五万"], ["三亿五万", "三亿五千万"]),
    "-3.5": (["负三点五", "minus 3.5"], ["三点五", "负三点", "负五点三", "负三点五点五"]),
    "50%": (["百分之五十", "百分之50"], ["百分之五", "百分之百五十", "五百分之五十"]),
    "5000": (
        ["5 × 10^3", "5·10^3", "5 ⋅ 10^3", "5*10**3", r"5\times10^{3}", "5*10^3", r"$5 \cdot 10^3$", "5x10^3", "5e3"],
        ["5 × 10^4", "5 × 10", "5^3", "5 × 10^3 × 10^1", "5 × 10^-3", "5 × 10^3.5", "5 × 10^", "5 × 3^10", "5 × 10³"],
    ),
    "2019": (
        ["二〇一九", "二零一九", "两千零一十九", "2019.0", "2019.00", "2.019 thousand", "2.02e3", "2019.3"],
        ["二〇二〇", "二〇一九年", "两千一十九", "2020.0", "2,020.00", "2020", "2018.0"]
        + ["2020.1", "2020.5", "2020e0", "2.020 thousand", "2.017e3", "2020%", "2.021e3", "2,017.5"],
    ),
    "2019.0": (["2019", "2019.00", "2,019"], ["2020", "2021.0"]),
    "$5,000.00": (["5000", "4999.6"], ["5001", "$5,001.00"]),
    "500": (
        ["Rs. 500/-", "500/-", "₹500/-", "500/=", "Rs 500 /-", "Rs. 500/-.", "500 (USD)", "(USD) 500", "5 (hundred)"],
        ["-500/-", "500/-5", "500/- 5", "(500/-)", "500//-", "500/+", "500-/", "500/--", "500 (million)", "(-) 500"]
        + ["500 (-)", "(500) (USD)", "(USD) (500)", "500 (loss)", "500 (or 6)", "(not) 500", "500 (USD or EUR)"],
    ),
    "Rs.500": (["500", "Rs. 500", "Rs500", "Rs.500/-", "kr.500", "Fr. 500"], ["0.5", ".5", "Rs 0.5", "Rs.50"]),
    "0.5": (["Rs .5", "$.50", "Rs. 0.5"], ["Rs.5", "Rs.500", "kr.500", "Fr.500", "500"]),
    "(500)": (["(500)", "(500) USD", "USD (500)", "-500 (USD)"], ["500", "500 (USD)", "500/-"]),
    "10": ([], ["10 100", "0 010", "10 apples", "10 2"]),
}
PAIRS = [
    (gold, text, right)
    for gold, sides in CASES.items()
    for right, texts in zip((True, False), sides, strict=True)
    for text in texts
]


@pytest.mark.parametrize("gold, text, right", PAIRS)
def test_a_spelling(gold, text, right):
    assert answer_matches(text, [gold], "number") is right


@pytest.mark.parametrize("minus", "-‐‑‒–—―−﹘﹣－⁃⁻֊᠆⸺⸻︱︲")
def test_every_dash_is_a_minus_in_answers_and_golds(minus):
    for gold, text in ((f"{minus}31.5", "-31.5"), ("-31.5", f"{minus}31.5"), (f"{minus}$31.5", "-31.5")):
        assert answer_matches(text, [gold], "number")
        assert not answer_matches("31.5", [gold], "number")
    assert not answer_matches(f"{minus}31.5", ["31.5"], "number")
    for gold, text in ((f"{minus}5", "5"), ("5", f"{minus}5"), ("5 apples", f"{minus}5 apples")):
        assert not answer_matches(text, [gold], "string")
    assert answer_matches("-5 apples", [f"{minus}5 apples"], "string")


MARKS = [
    "{}",
    "{}.",
    "({:+})",
    "${}$",
    "**{}**",
    '"{}"',
    "“{}”",
    "`{}`",
    "\\boxed{{{}}}",
    "USD {}",
    "{} USD",
    "the answer is {}",
]
GROUPS = [
    str,
    "{:,}".format,
    lambda value: f"{value:,}".replace(",", " "),
    lambda value: f"{value:,}".replace(",", "'"),
]


@settings(FUZZ, max_examples=150)
@given(st.integers(-(10**9), 10**9), st.sampled_from(MARKS), st.sampled_from(GROUPS), st.sampled_from("-–−"))
def test_every_spelling_is_the_number_and_no_other(value, mark, group, minus):
    text = mark.format(value) if ":+" in mark else mark.format(group(value))
    text = text.replace("-", minus)
    assert read_number(text).value == value and not read_number(text).is_doubtful
    assert answer_matches(text, [str(value)], "number")
    for other in {-value, value + 1, value * 10, value * 100, value + 0.5} - {value}:
        assert not answer_matches(text, [str(other)], "number") or (value and abs(other / value - 1) < 0.0016)


@settings(FUZZ, max_examples=300)
@given(st.text("0123456789.,-–()+$% 元eE/*'", max_size=12), st.sampled_from(["5", "-5", "5.5", "(5)", "50%", "1234"]))
def test_noise_is_never_another_sign(text, gold):
    """Whatever earns has the gold's digits, and a minus or brackets where the gold is negative, and nowhere else."""
    if answer_matches(text, [gold], "number"):
        assert any(sign in text for sign in "-–(") >= (gold in ("-5", "(5)"))
        if gold in ("5", "5.5", "1234", "50%"):
            assert "-" not in text.replace("e-", "").replace("E-", "") and "–" not in text.lower().replace("e–", "")
