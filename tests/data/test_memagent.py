import logging

import pytest

from helpers.data import assert_golds_earn_the_reward, read_fixture, write_jsonl
from helpers.paths import FIXTURES
from longact_trl.data import memagent
from longact_trl.data.memagent import load_memagent
from longact_trl.data.rows import RL_FEATURES


SOURCE = str(FIXTURES / "memagent.jsonl")


def test_prompts_hold_the_documents_and_the_question():
    rows = load_memagent(SOURCE, max_bad_share=0.4)
    assert rows.features == RL_FEATURES
    assert [(row["answer"], row["answer_kind"]) for row in rows] == [
        (["New Harrow", "New Harrow City"], "string"),
        (["no"], "yes_no"),
        (["Ondra Vale"], "string"),
        (["大江口", "“大江口”"], "string"),
        (["1902"], "string"),
        (["The Lark Prize", "Lark Prize", "the lark prize."], "string"),
    ]
    assert_golds_earn_the_reward(rows)
    for row, before in zip(rows, read_fixture("memagent.jsonl"), strict=False):
        (message,) = row["prompt"]
        context, question = before["context"], before["prompt"][0]["content"]
        assert f"\n\n{context}\n\nQuestion: {question}\n\nFirst reason" in message["content"]


def test_a_prompt_does_not_give_away_that_the_answer_is_yes_or_no():
    rows = load_memagent(SOURCE, max_bad_share=0.4)
    requests = {row["prompt"][0]["content"].rpartition("\n\n")[2] for row in rows}
    assert len(requests) == 1


def test_bad_rows_are_counted_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        load_memagent(SOURCE, max_bad_share=0.4)
    assert "4 of 10 rows are bad (40.0%)" in caplog.text
    assert "1 x no context (rows 6" in caplog.text
    assert "2 x no gold answer (rows 7, 8" in caplog.text
    assert "1 x no question (rows 9" in caplog.text


def test_two_hundred_documents_arrive_whole(tmp_path):
    row = read_fixture("memagent.jsonl")[0]
    row["context"] = "\n\n".join(f"Document {i}:\nTitle {i}\n{'Some text. ' * 60}" for i in range(1, 201))
    (loaded,) = load_memagent(write_jsonl(tmp_path / "long.jsonl", [row]))
    assert row["context"].strip() in loaded["prompt"][0]["content"]


def test_the_hub_is_asked_for_the_file_of_the_split(monkeypatch):
    asked = []
    monkeypatch.setattr(memagent, "convert_rows", lambda *arguments: asked.append(arguments[2:5]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_memagent(split="validation")
    assert asked == [("BytedTsinghua-SIA/hotpotqa", "validation", "hotpotqa_dev.parquet")]
    with pytest.raises(ValueError, match="split must be one of train, validation, but is 'test'"):
        load_memagent(split="test")
