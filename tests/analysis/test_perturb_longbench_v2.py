"""Table 7 and Fig. 6: `longact perturb --task longbench_v2` on small data in the true schema, and the report of it."""

import json

import pytest
from typer.testing import CliRunner

from helpers.data import word_tokenizer
from helpers.evaluation import write_longbench_v2
from helpers.models import make_model
from longact_trl.analysis.questions import PAPER_CASE, longbench_v2_questions
from longact_trl.cli import app
from longact_trl.evaluation.report import markdown
from longact_trl.evaluation.tables import load_evaluations


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Six questions, the paper's case the fifth of them."""
    folder = tmp_path_factory.mktemp("data")
    write_longbench_v2(folder)
    rows = json.loads((folder / "data.json").read_text("utf-8"))
    rows[4]["_id"] = PAPER_CASE
    (folder / "data.json").write_text(json.dumps(rows), "utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    tokenizer = word_tokenizer()
    folder = tmp_path_factory.mktemp("models") / "Qwen3-8B"  # whose rows Table 7 has
    make_model(vocab_size=len(tokenizer), max_position_embeddings=2048).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def perturb(model: str, data: str, output, *options: str) -> dict:
    (output.parent / "text.txt").write_text("The mill stood by the river. " * 9)
    command = ["perturb", model, "--task", "longbench_v2", "--longbench-v2-data", data, "--output", str(output)]
    command += ["--text", str(output.parent / "text.txt"), "--no-dose", "--reasoning-tokens", "8", *options]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads((output / "perturb.json").read_text())


@pytest.mark.parametrize("reasoning_tokens", [0, 64])
def test_questions_are_asked_and_scored_as_the_evaluation_does(data, reasoning_tokens):
    questions = longbench_v2_questions(word_tokenizer(), 2048, reasoning_tokens, data=data)
    assert len(questions) == 6 and questions[4].name == PAPER_CASE
    [question] = longbench_v2_questions(word_tokenizer(), 2048, reasoning_tokens, data=data, names=[PAPER_CASE])
    assert question.input_ids == questions[4].input_ids and question.answers == ["A"]
    assert question.max_new_tokens == 128 + reasoning_tokens
    assert question.score("The correct answer is (A)") == 1.0
    assert question.score("The correct answer is (B)") == 0.0
    assert question.score("333333") is None and question.score("") is None
    thoughts = "<think> The correct answer is (B) </think> The correct answer is (A)"
    assert question.score(thoughts) == (1.0 if reasoning_tokens else 0.0)
    assert not question.truncated
    short = longbench_v2_questions(word_tokenizer(), reasoning_tokens + 128 + 200, reasoning_tokens, data=data)[4]
    assert short.truncated and len(short.input_ids) <= 200 < len(question.input_ids)
    with pytest.raises(ValueError, match="LongBench v2 has no question nowhere"):
        longbench_v2_questions(word_tokenizer(), 2048, 0, data=data, names=["nowhere"])


def test_table_7_from_the_command_to_the_report(model, data, tmp_path):
    summary = perturb(model, data, tmp_path / "out")
    settings = summary["settings"]
    assert (settings["num_prompts"], settings["temperature"], settings["clamp"]) == (6, 1.0, "sample")
    assert list(summary["answers"]) == ["none", "bottom", "top"]
    text = (tmp_path / "out" / "perturb.md").read_text()
    assert f"| {PAPER_CASE} (Fig. 6) | A |" in text and "6 questions, temperature 1;" in text
    # Whatever the random model wrote: these answers are what the report has to count.
    for condition, scores in {"none": [1, 1, 0, 1, None, 0], "bottom": [1, 0, 0, 1, 0, 0], "top": [None] * 6}.items():
        summary["answers"][condition]["scores"] = scores
    (tmp_path / "out" / "perturb.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="'Qwen3-8B, none clamped' has .* Two studies of one model need two reports"):
        load_evaluations([tmp_path / "out", tmp_path / "out"])
    report = markdown(load_evaluations([tmp_path / "out"]))
    lines = report.split("## Table 7")[1].splitlines()
    ours = [line for line in lines if "| ours |" in line]
    assert [line.split("|")[3].strip() for line in ours] == ["3 / 6", "2 / 6", "0 / 6"]
    assert [line.split("|")[3].strip() for line in lines if "| paper |" in line] == [
        "173 / 503",
        "108 / 503",
        "0 / 503",
    ]
    assert "| 0.00 (0.00–39.03) |" in report  # not 0 to 0, which a bootstrap would say
    assert "Points more than Qwen3-8B on the same samples" in report
    assert "| Qwen3-8B w/o High-magnitude Activations | -50.00 (" in report
    assert "| ours |" not in report.split("## Table 1")[1].split("## Table 2")[0]  # no row of the other tables
    assert "reasoning protocol, temperature 1, seed 0, transformers, λ = 0.3, --clamp sample; 6 samples" in report


def test_one_case_pooled_and_greedy(model, data, tmp_path):
    options = ["--case", PAPER_CASE, "--clamp", "pooled", "--temperature", "0"]
    summary = perturb(model, data, tmp_path / "out", *options)
    assert [question["name"] for question in summary["questions"]] == [PAPER_CASE]
    assert summary["settings"]["clamp"] == "pooled" and summary["settings"]["temperature"] == 0


def test_answers_to_other_tasks_are_no_table_7(tmp_path):
    (tmp_path / "perturb.json").write_text(json.dumps({"settings": {"task": "needles"}, "questions": []}))
    with pytest.raises(ValueError, match="has answers to 'needles': Table 7 needs `--task longbench_v2`"):
        load_evaluations([tmp_path])
    (tmp_path / "perturb.json").write_text('{"settings": {"task": "longben')
    with pytest.raises(ValueError, match="perturb.json is no JSON, it may be cut off"):
        load_evaluations([tmp_path])
