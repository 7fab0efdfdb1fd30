import logging

import pytest
from datasets import Dataset

from helpers.data import assert_golds_earn_the_reward, read_fixture, write_jsonl
from helpers.paths import FIXTURES
from longact_trl.data.docqa import bare_answer, load_docqa, without_format_request
from longact_trl.data.rows import RL_FEATURES


SOURCE = str(FIXTURES / "docqa.jsonl")


@pytest.fixture
def docqa():
    return load_docqa(SOURCE, max_bad_share=0.2)


def test_rows_are_what_trl_and_the_rewards_need(docqa):
    assert docqa.features == RL_FEATURES
    assert [(row["answer"], row["answer_kind"], row["task"]) for row in docqa] == [
        (["B"], "choice", "docqa/doc-mc"),
        (["C"], "choice", "docqa/doc-mc"),
        (["(B)"], "choice", "docqa/doc-mc"),
        (["1,234.5"], "number", "docqa/doc-math"),
        (["-31.0"], "number", "docqa/doc-math"),
        (["14.22%"], "number", "docqa/doc-math"),
        (["Yes"], "yes_no", "docqa/doc-math"),
        (["1.41 million"], "number", "docqa/doc-math"),
        (["yes"], "yes_no", "docqa/doc-qa"),
        (["Insufficient information."], "string", "docqa/doc-qa"),
        (["Velm"], "string", "docqa/doc-qa"),
        (["三个月租金"], "string", "docqa/doc-qa"),
    ]
    assert_golds_earn_the_reward(docqa)


def test_prompts_ask_for_the_tags_and_for_nothing_else(docqa):
    for row, before in zip(docqa, read_fixture("docqa.jsonl"), strict=False):
        (message,) = row["prompt"]
        assert message["role"] == "user"
        document, request = message["content"].split("</text>")
        assert before["prompt"][0]["content"].startswith(document)  # with its own "the answer is (not yet)"
        assert "answer is (" not in request and "Format your" not in request
        assert request.count("<answer> your answer </answer>") == request.count("</think>,") == 1
        question = before["prompt"][0]["content"].split("</text>")[1].partition("\n\nFormat your")[0]
        assert request.startswith(question + "\n\nFirst reason")


def test_bad_rows_are_counted_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        load_docqa(SOURCE, max_bad_share=0.2)
    (message,) = [record.message for record in caplog.records if "rows are bad" in record.message]
    assert "docqa.jsonl: 3 of 15 rows are bad (20.0%)" in message
    assert "1 x no gold answer (rows 12)" in message
    assert "gold answer is no letter (rows 13; the first: ['The channel was deepened'])" in message
    assert "1 x unknown ability or data_source (rows 14" in message and "crossword_0_20000" in message


def test_too_many_bad_rows_stop_the_run():
    with pytest.raises(ValueError, match=r"(?s)3 of 15 rows are bad.*max_bad_share=0.19"):
        load_docqa(SOURCE, max_bad_share=0.19)


def test_parquet_and_a_folder_give_the_same_rows(docqa, tmp_path):
    folder = tmp_path / "docqa"
    folder.mkdir()
    Dataset.from_json(SOURCE).to_parquet(folder / "train.parquet")
    for source in (folder, folder / "train.parquet"):
        assert load_docqa(str(source), max_bad_share=0.2).to_list() == docqa.to_list()


def test_ability_may_be_missing(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "ability"} for row in read_fixture("docqa.jsonl")[:12]]
    assert load_docqa(write_jsonl(tmp_path / "x.jsonl", rows))["task"][3] == "docqa/doc-math"


def test_a_file_of_another_schema_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)2 of 2 rows are bad \(100.0%\).*not in the schema of this source"):
        load_docqa(write_jsonl(tmp_path / "x.jsonl", [{"question": "?", "answer": "!"}] * 2))


@pytest.mark.parametrize(
    "gold, bare",
    [
        ("Paris", "Paris"),
        (" 42 ", "42"),
        ("Therefore, the answer is 42.", "42"),
        ("So the two agree. Therefore, the answer is (3.5).", "3.5"),
        ('"The correct answer is (D)".', "D"),
        ("Therefore, the answer is: U.S.", "U.S"),
        ("Therefore, the answer is (a) and (b).", "(a) and (b)"),
        ("答案是（北京）。", "北京"),
        ("The answer is", "The answer is"),
        ("Therefore, the answer is .5.", ".5"),
        ("Therefore, the answer is (–31.5).", "–31.5"),
    ],
)
def test_gold_in_a_sentence(gold, bare):
    assert bare_answer(gold) == bare


@pytest.mark.parametrize(
    "request_",
    [
        'Format your response as follows: "Therefore, the answer is (insert answer here)".',
        "Format your response as follows: “The correct answer is (insert answer here)”.",
        "Format your answer as follows:\nThe answer is (your answer)\n",
        '"Therefore, the answer is (…)"',
    ],
)
def test_every_known_request_for_a_format_goes(request_):
    question = "The answer is (here) in the text. " * 20 + "What is it?"
    assert without_format_request(f"{question}\n\n{request_}") == question
    assert without_format_request(question) == question
