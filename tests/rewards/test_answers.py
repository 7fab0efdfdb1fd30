"""Which answers are right: by kind, with the hacks that public rewards accept."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.answers import chat, tagged
from longact_trl.rewards.answers import answer_matches
from longact_trl.rewards.tagged import answer_reward


RIGHT = [
    ("choice", ["B"], ["B", "b", "(B)", "B.", "**B**", " (B). ", "（B）", "[B]", "B,", "B;", "• B", "- B", "【B】"]),
    ("choice", ["(C)"], ["C"]),
    ("number", ["1234567"], ["1,234,567", "$1,234,567", "1234567.", "The answer is 1234567.", "1234567 USD"]),
    ("number", ["5000000"], ["5 million", "$5 million", "5e6", "500万", "500 万元"]),
    ("number", ["-5"], ["-5", "−5", "-$5", "$-5", "-5.0"]),
    ("number", ["5"], ["+5", "５", "答案是5", "答案：5", "the answer is: **5**"]),
    ("number", ["25"], ["25%", "25 %", "25\\%", "25 percent", "$25$"]),
    ("number", ["0.25"], ["25%", ".25", "0.2503"]),
    ("number", ["25%"], ["25", "0.25", "25.0%"]),
    ("number", ["0"], ["0", "0.0", "-0"]),
    (
        "string",
        ["Paris"],
        ["Paris", "paris.", "**Paris**", "“Paris”", "The answer is Paris.", "It was in Paris", "ＰＡＲＩＳ"],
    ),
    ("string", ["The Beatles"], ["Beatles", "the beatles"]),
    ("string", ["Schindler's List"], ["Schindler’s List", "schindlers list", "Schindler's  List"]),
    ("string", ["U.S."], ["US", "the U.S."]),
    ("string", ["1,000 people"], ["1000 people"]),
    ("string", ["NYC", "New York City"], ["New York City", "NYC"]),
    ("string", ["well-known"], ["well known"]),
    ("string", ["北京大学"], ["北京大学", "“北京大学”。", "答案是北京大学", "在北京大学。", "北京 大学"]),
    ("string", ["C++"], ["C++", "c++."]),
    ("string", ["no"], ["No."]),
    ("yes_no", ["yes"], ["Yes", "YES.", "**yes**"]),
    ("yes_no", ["No"], ["no"]),
    ("yes_no", ["是"], ["是。", "yes"]),
    ("list", ["a b", "c", "d"], ["a b, c, d", "d; c; a b", "- d\n- c\n- a b", "1. c\n2. d\n3. a b", "c, d and a b"]),
    ("list", ["Smith, John", "Doe, Jane"], ["Doe, Jane; Smith, John", "Smith, John\nDoe, Jane"]),
    ("list", ["1234", "5678"], ["5678, 1234", "1234\n5678"]),
    ("list", ["张三", "李四"], ["李四、张三", "张三，李四", "张三和李四"]),
    ("list", ["x", "x"], ["x, x"]),
]


WRONG = [  # the hacks that public rewards were seen to accept, and their relatives
    (
        "choice",
        ["A"],
        ["", ".", "B", "A B", "A or B", "ABCD", "A, B, C, D", "A good answer", "The answer is A", "(A) Rome", "A-B"],
    ),
    (
        "number",
        ["10"],
        ["", "1000", "100", "1", "-10", "10 or 11", "1 2 10", "not 10", "10-11", "ten", "10?!x", "10²"],
    ),
    ("number", ["-5"], ["5", "(5)", "+5", "--5"]),
    (
        "number",
        ["5"],
        ["-5", "−5", "5 million", "5/1", "+-5", "A5", "x-5", "more than 5", "5 or more", "<5", "5k", "5,0"],
    ),
    ("number", ["0.0004"], ["0.0001", "0", "0.0004 0.0005", "0.00041"]),
    ("number", ["25"], ["0.25", "2500%", "25‰"]),
    ("number", ["0"], ["0.0001", "1"]),
    ("number", ["2019"], ["2020", "2018", "2019, 2020"]),
    ("number", ["1000.5"], ["1002.1", "998.9", "__import__('os').getpid()", "1000.5*1", "1e999", "nan", "inf"]),
    (
        "string",
        ["Paris"],
        ["", ".", "a", "The", "P", "not Paris", "isn't Paris", "Paris or London", "Paris, London, Rome"],
    ),
    (
        "string",
        ["Paris"],
        ["Paris London", "Paris/London", "anything but Paris", "Paris? no", "Parisian", "Paris and Rome"],
    ),
    ("string", ["Paris"], ["it is " * 9 + "Paris", "Paris is Paris", "Paris. Or is it Rome?", "in the of"]),
    ("string", ["Paris, France"], ["Paris", "France", "Paris, France or London"]),
    ("string", ["no"], ["Norway", "not", "yes or no", "no one", "know"]),
    ("string", ["Norway"], ["no", "way"]),
    ("string", ["-5"], ["5"]),
    ("string", ["3.14"], ["314", "3 14"]),
    ("string", ["C++"], ["C", "C#"]),
    ("string", ["Hepatitis A"], ["Hepatitis", "Hepatitis B"]),
    ("string", ["..."], ["", ".", "?!", "the"]),
    ("string", ["The"], ["", "a", "."]),
    ("string", ["北京"], ["不是北京", "北京或上海", "北京、上海", "北", "北京市政府", "京", "南京北京"]),
    ("yes_no", ["yes"], ["", "no", "yes no", "yes or no", "Yes, because", "not yes", "yesterday"]),
    ("yes_no", ["no"], ["Norway", "not", "none", "no way", "不是"]),
    ("list", ["a", "b"], ["", "a", "a, b, c", "a, a, b", "a b", "ab", "a, b, b", "not a, b", ","]),
    ("list", ["x", "x"], ["x"]),
    ("list", ["A"], ["A\nA", "A\nB"]),
]


PAIRS = [(k, g, t, e) for cases, e in ((RIGHT, True), (WRONG, False)) for k, g, texts in cases for t in texts]


@pytest.mark.parametrize("kind, golds, text, expected", PAIRS)
def test_answer(kind, golds, text, expected):
    assert answer_matches(text, golds, kind) is expected
    assert answer_reward([chat(tagged(text))], answer=[golds], answer_kind=[kind]) == [float(expected)]


def test_a_list_of_all_candidates_is_no_answer_to_any():
    candidates = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Kurt Gödel"]
    for joint in (", ", " ", "\n", "; ", " and ", " or ", "/", " is "):
        for gold in candidates:
            assert not answer_matches(joint.join(candidates), [gold])
            assert not answer_matches(joint.join(candidates[:2]), [gold])


def test_rewards_run_in_threads():
    rows = [(tagged(text), golds, kind, expected) for kind, golds, text, expected in PAIRS]

    def score(row):
        return answer_reward([row[0]], answer=[row[1]], answer_kind=[row[2]]) == [row[3]]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(score, rows * 5))
