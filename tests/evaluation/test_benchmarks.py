"""What every benchmark must bring, so that nothing outside its file knows its name."""

import pytest

from helpers.evaluation import Says, gold, make_config
from longact_trl.evaluation.backends import Model
from longact_trl.evaluation.benchmarks import BENCHMARKS, Unit
from longact_trl.evaluation.benchmarks.ruler import FAMILIES
from longact_trl.evaluation.report import load_evaluations
from longact_trl.evaluation.run import evaluate, load_task


@pytest.fixture(scope="module", params=BENCHMARKS)
def run(request, tmp_path_factory):
    config = make_config(tmp_path_factory.mktemp("run"), benchmarks=[request.param], num_samples=2)
    return config, evaluate(config, Says(lambda doc: gold(doc) if doc["position"] == 0 else "zq"))


def test_every_column_has_samples_and_weights_that_add_up(run):
    config, results = run
    [name] = config.benchmarks
    [evaluation] = load_evaluations([config.output_dir])
    columns = BENCHMARKS[name].columns([4096])
    empty = {"medium", "long", "hops"}  # of two samples
    assert {column for column in columns if evaluation.groups(name, column)} == set(columns) - empty
    for column in columns.values():
        assert sum(part.weight for part in column.parts) == pytest.approx(1.0)
    units = {(unit["task"], unit["length"]) for unit in results["units"]}
    assert {(unit.task, unit.length) for unit in config.units()} == units


def test_lm_eval_knows_every_task_and_its_first_turn(run):
    config, _ = run
    model = Model(config)
    benchmark = BENCHMARKS[config.benchmarks[0]]
    tasks = {unit.task for unit in config.units()} | {*benchmark.first_turns.values()}
    for task in tasks:
        loaded = load_task(Unit(benchmark.name, task, 4096 if benchmark.fills_length else None), config, model)
        budgets = {row["max_new_tokens"] for row in loaded.dataset["test"]}
        assert budgets == {loaded.config.generation_kwargs["max_gen_toks"]}  # under its own command line, too


def test_table_2_is_the_papers_mean_of_four():
    """Qwen3-8B-Base at 128k: NIAH-sub 30.63, NIAH 51.88, VT 47.68, QA 17.60; Avg 36.95."""
    columns = BENCHMARKS["ruler"].columns([131072])
    shares = {part.task: part.weight for part in columns["131072 avg"].parts}
    sub, niah = FAMILIES["niah_sub"][1], FAMILIES["niah"][1]
    means = {task: (30.63 if task in sub else (51.88 * 8 - 30.63 * 3) / 5) for task in niah}
    means |= {"vt": 47.68, "qa_1": 10.20, "qa_2": 25.00}
    assert sum(shares[task] * means[task] for task in shares) == pytest.approx(36.95, abs=0.01)
    assert set(shares) == set(means)  # neither cwe nor fwe
