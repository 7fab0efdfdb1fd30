"""Rows and files that cannot be used: one message with the file, the row and the field."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from helpers.evaluation import Says, gold, make_config
from longact_trl.evaluation.results import read_samples
from longact_trl.evaluation.run import evaluate


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("choice_C", None, "`choice_C` must be text, but is None"),
        ("context", None, "`context` must be text, but is None"),
        ("answer", "E", "`answer` must be one of A, B, C, D, but is 'E'"),
        ("answer", None, "`answer` must be one of A, B, C, D, but is None"),
        ("difficulty", "Easy", "`difficulty` must be one of easy, hard, but is 'Easy'"),
        ("length", None, "`length` must be one of short, medium, long, but is None"),
        ("domain", None, "`domain` must be text"),
        ("_id", None, "`_id` must be a name or a number, but is None"),
    ],
)
def test_a_row_of_longbench(config, field, value, named):
    """Also the last one of those that are asked, and before the model is loaded."""
    config = config(benchmarks=["longbench_v2"], num_samples=None)
    file = Path(config.longbench_v2_data, "data.json")
    rows = json.loads(file.read_text())
    rows[4][field] = value
    file.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=f"longbench_v2_data: .*{named}") as error:
        evaluate(config)
    assert "row 4 of data.json" in str(error.value)
    config.num_samples = 4
    if value == "E":
        assert evaluate(config, Says(gold))["units"][0]["num_samples"] == 4


def test_a_field_of_another_type_everywhere(config):
    config = config(benchmarks=["longbench_v2"])
    file = Path(config.longbench_v2_data, "data.json")
    file.write_text(json.dumps([row | {"choice_A": 3} for row in json.loads(file.read_text())]))
    with pytest.raises(ValueError, match="row 0 of data.json in .*: `choice_A` must be text, but is 3"):
        evaluate(config)


@pytest.mark.parametrize(
    ("task", "changes", "named"),
    [
        ("passkey", {"answer": None}, "`answer` must be text or a list of texts, but is None"),
        ("passkey", {"answer": []}, r"`answer` must be text or a list of texts, but is \[\]"),
        ("passkey", {"context": None}, "`context` must be text, but is None"),
        ("longbook_choice_eng", {"options": None}, "`options` must be a list of texts, but is None"),
        ("longbook_choice_eng", {"options": ["Anna", "Bo"]}, "are fewer than 4"),
        ("longbook_choice_eng", {"answer": ["Nobody"]}, r"answer=\['Nobody'\] is not exactly one of the options"),
        ("longbook_choice_eng", {"options": ["Bo", "Cy", "Di", "Ed", "Anna"]}, r"answer=\['Anna'\] is not exactly"),
        ("passkey", {"answer": [71432]}, r"`answer` must be text or a list of texts, but is \[71432\]"),
        ("passkey", {"answer": [""]}, r"answer=\[''\] is no number in digits"),
        ("number_string", {"answer": "none"}, "answer='none' is no number in digits"),
        ("longbook_qa_eng", {"context": "\ud800"}, "`context` must be text"),
        ("longbook_qa_chn", {"id": None}, "`id` must be a name or a number, but is None"),
        ("longbook_qa_chn", {"id": True}, "`id` must be a name or a number, but is True"),
    ],
)
def test_a_row_of_infinitebench(config, task, changes, named):
    config = config(benchmarks=["infinitebench"], tasks=[task], num_samples=None)
    file = Path(config.infinitebench_data, f"{task}.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1] |= changes
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=f"infinitebench_data: row 1 of {task}.jsonl in .*{named}"):
        evaluate(config)


@pytest.mark.parametrize("line", ["null", '{"id": 1', "[]", '{"id": 1}'])
def test_a_line_of_infinitebench(config, line):
    """`datasets` ends the process without a word at a line that is null."""
    config = config(benchmarks=["infinitebench"], tasks=["passkey"], num_samples=None)
    file = Path(config.infinitebench_data, "passkey.jsonl")
    file.write_text(file.read_text() + line)
    named = "row 2 of passkey.jsonl in .*`context` must be text, but is missing"
    with pytest.raises(ValueError, match="infinitebench_data: .*" + (named if line.endswith("}") else "line 3")):
        evaluate(config)


def test_rows_are_read_as_they_stand_now(config):
    """Texts that look like dates, a gold that is text among lists, and a file changed within one tick of the clock."""
    config = config(benchmarks=["infinitebench"], tasks=["longbook_qa_eng"], num_samples=None)
    file = Path(config.infinitebench_data, "longbook_qa_eng.jsonl")
    rows = [{"id": i, "context": "2020-01-02", "input": "?", "answer": ["2020-01-02"]} for i in range(3)]
    for i, answer in enumerate(["2020-01-02", ["2021-03-04"], ["May"]]):
        rows[i]["answer"] = answer
        file.write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\r\n" for row in rows).encode())
        os.utime(file, (1e9, 1e9))
        evaluate(config, Says(gold))
        samples = read_samples(Path(config.output_dir, "samples", "infinitebench-longbook_qa_eng.jsonl"))
        assert samples[i]["gold"] == ([answer] if isinstance(answer, str) else answer)


def test_a_file_without_rows(config):
    config = config(benchmarks=["infinitebench"], tasks=["passkey"])
    Path(config.infinitebench_data, "passkey.jsonl").write_text("")
    with pytest.raises(ValueError, match="infinitebench_data: .*passkey.jsonl"):
        evaluate(config)


SQUAD = {"data": [{"paragraphs": [{"context": "A b.", "qas": [{"question": "?", "is_impossible": False}]}]}]}
HOTPOTQA = {"question": "?", "answer": "a", "context": [["T", ["a"]]], "supporting_facts": [["T", 0]]}


def squad(*answers) -> dict:
    """A file with one question that has these answers."""
    qa = {"question": "?", "is_impossible": False, "answers": [{"text": answer} for answer in answers]}
    return {"data": [{"paragraphs": [{"context": "A b.", "qas": [qa]}]}]}


@pytest.mark.parametrize(
    ("task", "source", "content", "named"),
    [
        ("qa_1", "squad", SQUAD, "question 0 of paragraph 0 of article 0 has no `answers`"),
        ("qa_1", "squad", {"data": [{"paragraphs": [{"qas": []}]}]}, "paragraph 0 of article 0 has no `context`"),
        ("qa_1", "squad", [], "has no `data`"),
        ("qa_1", "squad", squad(), r"question 0 of paragraph 0 of article 0 has the answers \[\]"),
        ("qa_1", "squad", squad("b", ""), r"question 0 of paragraph 0 of article 0 has the answers \['b', ''\]"),
        ("qa_2", "hotpotqa", [HOTPOTQA | {"answer": None}], "`answer` of question 0 must be text, but is None"),
        ("qa_2", "hotpotqa", [HOTPOTQA, HOTPOTQA | {"answer": ""}], r"question 1 has the answers \[''\]"),
        ("qa_2", "hotpotqa", [HOTPOTQA | {"context": [["T"]]}], r"`context` of question 0 holds \['T'\]"),
        ("qa_2", "hotpotqa", [HOTPOTQA | {"context": [["T", [3]]]}], r"`context` of question 0 holds \['T', \[3\]\]"),
        ("qa_2", "hotpotqa", [HOTPOTQA | {"supporting_facts": [3]}], "`supporting_facts` of question 0 holds 3"),
        ("qa_2", "hotpotqa", HOTPOTQA, "the file is no list of questions"),
        ("qa_2", "hotpotqa", [{"question": "?"}], "question 0 has no `answer`"),
        ("niah_single_2", "essays", {"words": 1}, "has no `text`"),
    ],
)
def test_a_source_of_ruler(config, tmp_path, task, source, content, named):
    file = tmp_path / "source.json"
    file.write_text(json.dumps(content))
    sources = {"english_words": "stand-in", source: str(file)}
    with pytest.raises(ValueError, match=f"{source}='.*source.json' cannot be read .*{named}"):
        evaluate(config(benchmarks=["ruler"], tasks=[task], ruler_sources=sources))
