"""Whole runs through lm-eval with a model that knows the answers, or none of them."""

import json
from functools import partial

import pytest

from helpers.data import byte_tokenizer
from helpers.evaluation import NUM_SAMPLES, Says, gold, make_config
from helpers.models import make_model
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.evaluation.protocols.infinitebench import NAMES
from longact_trl.evaluation.protocols.infinitebench import TASKS as INFINITEBENCH
from longact_trl.evaluation.results import eval_results, read_results
from longact_trl.evaluation.ruler import TASKS as RULER
from longact_trl.evaluation.run import evaluate


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


def all_scores(results: dict) -> dict[str, float]:
    return {unit["name"]: unit["score"] for unit in results["units"]}


NAMES_OF_UNITS = {f"ruler-4096-{task}" for task in RULER} | {f"infinitebench-{task}" for task in INFINITEBENCH}
NAMES_OF_UNITS |= {"longbench_v2-answer", "tiny_tasks"}


@pytest.fixture(scope="module")
def gold_run(tmp_path_factory):
    """A run on everything that knows all answers: its settings, the model and the results."""
    config, lm = make_config(tmp_path_factory.mktemp("gold"), num_samples=6), Says(gold)
    return config, lm, evaluate(config, lm)


def test_gold_answers_score_100_on_every_task(gold_run):
    assert all_scores(gold_run[2]) == dict.fromkeys(NAMES_OF_UNITS, 100.0)


def test_garbage_scores_0_on_every_task(config):
    scores = all_scores(evaluate(config(), Says(lambda doc: "zq")))
    assert scores == dict.fromkeys(NAMES_OF_UNITS, 0.0)


@pytest.mark.parametrize("cot", [False, True])
def test_garbage_after_the_right_thoughts_scores_0_on_every_task(config, cot):
    """At two lengths, one where thinking takes from the prompt, one where the window holds both."""
    lm = Says(lambda doc: f"<think>{', '.join(doc['gold'])}. {gold(doc)}</think>\n<answer>zq</answer>")
    settings = {"protocol": "reasoning", "reasoning_tokens": 500, "longbench_v2_cot": cot, "lengths": [2048, 8192]}
    scores = all_scores(evaluate(config(**settings, num_samples=1), lm))
    assert len(scores) == 2 * len(RULER) + len(INFINITEBENCH) + 2 and set(scores.values()) == {0.0}


@pytest.mark.parametrize("cot", [False, True])
def test_a_reasoning_model_is_scored_after_its_thinking(config, cot):
    """The thinking names a wrong answer; the answer stands in tags, as LongAct's models are trained to write."""
    wrong = "The correct answer is (D). The pass key is 99999."
    lm = Says(lambda doc: f"<think>{wrong}</think>\n<answer>{gold(doc)}</answer>")
    benchmarks = ["longbench_v2", "ruler", "infinitebench"]
    settings = {"protocol": "reasoning", "reasoning_tokens": 500, "benchmarks": benchmarks, "longbench_v2_cot": cot}
    settings["lengths"] = [2048, 8192]
    results = evaluate(config(**settings, num_samples=2), lm)
    assert len(results["units"]) == 2 * len(RULER) + len(INFINITEBENCH) + 1
    assert set(all_scores(results).values()) == {100.0}
    assert results["protocol"] == "reasoning"
    published = {"answer": 128, "cot": 1024, "cot_answer": 128, "passkey": 6, "longbook_sum_eng": 1200, "cwe": 120}
    budgets = {request.doc["task"]: request.args[1]["max_gen_toks"] for request in lm.requests}
    assert {task: budgets[task] for task in published if task in budgets} == {
        task: budget + 500 for task, budget in published.items() if task in budgets
    }
    assert not any("The correct answer is (D)" in request.args[0] for request in lm.requests)  # nor in a second turn


def test_official_scores_what_a_reasoning_model_wrote_first(config):
    results = evaluate(
        config(benchmarks=["longbench_v2"]), Says(lambda doc: "<think>The correct answer is (D)</think>" + gold(doc))
    )
    assert all_scores(results) == {"longbench_v2-answer": 0.0}


def test_thinking_that_never_ends_is_counted_and_wrong(config):
    results = evaluate(
        config(benchmarks=["longbench_v2"], protocol="reasoning"), Says(lambda doc: "<think>" + gold(doc))
    )
    [unit] = results["units"]
    assert (unit["score"], unit["unfinished"]) == (0.0, NUM_SAMPLES)


