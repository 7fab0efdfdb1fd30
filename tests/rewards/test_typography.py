"""Marks around and inside an answer that change nothing of it."""

import pytest

from longact_trl.rewards.answers import answer_matches


WRAPPINGS = [
    '"{}"',
    "'{}'",
    "“{}”",
    "‘{}’",
    "„{}“",
    "«{}»",
    "‹{}›",
    "「{}」",
    "『{}』",
    "【{}】",
    "⟨{}⟩",
    "❝{}❞",
    "`{}`",
    "```\n{}\n```",
]
WRAPPINGS += [
    "```text\n{}\n```",
    "$${}$$",
    "\\({}\\)",
    "\\[{}\\]",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    "**{}**",
]
WRAPPINGS += ["\\textit{{{}}}", "\\emph{{{}}}", "$\\mathsf{{{}}}$", "\\underline{{{}}}", "\\{{{}\\}}"]
WRAPPINGS += ["__{}__", "*{}*", '"{}".', "“{}.”", "\\boxed{{{}}}."]
ANSWERS = {"number": "42", "choice": "B", "string": "Paris", "yes_no": "yes", "list": "Paris"}
APOSTROPHES = "'’‘ʼʻ´`′ʹ‛＇ˈ՚ꞌ׳‵ʽ᾽᾿῾΄ߴ"


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_marks_around_an_answer(wrapping):
    for kind, gold in ANSWERS.items():
        assert answer_matches(wrapping.format(gold), [gold], kind), kind
        if kind != "list":  # whose golds stand on one line
            assert answer_matches(gold, [wrapping.format(gold)], kind), kind
        for other in ("43", "C", "Rome", "no", f"not {gold}", f"{gold} or 7", ""):
            assert not answer_matches(wrapping.format(other), [gold], kind), (kind, other)


@pytest.mark.parametrize("kind, gold", ANSWERS.items())
def test_two_marked_answers_are_not_one(kind, gold):
    for text in (
        '"{0}" or "{1}"',
        "`{0}` `{1}`",
        "\\boxed{{{0}}}\\boxed{{{1}}}",
        "${0}$ ${1}$",
        "```\n{0}\n``` ```\n{1}\n```",
    ):
        for one, other in ((gold, "7"), ("7", gold), (gold, gold)):
            assert not answer_matches(text.format(one, other), [gold], kind)


@pytest.mark.parametrize("char", APOSTROPHES)
def test_every_apostrophe_is_one(char):
    for other in APOSTROPHES:
        assert answer_matches(f"O{char}Brien", [f"O{other}Brien"])
    assert answer_matches(f"Hawai{char}i; rock {char}n{char} roll", ["Hawai'i", "rock 'n' roll"], "list")
    assert not answer_matches(f"O{char}Brian", ["O'Brien"])
    assert answer_matches(f"1{char}234{char}567", ["1234567"], "number")
    assert not answer_matches(f"1{char}2", ["12"], "number")


UNITS = {  # gold: the same in other spellings, something else
    "20%": (["20 %", "20٪", "20 percent", "20 per cent", "20 Prozent"], ["20", "20 percentage points", "-20 percent"]),
    "5 km": (["5km", "5  km", "5\u202fkm"], ["5", "km", "5 k m", "5 kg", "-5km", "5 kmh"]),
    "10:30 p.m.": (["10:30pm", "10:30 PM"], ["10:30 am", "10:30"]),
    "-5 °C": (["−5°C", "–5 ℃"], ["5°C", "5 ℃"]),
    "50,000 km²": (["50000 km2", "50,000km²"], ["50,000 km", "50,000"]),
    "$ 5 million": (["$5 million"], ["-$ 5 million", "−$5 million", "($ 5 million)", "$-5 million", "5 million"]),
    "USD 5 apiece": (["usd 5 apiece"], ["-USD 5 apiece", "–USD 5 apiece", "−US$5 apiece", "USD −5 apiece"]),
    "Rs. 500 crore": (
        ["Rs.500 crore", "Rs500 crore", "rs 500 crore"],
        ["Rs. .500 crore", "-Rs.500 crore", "500 crore"],
    ),
    "Route 5": (["route 5"], ["Route 5A", "Route 5m"]),
    "5 a day": (["5 a day"], ["5 day", "5aday"]),
}


@pytest.mark.parametrize("gold", UNITS)
def test_a_space_before_a_unit_says_nothing_and_a_sign_does(gold):
    right, wrong = UNITS[gold]
    for texts, expected in (([gold, *right], True), (wrong, False)):
        for text in texts:
            assert answer_matches(text, [gold]) is expected, text


@pytest.mark.parametrize(
    "text, gold", [("5‰", "5"), ("-.5", ".5"), ("-$5", "$5"), ("(5)", "5"), ("5-", "5"), ("- 5", "5")]
)
def test_a_text_is_compared_with_its_sign(text, gold):
    for answer, wanted in ((text, gold), (gold, text)):
        assert not answer_matches(answer, [wanted]) and answer_matches(answer, [answer])


@pytest.mark.parametrize(
    "text, gold, right",
    [("True", "yes", 1), ("false.", "no", 1), ("true or false", "yes", 0), ("False", "yes", 0)]
    + [("The answer is yes.", "yes", 1), ("Yes, it is", "yes", 1), ("答案：是的", "yes", 1), ("错误", "no", 1)]
    + [("the answer is not yes", "yes", 0), ("it is yes or no", "yes", 0), ("是否", "no", 0), ("答案是否", "no", 0)]
    + [
        ("is it true that it is false", "no", 0),
        ("yes yes", "yes", 0),
        ("不对", "yes", 0),
        ("no, it is not", "no", 0),
    ],
)
def test_true_and_false(text, gold, right):
    assert answer_matches(text, [gold], "yes_no") == right


@pytest.mark.parametrize("text, gold", [("AT&T", "AT&amp;T"), ("O'Brien", "O&#39;Brien"), ("istanbul", "İstanbul")])
def test_what_tables_from_web_pages_hold(text, gold):
    assert answer_matches(text, [gold]) and answer_matches(gold, [text])
    assert answer_matches(f"{text}; 7", [gold, "7"], "list") and not answer_matches("AT&Q", [gold])
    assert not answer_matches("&lt;7", ["7"], "number") and answer_matches("&minus;7", ["-7"], "number")
