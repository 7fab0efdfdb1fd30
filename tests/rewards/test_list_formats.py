"""Lists as people write them, and what is no list of just these items."""

import pytest

from longact_trl.rewards.answers import answer_matches


CASES = [  # golds, what is right, what is wrong
    (
        ["1234", "5678"],
        ["1,234 and 5,678", "1234 and 5678", "1,234; 5,678", "1,234\n5,678", "1,234, 5,678", "1,234 und 5,678"]
        + ["1,234、5,678", "1) 1,234 2) 5,678", "1234和5678", "[1234, 5678]", '["1234", "5678"]', "1234 & 5678"]
        + ["```\n1234\n5678\n```", "\\boxed{1234, 5678}", "• 1234 • 5678", "•1234\n•5678", "1234；5678"]
        + ["1、1234\n2、5678", "①1234②5678", "1234، 5678", "1234؛ 5678", "1234 و 5678", "1,234 as well as 5,678"]
        + [
            "1,234 oraz 5,678",
            "⑴1234⑵5678",
            "⒈1234⒉5678",
            "1️⃣ 1234\n2️⃣ 5678",
            "[1] 1234 [2] 5678",
            "#1 1234\n#2 5678",
            "㊀1234㊁5678",
        ]
        + ["(1234, 5678)", "（1,234、5,678）", "1 234 and 5 678", "1234.0, 5,678.00", "$1,234 and $5,678"]
        + ["1 - 1234\n2 – 5678", "★1234\n★5678", "$\\{\\text{1234}, \\text{5678}\\}$", "1,234 και 5,678"],
        [
            "(1234), (5678)",
            "1234%, 5678",
            "1234.5 and 5678",
            "(1234 or 5678)",
            "1234",
            "1,234 or 5,678",
            "1234 5678",
            "12345678",
            "1,234 and 5,679",
            "-1234 and 5678",
            "(1234), 5678",
        ]
        + ["1234- and 5678", "1234, 5678, 5678", "not 1234 and 5678", "1234, 5678, and 9", "1、1234\n2、5678\n3、9"],
    ),
    (
        ["Smith, John", "Doe, Jane"],
        ["Smith, John and Doe, Jane", "Smith, John; and Doe, Jane", "1. Smith, John\n2. Doe, Jane"]
        + ["1. Smith, John 2. Doe, Jane", "(1) Smith, John; (2) Doe, Jane", "a) Smith, John b) Doe, Jane"]
        + ["Smith, John & Doe, Jane", "Smith, John und Doe, Jane", "i. Smith, John ii. Doe, Jane"]
        + [
            "Smith, John, Doe, Jane",
            '"Smith, John", "Doe, Jane"',
            '["Doe, Jane", "Smith, John"]',
            "“Smith, John”“Doe, Jane”",
        ]
        + [
            "'Smith, John' 'Doe, Jane'",
            "“Smith, John” and “Doe, Jane”",
            "Smith, John y Doe, Jane",
            "Smith, John et Doe, Jane",
        ],
        [
            "Smith, John or Doe, Jane",
            "Smith, Doe, John and Jane",
            "Smith; John; Doe; Jane",
            "Smith, John\nDoe\nJane",
            '"Smith, John" or "Doe, Jane"',
            '"Smith, John" not "Doe, Jane"',
            '"Smith", "John", "Doe", "Jane"',
            "John Smith and Jane Doe",
            "Smith, John / Doe, Jane",
        ],
    ),
    (
        ["张三", "李四", "王五"],
        ["1、张三\n2、李四\n3、王五", "1、张三2、李四3、王五", "（1）张三（2）李四（3）王五", "①张三②李四③王五"]
        + [
            "一、张三\n二、李四\n三、王五",
            "一、张三；二、李四；三、王五",
            "1.张三 2.李四 3.王五",
            "1）张三\n2）李四\n3）王五",
        ]
        + [
            "1．张三\n2．李四\n3．王五",
            "张三、李四和王五",
            "张三；李四；王五",
            "张三、李四以及王五",
            "张三、李四、以及王五",
        ]
        + ["张三與李四、王五", "· 张三\n· 李四\n· 王五", "（一）张三（二）李四（三）王五", "❶张三❷李四❸王五"]
        + ["⑴张三⑵李四⑶王五", "⒈张三⒉李四⒊王五", "\u3000张三\n\u3000李四\n\u3000王五", "1、张三；2、李四；3、王五。"],
        ["张三、李四", "张三、李四或王五", "不是张三、李四、王五", "1、张三2、李四", "①张三②李四", "张三李四王五"]
        + ["一、张三\n二、李四", "张三、李四、王五、赵六", "①张三②李四③王五④赵六"],
    ),
    (
        ["a b", "c", "d"],
        ["1. a b\n2. c\n3. d", "1. a b\n1. c\n1. d", "1) a b, 2) c, and 3) d", "a b, c, and d", "* a b\n* c\n* d"]
        + ["– a b\n– c\n– d", "(a) a b (b) c (c) d", "A. a b\nB. c\nC. d", "I. a b\nII. c\nIII. d", "a b, c und d"]
        + ["a b & c & d", "a b, c & d", "a b, c y d", "a b, c e d"]
        + ["The answer is a b, c and d", "The answers are: a b, c, d.", "Answer: a b; c; d", "答案是a b、c、d"]
        + ["a b | c | d", "| a b |\n| c |\n| d |", "a b<br>c<br>d"]
        + ["a b, c, & d", "a b, c ve d", "a b, c i d", "a b, c és d", "a b, c і d"],
        ["The answer is not a b, c, d", "The answer is a b, c or d", "answer", "The answer is e: a b, c, d"]
        + [
            "| a b | c |",
            "a b | c | d | e",
            "a b <br> c",
            "1. a b\n2. c",
            "1. a b 2. c 2. d x",
            "a b, c or d",
            "a b c d",
            "a, b, c, d",
            "a b, c, d, e",
            "a b, y, c, d",
        ]
        + ["a b, c, d, &", "1. a b 2. c 3. d 4. e", "1. a b\n- c\nd", "1. not a b 2. c 3. d"]
        + ["a b, &, c, d", "1 a b\n2 c\n3 d", "a b - c - d", "1 - a b, 2 - c, 3 - d"],
    ),
    (["-5", "3"], ["-5, 3", "–5 and 3", "-5\n3"], ["- 5\n- 3", "5, 3", "(5), 3", "5, -3", "- 5\n3"]),
    (["5", "3"], ["- 5\n- 3", "1. 5\n2. 3", "(1) 5 (2) 3"], ["-5, 3", "(5), 3", "- 5\n3", "5-, 3", "–5, 3"]),
    (
        ["Tom and Jerry", "Felix"],
        ["Tom and Jerry, Felix", "Felix, and Tom and Jerry", "Tom and Jerry and Felix", "Felix and Tom and Jerry."]
        + ["'Tom and Jerry' 'Felix'"],
        ["Tom, Jerry, Felix", "Tom and Jerry", "Tom and Felix and Jerry", "Tom and Jerry and Felix and Tom"]
        + ["Tom & Jerry and Felix or Tom", "Tom and Jerry Felix"],
    ),
    (["And Then There Were None", "Emma"], ["Emma, And Then There Were None"], ["Emma, Then There Were None, and"]),
    (["Hawai'i", "O'ahu"], ["Hawai´i, O´ahu", "Hawaiʻi and Oʻahu"], ["Hawaii"]),
    (["Charles I", "Anne"], ["Charles I and Anne", "Anne & Charles I"], ["Charles, Anne", "Charles I Anne"]),
    (["I've", "You"], ["I've, You", "You and I've"], ["I', You", "ve, You"]),
    (["R & B", "AT&T"], ["R & B, AT&T", "AT&T; R & B"], ["R, B, AT&T", "R & B, AT, T"]),
    (["5%", "$10"], ["5 %, $ 10", "5 percent and $10", "$10; 5 per cent"], ["5, $10", "-5%, $10", "5%, -$ 10"]),
    (
        ["红楼梦", "西游记"],
        [
            "《红楼梦》《西游记》",
            "《红楼梦》 《西游记》",
            "「红楼梦」「西游记」",
            "《红楼梦》、《西游记》",
            "红楼梦\u2028西游记",
        ],
        ["《红楼梦西游记》", "《红楼梦》", "《红楼梦》《西游记》《水浒传》", "红楼梦西游记", "《红楼梦》或《西游记》"],
    ),
    (["$5", "6$"], ["$5\n6$", "6$, $5"], ["5, 6"]),
    (["与", "中"], ["与\n中", "中、与"], ["与\n与\n中", "和与\n中"]),  # a word for "and" is an item, or a part of one
    (["田", "中"], ["田和中", "中\n田"], ["和田、中", "田、中和", "及田\n中"]),
]
PAIRS = [
    (golds, text, right)
    for golds, *sides in CASES
    for right, texts in zip((True, False), sides, strict=True)
    for text in texts
]


@pytest.mark.parametrize("golds, text, right", PAIRS)
def test_a_list(golds, text, right):
    assert answer_matches(text, golds, "list") is right
    if right:
        assert not answer_matches(text, [*golds, golds[0]], "list") and not answer_matches(text, golds[1:], "list")