def test_the_second_turn_quotes_the_first_and_leaves_out_items_without_one(config):
    lm = Says(lambda doc: gold(doc) if doc["sample_id"] != "id1" else "")
    results = evaluate(config(benchmarks=["longbench_v2"], longbench_v2_cot=True, num_samples=None), lm)
    [unit] = results["units"]
    assert (unit["num_samples"], unit["skipped"]) == (6, 1)
    second = [request for request in lm.requests if request.doc["task"] == "cot_answer"]
    assert [request.doc["sample_id"] for request in second] == ["id0", "id2", "id3", "id4", "id5"]
    for request in second:
        assert "Let’s think step by step: It says so.\n\nBased on the above" in request.args[0]
        assert "<text>" not in request.args[0]
    table = dict.fromkeys(("overall", "easy", "hard", "short", "medium", "long"), 100.0)
    assert results["scores"]["longbench_v2"] == table | {"compensated": table}


def test_an_answer_that_cannot_be_read_is_a_quarter_where_compensated(config):
    """Official `compensated`; a wrong letter stays wrong, and an empty response is left out of both."""
    says = {"id1": "The correct answer is (A).", "id2": "I do not know.", "id3": ""}
    lm = Says(lambda doc: says.get(doc["sample_id"], gold(doc)))
    scores = evaluate(config(benchmarks=["longbench_v2"], num_samples=None), lm)["scores"]["longbench_v2"]
    assert (scores["overall"], scores["compensated"]["overall"]) == (60.0, 65.0)  # 3 and 3.25 of 5
    assert (scores["hard"], scores["compensated"]["hard"]) == (50.0, 50.0)
    assert (scores["easy"], scores["compensated"]["easy"]) == (66.7, 75.0)


def test_without_any_first_turn_there_is_no_second(config):
    [unit] = evaluate(config(benchmarks=["longbench_v2"], longbench_v2_cot=True), Says(lambda doc: ""))["units"]
    assert (unit["score"], unit["skipped"]) == (None, NUM_SAMPLES)


def test_an_empty_response_leaves_longbench_items_out_of_the_denominator(config):
    lm = Says(lambda doc: {"id0": gold(doc), "id1": "", "id2": " "}[doc["sample_id"]])
    [unit] = evaluate(config(benchmarks=["longbench_v2"]), lm)["units"]
    assert (unit["score"], unit["skipped"]) == (50.0, 1)


def test_lm_eval_sends_the_prompt_as_it_was_rendered(gold_run):
    requests = gold_run[1].requests
    assert len(requests) >= 6 * 13
    for request in requests:
        assert request.args[0] == request.doc["prompt"]
        assert request.args[1]["until"] == []


def test_truncated_prompts_are_counted_and_strict_stops_before_the_model_is_loaded(config, tmp_path, caplog):
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    make_model().config.save_pretrained(tmp_path / "bytes")
    small = {"benchmarks": ["longbench_v2"], "max_model_length": 1500, "model": str(tmp_path / "bytes")}
    lm = Says(gold)
    with pytest.raises(ValueError, match="3 of 3 prompts .* lost their middle"):
        evaluate(config(**small, strict=True))
    cot = config(**small | {"max_model_length": 2500}, longbench_v2_cot=True, output_dir=str(tmp_path / "cot"))
    [unit] = evaluate(cot, Says(gold))["units"]
    assert unit["truncated"] == NUM_SAMPLES  # in the first turn
    [unit] = evaluate(config(**small), lm)["units"]
    assert unit["truncated"] == NUM_SAMPLES and "lost their middle" in caplog.text
    for request in lm.requests:
        assert 1490 < request.doc["prompt_tokens"] + 128 <= 1500
        assert request.args[0].startswith("<|user|>Please read the following text")
        assert 'Format your response as follows: "The correct answer is (insert answer here)".' in request.args[0]


