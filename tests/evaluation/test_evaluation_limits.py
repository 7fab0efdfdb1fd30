"""What a run refuses, what it counts as wrong, and what it must be able to read again."""

import json
from functools import partial
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

from helpers.evaluation import NUM_SAMPLES, Says, gold, make_config, write_infinitebench, write_longbench_v2
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.evaluation.results import read_samples, write_samples
from longact_trl.evaluation.run import evaluate


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


@pytest.fixture
def offline(monkeypatch):
    """Without a network, the Hub is not asked five times."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmarks": ["longbench"]}, "'longbench' is not one of longbench_v2"),
        ({"benchmarks": ["synthetic"]}, "'synthetic' is now called 'tiny_tasks'"),
        ({"tasks": ["niah"]}, "'niah' is not one of niah_single_1"),
        ({"tasks": ["vt"], "benchmarks": ["infinitebench"]}, "has no task of the benchmarks"),
        ({"protocol": "paper"}, "'paper' is not one of official, reasoning"),
        ({"backend": "hf"}, "'hf' is not one of auto, vllm"),
        ({"num_samples": 0}, "num_samples=0 must be at least 1"),
        ({"temperature": -1.0}, "temperature=-1.0 must not be negative"),
        ({"lengths": []}, "Nothing to run"),
        ({"lengths": [4096, 16384]}, "RULER at 16384 tokens does not fit .* give `--lengths 4096`"),
        ({"longbench_v2_data": "/nowhere"}, "longbench_v2_data: '/nowhere' can neither be read here nor reached"),
        ({"infinitebench_data": "some/where"}, "Download passkey.jsonl .* `infinitebench_data`"),
        ({"infinitebench_data": "generated", "benchmarks": ["infinitebench"]}, "but not 'longbook_sum_eng'"),
        ({"ruler_sources": {}}, "RULER needs essays"),
        ({"ruler_sources": "{essays: stand-in}"}, r"ruler_sources='{essays: stand-in}' is not JSON: write '{\"NAME\""),
        ({"ruler_sources": "3"}, "ruler_sources=3 must be names with values"),
        ({"model_args": '["dtype"]'}, r"model_args=\['dtype'\] must be names with values"),
        ({"model_args": {"peft": "some/adapter"}}, "model_args: 'peft' is decided by `model`: write that"),
        ({"model_args": {"max_length": 512}}, "'max_length' is decided by `max_model_length`"),
        ({"ruler_sources": {"essay": "stand-in"}}, "'essay' is not one of essays, squad"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(config, settings, message, offline):
    with pytest.raises(ValueError, match=message):
        evaluate(config(**settings))


def test_another_tasks_file_is_never_read_in_the_place_of_a_missing_one(config, tmp_path):
    folder = write_infinitebench(tmp_path / "some")
    Path(folder, "longbook_sum_eng.jsonl").unlink()
    for source in (folder, f"{folder}/passkey.jsonl"):
        with pytest.raises(ValueError, match="infinitebench_data: .* is no folder with (longbook_sum|number_str)"):
            evaluate(config(benchmarks=["infinitebench"], infinitebench_data=source), Says(gold))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"_id": "a", "question": "?"}]',
            "have no context, choice_A, choice_B, choice_C",
        ),
        ("no json", "cannot be read.*line 1"),
    ],
)
def test_data_that_are_something_else_are_named(config, tmp_path, content, message):
    (tmp_path / "data.json").write_text(content)
    for source in (tmp_path, tmp_path / "data.json"):
        with pytest.raises(ValueError, match=f"longbench_v2_data: .*{message}"):
            evaluate(config(benchmarks=["longbench_v2"], longbench_v2_data=str(source)), Says(gold))


def test_a_folder_of_parquet_files_is_read_as_longbench(config, tmp_path):
    rows = json.loads(Path(write_longbench_v2(tmp_path / "json"), "data.json").read_text())
    (tmp_path / "parquet").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    settings = {"benchmarks": ["longbench_v2"], "longbench_v2_data": str(tmp_path / "parquet")}
    [unit] = evaluate(config(**settings), Says(gold))["units"]
    assert unit["score"] == 100.0


def test_a_mistake_claims_no_folder(config):
    with pytest.raises(ValueError, match="RULER needs essays"):
        evaluate(config(benchmarks=["ruler"], tasks=["niah_single_2"], ruler_sources={}), Says(gold))
    [unit] = evaluate(config(benchmarks=["ruler"], tasks=["niah_single_2"]), Says(gold))["units"]
    assert unit["score"] == 100.0


def test_thinking_as_long_as_the_papers_leaves_room_for_the_shortest_length(config):
    settings = {"protocol": "reasoning", "reasoning_tokens": 4096, "lengths": [4096], "max_model_length": 16384}
    [unit] = evaluate(config(benchmarks=["ruler"], tasks=["vt"], **settings), Says(gold))["units"]
    assert unit["num_samples"] == NUM_SAMPLES


def test_a_first_turn_that_never_ends_its_thinking_is_wrong(config):
    lm = Says(lambda doc: "<think> so far" if doc["task"] == "cot" else f"<think></think>{gold(doc)}")
    settings = {"protocol": "reasoning", "benchmarks": ["longbench_v2"], "longbench_v2_cot": True}
    [unit] = evaluate(config(**settings), lm)["units"]
    assert (unit["score"], unit["unfinished"]) == (0.0, NUM_SAMPLES)


def test_a_window_is_only_asked_of_what_runs(config):
    settings = {"benchmarks": ["ruler", "infinitebench"], "tasks": ["passkey"], "lengths": [131072]}
    [unit] = evaluate(config(**settings, infinitebench_data="generated", max_model_length=4096), Says(gold))["units"]
    assert unit["name"] == "infinitebench-passkey"


def test_samples_with_unusual_line_ends_are_read_again(tmp_path):
    rows = [{"response": "a\u2028b\u0085c\u2029"}, {"response": "d"}]
    write_samples(tmp_path / "samples.jsonl", rows)
    assert read_samples(tmp_path / "samples.jsonl") == rows


def test_a_model_that_is_not_there(offline):
    with pytest.raises(ValueError, match="'no/such-model': neither a folder with a model here, nor reachable"):
        evaluate(EvaluationConfig(model="no/such-model", benchmarks=["tiny_tasks"]))
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        EvaluationConfig()
