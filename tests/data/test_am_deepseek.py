import json
import logging
import os
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from math import log

import pytest
from datasets import Dataset
from trl.data_utils import apply_chat_template, is_conversational

from helpers.data import read_fixture, write_jsonl
from helpers.hub_server import Hub, environment_of
from helpers.paths import FIXTURES, ROOT
from longact_trl.data import stream
from longact_trl.data.am_deepseek import load_am_deepseek
from longact_trl.data.rows import SFT_FEATURES
from longact_trl.data.stream import reservoir
from longact_trl.rewards.tagged import format_reward


SOURCE = str(FIXTURES / "am_deepseek.jsonl")


@pytest.fixture
def am():
    return load_am_deepseek(SOURCE, category="all", max_bad_share=0.5)


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
        load_am_deepseek(SOURCE, category="all", max_bad_share=0.5)
    assert "5 of 11 rows are bad" in caplog.text
    for reason in (
        "no think_content and no <think> in the value",
        "no answer_content and nothing after </think> in the value",
        "the completion is not one <think> and one <answer>",
        "unknown speaker",
        "the conversation does not end with a question and its reply",
    ):
        assert f"1 x {reason} (rows " in caplog.text


def rows_of(category: str, number: int, name: str) -> list[dict]:
    """Rows of one category, each of which says where it is from."""
    rows = []
    for i in range(number):
        row = deepcopy(read_fixture("am_deepseek.jsonl")[0])
        for turn in row["conversations"]:
            turn["info"]["category"] = category
        rows.append({**row, "system": f"{name} {i}"})
    return rows


def systems(rows: Dataset) -> list[str]:
    return [prompt[0]["content"] for prompt in rows["prompt"]]


def test_the_cold_start_is_of_instruction_following(tmp_path):
    mixed = rows_of("math", 20, "math") + rows_of("if", 9, "if") + rows_of("code", 20, "code")
    source = write_jsonl(tmp_path / "mixed.jsonl", mixed)
    assert sorted(systems(load_am_deepseek(source, category="if"))) == [f"if {i}" for i in range(9)]
    assert len(load_am_deepseek(source)) == len(load_am_deepseek(source, category="all")) == 49
    assert set(load_am_deepseek(source, category="code")["task"]) == {"am_deepseek/code"}
    with pytest.raises(ValueError, match=r"no row of 'iff': there are math \(20\), code \(20\), if \(9\)$"):
        load_am_deepseek(source, category="iff")


def test_fewer_rows_than_asked_for_are_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load_am_deepseek(write_jsonl(tmp_path / "few.jsonl", rows_of("if", 9, "if")), max_rows=10)
    assert "there are only 9 of the 10 rows asked for" in caplog.text


def test_rows_are_drawn_alike_from_files_of_any_size(tmp_path):
    folder = tmp_path / "am"
    folder.mkdir()
    for number, size in enumerate((300, 1200, 100)):
        write_jsonl(folder / f"part_{number}.jsonl", rows_of("if", size, f"{number}"))
    drawn = [system.split() for system in systems(load_am_deepseek(str(folder), category="if", max_rows=400))]
    assert len(drawn) == len({tuple(words) for words in drawn}) == 400
    counts = Counter(file for file, _ in drawn)
    for file, share in {"0": 75, "1": 300, "2": 25}.items():  # a quarter of each, within four standard deviations
        assert abs(counts[file] - share) < 4 * (share * 0.75) ** 0.5, counts
    assert [file for file, _ in drawn] != sorted(file for file, _ in drawn)


def test_every_row_of_a_stream_is_as_likely():
    counts, draws = Counter(), 4000
    for seed in range(draws):
        counts.update(dict(reservoir("abcdefgh", 3, seed)).values())
    assert sum(counts.values()) == 3 * draws
    for row in "abcdefgh":
        assert abs(counts[row] / draws - 3 / 8) < 4 * (3 / 8 * 5 / 8 / draws) ** 0.5, counts


def test_what_may_yet_be_replaced_is_little(tmp_path, monkeypatch):
    """A stream is read once, and of n rows about size · (1 + ln(n / size)) are converted."""
    source = write_jsonl(tmp_path / "many.jsonl", rows_of("if", 3000, "row"))
    converted = []
    convert = stream.convert_or_name
    monkeypatch.setattr(stream, "convert_or_name", lambda *args: converted.append(1) or convert(*args))
    assert len(load_am_deepseek(source, max_rows=30)) == 30
    assert len(converted) < 2 * 30 * (1 + log(100))


def test_the_seed_decides_which_rows_and_their_order(tmp_path):
    source = write_jsonl(tmp_path / "many.jsonl", rows_of("if", 200, "row"))
    first, again, other = (load_am_deepseek(source, max_rows=20, seed=seed).to_list() for seed in (1, 1, 2))
    assert first == again != other
    everything = [systems(load_am_deepseek(source, seed=seed)) for seed in (1, 2)]
    assert sorted(everything[0]) == sorted(everything[1]) and everything[0] != everything[1]


def test_an_edited_file_is_read_again(tmp_path):
    rows = read_fixture("am_deepseek.jsonl")[:2]
    path = tmp_path / "some.jsonl"
    for times in (1, 2):
        write_jsonl(path, rows * times)
        os.utime(path, (1e9, 1e9))  # as an archive leaves it
        assert len(load_am_deepseek(str(path), category="math")) == 2 * times


def test_several_files_of_a_folder_may_be_chosen(tmp_path):
    folder = tmp_path / "am"
    folder.mkdir()
    rows = read_fixture("am_deepseek.jsonl")[:2]
    for name in ("math_1", "math_2", "code"):
        Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    assert len(load_am_deepseek(str(folder), data_files="*math*", category="math")) == 4


def test_a_field_that_nobody_reads_may_change_its_type_between_files_of_the_hub(tmp_path):
    """And a stream of the Hub is read as files here are."""
    rows = rows_of("if", 2, "a") + rows_of("if", 2, "b")
    for row, value in zip(rows, [None, "text", 1, {"a": [1]}], strict=True):
        row["conversations"][-1]["info"]["test_case"] = value
    loads = (
        "from longact_trl.data.am_deepseek import load_am_deepseek as load; print(load('me/am', max_rows=9).num_rows)"
    )
    with Hub() as hub:
        hub.files["me/am"] = {f"{n}.jsonl": json.dumps(row).encode() for n, row in enumerate(rows)}
        environment = {**environment_of(hub), "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", loads], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr
