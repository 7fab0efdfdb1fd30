"""Results and claims on disk that are cut off, changed or of another shape: named, or the unit runs again."""

import json
from functools import partial
from pathlib import Path

import pytest

from helpers.evaluation import Says, gold, make_config
from longact_trl.evaluation.benchmarks import BENCHMARKS
from longact_trl.evaluation.report import load_evaluations, markdown
from longact_trl.evaluation.results import NEEDED, OF_SAMPLE, OF_UNIT, eval_results
from longact_trl.evaluation.run import evaluate


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a finished run."""
    config = make_config(tmp_path_factory.mktemp("run"), benchmarks=["longbench_v2", "tiny_tasks"])
    evaluate(config, Says(gold))
    return Path(config.output_dir)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("results.json", '{"format": 1, "la', "results.json cannot be read as JSON .* Was it cut off"),
        ("results.json", "[]", "results.json is no JSON object"),
        ("results.json", "null", "results.json is no JSON object"),
        ("results.json", '{"format": 1}', "results.json has no label, protocol"),
        ("results.json", b"\xff\xfe", "results.json cannot be read as JSON"),
        ("samples/tiny_tasks.jsonl", '{"sample_id": "0", "score": 1.0}\n{"sample', "line 2 of .*tiny_tasks.jsonl"),
        ("samples/tiny_tasks.jsonl", '{"score": 1.0}\n', "Sample 0 of .*tiny_tasks.jsonl has no sample_id"),
        ("samples/tiny_tasks.jsonl", None, "tiny_tasks.jsonl is missing"),
    ],
)
def test_results_that_were_cut_off(config, file, content, named):
    config = config(benchmarks=["tiny_tasks"])
    evaluate(config, Says(gold))
    path = Path(config.output_dir, file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=named):
        load_evaluations([config.output_dir])


def test_journals_that_were_written_over_are_asked_again(config):
    config = config(benchmarks=["tiny_tasks"])
    [journal] = evaluate(config, Says(gold)) and Path(config.output_dir, "requests").glob("*.jsonl")
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    journal.write_text('[]\n{"key": 1}\nnull\n' + json.dumps({"key": keys[0], "response": 3}) + '\n{"ke')
    Path(config.output_dir, "units.json").unlink()
    asked = Says(gold)
    assert evaluate(config, asked)["units"][0]["score"] == 100.0
    assert len(asked.requests) == config.num_samples


def refused(run: Path, file: Path, content: str, named: str) -> None:
    """The report names what is wrong with a file of a run, which is then as it was."""
    before = file.read_text()
    file.write_text(content)
    try:
        with pytest.raises(ValueError, match=named):
            load_evaluations([run])
    finally:
        file.write_text(before)


def test_results_of_another_shape(run):
    """Each field that a report reads: missing, or nothing that a run writes."""
    file = run / "results.json"
    good = json.loads(file.read_text())
    for name in NEEDED:
        refused(run, file, json.dumps(good | {name: [[]] if name != "units" else {}}), f"results.json.* {name}=")
        missing = {key: value for key, value in good.items() if key != name}
        refused(run, file, json.dumps(missing), f"results.json has no {name}")
    unit = good["units"][1]
    for name in OF_UNIT:
        wrong = [good["units"][0], unit | {name: [1]}]
        refused(run, file, json.dumps(good | {"units": wrong}), f"unit 1 of .*results.json: {name}=")
        wrong = [good["units"][0], {key: value for key, value in unit.items() if key != name}]
        refused(run, file, json.dumps(good | {"units": wrong}), f"unit 1 of .*results.json has no {name}")
    refused(run, file, json.dumps(good | {"units": [3]}), "unit 0 of .*results.json has no name")
    refused(run, file, json.dumps(good | {"follows": {}}), "does not say what its longbench_v2, tiny_tasks follows")


@pytest.mark.parametrize(
    ("name", "benchmark"), [("longbench_v2-answer", "longbench_v2"), ("tiny_tasks", "tiny_tasks")]
)
def test_samples_of_another_shape(run, name, benchmark):
    file = run / "samples" / f"{name}.jsonl"
    first, *others = [json.loads(line) for line in file.read_text().splitlines()]
    for field in OF_SAMPLE | BENCHMARKS[benchmark].of_sample:
        changed = [*others, first | {field: [1]}]
        refused(run, file, "".join(json.dumps(row) + "\n" for row in changed), f"Sample 2 of .*{name}.jsonl: {field}=")
        if field != "position":  # which earlier versions did not write
            del changed[-1][field]
            named = f"Sample 2 of .*{name}.jsonl has no {field}"
            refused(run, file, "".join(json.dumps(row) + "\n" for row in changed), named)


@pytest.mark.parametrize("kept", ["", "one less", "one twice", "another score"])
def test_samples_that_are_not_those_of_the_results(run, kept):
    """Cut off at the end of a line, for one: the report would say another number than results.json."""
    file = run / "samples" / "longbench_v2-answer.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    scored = lines[0].replace('"score": 1.0', '"score": 0')
    assert scored != lines[0]
    changed = {
        "": [],
        "one less": lines[:-1],
        "one twice": [*lines[:-1], lines[0]],
        "another score": [scored, *lines[1:]],
    }
    refused(
        run, file, "".join(changed[kept]), "longbench_v2-answer.jsonl has . samples with a mean of .*says 3 with 100"
    )


def test_samples_that_changed_since_are_made_again(config):
    config = config(benchmarks=["longbench_v2"])
    evaluate(config, Says(gold))
    file = Path(config.output_dir, "samples", "longbench_v2-answer.jsonl")
    whole = file.read_text()
    for content in ("", whole[: whole.index("\n") + 1], whole.replace('"score": 1.0', '"score": 0.0'), whole[:-30]):
        file.write_text(content)
        results = evaluate(config, Says(lambda doc: pytest.fail("asked again")))
        assert results["units"][0]["score"] == 100.0 and file.read_text() == whole


@pytest.mark.parametrize("claim", [[], 3, None, {"content": []}])
def test_a_units_claim_of_another_shape_holds_nothing(config, claim):
    config = config(benchmarks=["tiny_tasks"])
    evaluate(config, Says(gold))
    file = Path(config.output_dir, "units.json")
    file.write_text(json.dumps({"tiny_tasks": claim}))
    asked_again = Says(lambda doc: pytest.fail("asked again"))  # its requests lie in the journal
    assert evaluate(config, asked_again)["units"][0]["score"] == 100.0
    assert json.loads(file.read_text())["tiny_tasks"].keys() == {"content", "code", "versions", "samples"}


def test_answers_of_nobody_knows_which_model_are_not_believed(config):
    """Without run.json nothing says what the journals and samples were made with."""
    run = config(benchmarks=["tiny_tasks"])
    evaluate(run, Says(gold))
    Path(run.output_dir, "run.json").unlink()
    run.temperature = 1.0
    with pytest.raises(ValueError, match="out holds units.json, samples, requests without the run.json"):
        evaluate(run, Says(gold))


@pytest.mark.parametrize("below", ["", "/one"])
def test_an_output_folder_that_is_a_file(config, tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"output_dir='.*file{below}' cannot be made"):
        evaluate(config(benchmarks=["tiny_tasks"], output_dir=f"{tmp_path}/file{below}"), Says(gold))


def test_a_task_without_a_point_is_reported(config):
    """rouge-score's zero is a whole number."""
    config = config(benchmarks=["infinitebench"], tasks=["longbook_sum_eng"])
    assert evaluate(config, Says(lambda doc: ""))["units"][0]["score"] == 0.0
    assert "En.Sum" in markdown(load_evaluations([config.output_dir]))
    samples = Path(config.output_dir, "samples", "infinitebench-longbook_sum_eng.jsonl")
    samples.write_text(samples.read_text().replace('"score": 0.0', '"score": 0'))  # as other tools write it
    assert "En.Sum" in markdown(load_evaluations([config.output_dir]))
    assert eval_results(config.output_dir)[0].metric_value == 0.0


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"settings": 3}', '{"settings": {}, "questions": [], "answers": {}}']
)
def test_a_study_of_another_shape(tmp_path, content):
    (tmp_path / "perturb.json").write_text(content)
    with pytest.raises(ValueError, match="perturb.json is nothing that `longact perturb` writes"):
        load_evaluations([tmp_path])