def test_a_completion_model_continues_plain_text(config, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    make_model(max_position_embeddings=16384).config.save_pretrained(tmp_path / "base")
    settings = {"model": str(tmp_path / "base"), "benchmarks": ["ruler", "infinitebench"], "num_samples": 1}
    lm = Says(gold)
    evaluate(
        config(**settings, lengths=[8192], tasks=["niah_single_1", "passkey", "number_string", "longbook_choice_eng"]),
        lm,
    )
    ends = {request.doc["task"]: request.args[0][-60:] for request in lm.requests}
    assert ends["passkey"].endswith("\n\nThe pass key is")
    assert ends["number_string"].endswith("\n\nThe sequence of digits is")
    assert ends["longbook_choice_eng"].endswith("The letter of the correct answer is")
    assert ends["niah_single_1"].endswith("mentioned in the provided text is")
    with pytest.raises(ValueError, match="has no chat template: set `chat: false`"):
        evaluate(config(**settings, lengths=[8192], chat=True, output_dir=str(tmp_path / "chat")))


def test_results_can_be_repeated_and_go_into_a_model_card(gold_run):
    config, _, made = gold_run
    on_disk = read_results(config.output_dir)
    assert on_disk["complete"] and made["scores"] == on_disk["scores"]
    assert EvaluationConfig(**on_disk["config"]) == config
    assert on_disk["follows"]["ruler"] == "NVIDIA/RULER @ c3f5e3b4 (2026-07-22)"
    assert {"python", "lm-eval", "transformers", "torch"} <= set(on_disk["versions"])
    assert all("stand-in" in unit["haystack"] for unit in on_disk["units"] if unit["name"].endswith("single_2"))
    for unit in on_disk["units"]:
        assert len(on_disk["samples"][unit["name"]]) == unit["num_samples"]

    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    entries = eval_results(config.output_dir)
    card = ModelCardData(model_name="m", eval_results=entries)
    assert "official protocol, THUDM/LongBench" in card.to_yaml()
    _, back = model_index_to_eval_results(eval_results_to_model_index("m", entries))
    assert len(back) == len(entries) == 2 * 6 + (13 + 1) + (6 + 1) + 4
    assert {entry.dataset_config for entry in back} >= {"overall", "4096 average", *NAMES.values()}
    assert all("stand-in" in entry.dataset_name for entry in back if entry.dataset_type == "ruler")


def test_a_finished_run_asks_nothing_again(gold_run):
    again = Says(lambda doc: pytest.fail("asked again"))
    assert set(all_scores(evaluate(gold_run[0], again)).values()) == {100.0}


def test_a_run_that_stopped_repeats_no_finished_request(config, tmp_path):
    class Stops(Says):
        def generate_until(self, requests, disable_tqdm=False):
            if len(self.requests) >= 4:
                raise KeyboardInterrupt
            return super().generate_until(requests)

    first, second, settings = Stops(gold), Says(gold), {"benchmarks": ["longbench_v2"], "num_samples": None}
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(**settings), first)
    [journal] = (tmp_path / "out" / "requests").glob("*.jsonl")
    with journal.open("a") as file:
        file.write('{"key": "torn by a cra')
    assert all_scores(evaluate(config(**settings), second)) == {"longbench_v2-answer": 100.0}
    asked = [request.doc["sample_id"] for request in first.requests + second.requests]
    assert sorted(asked) == [f"id{i}" for i in range(6)]
    lines = journal.read_text().splitlines()
    assert sum(line.endswith("}") and json.loads(line)["response"] != "" for line in lines) == 6  # and a torn one


def test_another_run_in_the_same_folder_is_refused(config):
    evaluate(config(benchmarks=["longbench_v2"]), Says(gold))
    with pytest.raises(ValueError, match=r"other settings \(benchmarks: .*'longbench_v2'.*; seed: 0, now 1\)"):
        evaluate(config(benchmarks=["tiny_tasks"], seed=1), Says(gold))
    evaluate(config(benchmarks=["longbench_v2"], strict=True), Says(gold))


def test_every_sampled_request_has_the_whole_vocabulary(config):
    lm = Says(gold)
    evaluate(config(benchmarks=["longbench_v2"], temperature=0.7), lm)
    for request in lm.requests:
        sampling = {key: request.args[1][key] for key in ("do_sample", "temperature", "top_p", "top_k")}
        assert sampling == {"do_sample": True, "temperature": 0.7, "top_p": 1.0, "top_k": 0}


def test_infinitebenchs_generated_tasks_need_no_data(config):
    settings = {"benchmarks": ["infinitebench"], "infinitebench_data": "generated", "max_model_length": 200_000}
    results = evaluate(config(**settings, tasks=["passkey", "number_string"], num_samples=2), Says(gold))
    assert [(unit["score"], "stand-in" in unit["haystack"]) for unit in results["units"]] == [(100.0, True)] * 2


def test_the_help_of_every_field_is_its_docstring():
    text = " ".join(EvaluationConfig.__doc__.split())
    for name, field in EvaluationConfig.__dataclass_fields__.items():
        assert f"{name} (`" in text and " ".join(field.metadata["help"].split()) in text, name


def test_results_are_plain_json(config, tmp_path):
    evaluate(config(benchmarks=["tiny_tasks"]), Says(gold))
    json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
