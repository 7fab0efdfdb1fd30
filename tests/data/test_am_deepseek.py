import logging

import pytest
from datasets import Dataset
from trl.data_utils import apply_chat_template, is_conversational

from helpers.data import read_fixture, write_jsonl
from helpers.paths import FIXTURES
from longact_trl.data import rows as rows_module
from longact_trl.data.am_deepseek import load_am_deepseek
from longact_trl.data.rows import SFT_FEATURES
from longact_trl.rewards.tagged import format_reward


SOURCE = str(FIXTURES / "am_deepseek.jsonl")


@pytest.fixture
def am():
    return load_am_deepseek(SOURCE, max_bad_share=0.5)


def test_tags_are_rebuilt(am):
    assert am.features == SFT_FEATURES
    assert format_reward(am["completion"], strict=True) == [1.0] * 6
    completions = sorted(completion[0]["content"] for completion in am["completion"])
    twelve = "<think>\nSeven and five make twelve.\n</think>\n<answer>\n7 + 5 = **12**\n</answer>"
    assert completions == [
        "<think>\nOne more than before.\n</think>\n<answer>\n13\n</answer>",
        *[twelve] * 4,
        "<think>\n七加五是十二。\n</think>\n<answer>\n十二\n</answer>",
    ]
    assert set(am["task"]) == {"am_deepseek/math", "am_deepseek/chat"}


def test_prompts_keep_system_and_turns_and_ask_for_the_tags_once(am):
    assert all(prompt[-1]["content"].count("<answer> your answer </answer>") == 1 for prompt in am["prompt"])
    roles = sorted([message["role"] for message in prompt] for prompt in am["prompt"])
    assert roles == [["system", "user"], *[["user"]] * 4, ["user", "assistant", "user"]]


def test_trl_renders_prompt_and_completion(am, tokenizer):
    for row in am:
        assert is_conversational(row)
        rendered = apply_chat_template(row, tokenizer)
        assert rendered["prompt"].endswith("<|assistant|>")
        assert rendered["completion"] == row["completion"][0]["content"] + "<|end|>"


def test_bad_rows_are_counted_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        load_am_deepseek(SOURCE, max_bad_share=0.5)
    assert "5 of 11 rows are bad" in caplog.text
    for reason in (
        "no think_content and no <think> in the value",
        "no answer_content and nothing after </think> in the value",
        "the completion is not one <think> and one <answer>",
        "unknown speaker",
        "the conversation does not end with a question and its reply",
    ):
        assert f"1 x {reason} (rows " in caplog.text


def test_no_more_is_streamed_than_asked_for(tmp_path, monkeypatch):
    row = read_fixture("am_deepseek.jsonl")[0]
    source = write_jsonl(tmp_path / "many.jsonl", [row] * 5000)
    read = []
    convert = rows_module.convert_or_name
    monkeypatch.setattr(rows_module, "convert_or_name", lambda *args: read.append(1) or convert(*args))
    assert len(load_am_deepseek(source, max_rows=30)) == len(read) == 30


def test_the_seed_decides_which_rows(tmp_path):
    row = read_fixture("am_deepseek.jsonl")[0]
    rows = [{**row, "system": f"You are number {i}."} for i in range(200)]
    source = write_jsonl(tmp_path / "many.jsonl", rows)
    first, again, other = (load_am_deepseek(source, max_rows=20, seed=seed).to_list() for seed in (1, 1, 2))
    assert first == again != other


def test_an_edited_file_is_read_again(tmp_path):
    rows = read_fixture("am_deepseek.jsonl")[:2]
    path = tmp_path / "some.jsonl"
    assert len(load_am_deepseek(write_jsonl(path, rows))) == 2
    assert len(load_am_deepseek(write_jsonl(path, rows * 2))) == 4


def test_several_files_of_a_folder_may_be_chosen(tmp_path):
    folder = tmp_path / "am"
    folder.mkdir()
    rows = read_fixture("am_deepseek.jsonl")[:2]
    for name in ("math_1", "math_2", "code"):
        Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    assert len(load_am_deepseek(str(folder), data_files="*math*")) == 4
