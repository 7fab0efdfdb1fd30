"""From what a source holds as a gold answer to what is compared: the right answer earns 1, nothing wrong does."""

from datetime import date
from decimal import Decimal

import pytest
from datasets import Dataset

from helpers.data import write_jsonl
from longact_trl.data.docqa import convert_row, load_docqa
from longact_trl.data.golds import InvalidRow, gold_texts, sounds_missing
from longact_trl.data.rows import read_prompts
from longact_trl.rewards.tagged import answer_reward


def docqa_row(gold, ability="doc-math"):
    prompt = [{"role": "user", "content": "How much?"}]
    return {"data_source": "docmath", "prompt": prompt, "ability": ability, "reward_model": {"ground_truth": gold}}


def earned(row, answer):
    completion = f"<think>so</think><answer>{answer}</answer>"
    return answer_reward([completion], answer=[row["answer"]], answer_kind=[row["answer_kind"]])[0]


@pytest.mark.parametrize("minus", "-–‐‑—−﹣－")
@pytest.mark.parametrize("sentence", ["{}", "Therefore, the answer is {}.", "Therefore, the answer is ({})."])
def test_a_negative_gold(minus, sentence):
    for number in (f"{minus}31.5", f"{minus}$31.5", "$(31.5)", "($31.5)", "31.5-"):
        if "answer is" in sentence and (number.startswith("(") or ("(" in number and "(" in sentence)):
            continue  # there DocQA's own format has brackets around the answer
        row = convert_row(docqa_row(sentence.format(number)))
        assert row["answer_kind"] == "number"
        assert (earned(row, "-31.5"), earned(row, "31.5")) == (1.0, 0.0)


@pytest.mark.parametrize(
    "gold, answer",
    [
        ("Therefore, the answer is USD 1,234.5.", "$1234.5"),
        ("12,34,567", "1234567"),
        ("14.2 per cent", "14.2%"),
        ("“42”", "42"),
        ("$$42$$", "42"),
        (42, "42"),
        (-4.5, "-4.5"),
        (1e-5, "0.00001"),
        (True, "yes"),
        (False, "No"),
        ("True", "yes"),
        ([None, 42], "42"),
        ([42.0, "42"], "42"),
    ],
)
def test_a_gold_of_a_numeric_source(gold, answer):
    row = convert_row(docqa_row(gold))
    assert row["answer_kind"] in ("number", "yes_no") and earned(row, answer) == 1.0


MISSING = [
    None,
    float("nan"),
    float("inf"),
    "",
    " ",
    "nan",
    "NaN",
    "None",
    "null",
    "N/A",
    "n/a",
    "<NA>",
    "#N/A",
    "NaT",
    "-",
    "—",
]


@pytest.mark.parametrize(
    "gold", [*MISSING, [], [None, "nan"], "Therefore, the answer is nan.", "Therefore, the answer is (N/A)."]
)
@pytest.mark.parametrize("ability", ["doc-math", "doc-qa", "doc-mc"])
def test_a_missing_gold_is_no_row(gold, ability):
    with pytest.raises(InvalidRow, match="no gold answer"):
        convert_row(docqa_row(gold, ability))


@pytest.mark.parametrize(
    "gold",
    [
        "thousands of crowns",
        "about 5",
        "5 or 6",
        "5–7",
        "see table 3",
        "31.5 (loss)",
        "1.234,5",
        {"a": 1},
        [5, "many"],
    ],
)
def test_a_gold_that_is_no_number_is_no_string_either(gold):
    with pytest.raises(InvalidRow, match="a question for a number|neither text nor a number"):
        convert_row(docqa_row(gold))


def test_a_title_is_neither_yes_nor_missing():
    for gold in ("True", "none", "Nil", "Na", "Nan"):
        assert convert_row(docqa_row(gold, "doc-qa"))["answer_kind"] == "string"


def test_gold_texts():
    assert gold_texts([1, 2.5, Decimal("1.50"), date(2020, 5, 1), True, "x", None]) == [
        "1", "2.5", "1.50", "2020-05-01", "yes", "x",
    ]  # fmt: skip
    assert gold_texts("x") == ["x"] and gold_texts(float("nan")) == [] and gold_texts([]) == []
    assert sounds_missing("nan") and not sounds_missing("Nan")


def test_an_integer_that_a_table_made_a_float_of_is_one():
    row = convert_row(docqa_row(2019.0))
    assert [earned(row, answer) for answer in ("2019", "2019.0", "2020", "2020.0")] == [1.0, 1.0, 0.0, 0.0]


def test_nan_of_a_column_of_numbers(tmp_path):
    rows = [docqa_row(float("nan") if i == 0 else 1.5) for i in range(150)]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    loaded = load_docqa(str(tmp_path / "rows.parquet"))
    assert len(loaded) == 149 and set(map(tuple, loaded["answer"])) == {("1.5",)}


@pytest.mark.parametrize(
    "golds, read",
    [
        ([2, 4, None], ["2", "4"]),
        ([2.5, 4.0, None], ["2.5", "4"]),
        ([2019.0, -3.0, None], ["2019", "-3"]),
        ([True, False, None], ["yes", "no"]),
        ([[2, 4], [6], []], [["2", "4"], ["6"]]),
        ([[0.5], [6.25, None], [None]], [["0.5"], ["6.25"]]),
        (["a", "", "None"], ["a", "None"]),
        ([["a"], ["b", None], None], [["a"], ["b"]]),
    ],
)
def test_answers_of_ones_own(tmp_path, golds, read):
    source = write_jsonl(tmp_path / "own.jsonl", [{"prompt": "?", "answer": gold} for gold in golds])
    assert list(read_prompts(source, "train", max_bad_share=0.5)["answer"]) == read
    with pytest.raises(ValueError, match="1 of 3 rows are bad(.|\n)*no gold answer"):
        read_prompts(source, "train")
