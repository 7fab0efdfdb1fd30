"""`longact report` over results that a model with known answers left."""

import itertools
import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.evaluation import Says, gold, make_config
from helpers.paths import RECIPES
from longact_trl.cli import app
from longact_trl.evaluation.benchmarks.ruler import AVERAGE
from longact_trl.evaluation.protocols.longbench_v2 import breakdown
from longact_trl.evaluation.report import markdown
from longact_trl.evaluation.report_picture import draw_report
from longact_trl.evaluation.results import eval_results
from longact_trl.evaluation.run import evaluate
from longact_trl.evaluation.statistics import bootstrap_mean, sign_flip_p
from longact_trl.evaluation.tables import compare, load_evaluations, paper_tables, rows_of, tables_for
from longact_trl.pictures.heatmaps import render
from longact_trl.settings.recipe_yaml import read_config


def knows(share: float, seed: int):
    """A model that is right on about this share of the rows."""
    rng = random.Random(seed)
    return Says(lambda doc: gold(doc) if rng.random() < share else "zq")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two models on everything: (folder, results) of each."""
    made = []
    for label, share in (("qwen3_8b_dense", 0.4), ("qwen3_8b_longact", 0.8)):
        folder = tmp_path_factory.mktemp("runs")
        config = make_config(folder, label=label, num_samples=12, temperature=1.0)
        made.append((config.output_dir, evaluate(config, knows(share, seed=len(label)))))
    return made


def test_a_report_loads_no_model_library():
    """`longact report` reads JSON: four times as fast without transformers and datasets."""
    code = "import longact_trl.evaluation.report, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert not {"lm_eval", "transformers", "datasets", "trl"} & set(done.stdout.split())


def cells(report: str, title: str) -> list[list[str]]:
    section = report.split(f"{title}\n\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]


def numbers(line: list[str]) -> list[float]:
    return [float(re.match(r"[-+\d.]+", cell)[0]) for cell in line[2:]]


def test_our_numbers_are_those_of_the_results(runs):
    report = markdown(load_evaluations([folder for folder, _ in runs]))
    for title, expected in (
        ("## RULER at 4096 tokens", lambda scores: [scores["ruler"]["4096"][AVERAGE]]),
        ("## Table 3: InfiniteBench", lambda scores: list(scores["infinitebench"].values())),
        ("## Tiny tasks, this project's own", lambda scores: list(scores["tiny_tasks"].values())),
    ):
        header, _, *lines = cells(report, title)
        ours = [line for line in lines if line[1] == "ours"]
        for line, (_, results) in zip(ours, runs, strict=True):
            values = numbers(line)[: len(expected(results["scores"]))]
            assert values == pytest.approx(expected(results["scores"]), abs=0.011)
    assert cells(report, "## Table 3: InfiniteBench")[0][2:4] == ["Retrieve.PassKey", "Retrieve.Number"]


def test_the_papers_figures_stand_beside_ours_with_the_difference(runs):
    report = markdown(load_evaluations([folder for folder, _ in runs]))
    for title in ("## Table 1: LongBench v2", "## Table 6: Share of channels, LongBench v2"):
        table = cells(report, title)
        [at] = [i for i, line in enumerate(table) if line[1:3] == ["paper", "36.73"]]
        ours, compensated, paper, difference, last = table[at - 2 : at + 3]
        assert [ours[1], compensated[1], difference[1]] == ["ours", "ours, compensated", "difference"]
        measured = runs[1][1]["scores"]["longbench_v2"]["overall"]  # one decimal, as officially
        assert numbers(difference)[0] == pytest.approx(numbers(ours)[0] - 36.73, abs=0.006)
        assert numbers(ours)[0] == pytest.approx(measured, abs=0.06)
        assert last[1] == "difference, compensated"
        assert numbers(last)[0] == pytest.approx(numbers(compensated)[0] - 36.73, abs=0.006)
    assert "| Qwen3-8B-SFT w/ DAPO | ours" in report
    assert "| Qwen3-8B-SFT + GRPO, LongAct | paper | 35.04" in report and "GRPO, dense" not in report
    assert "Misprint: the row of Qwen3-4B-SFT repeats" in report and "184.75" in report


def test_compensated_scores_are_the_official_ones(runs):
    """`breakdown(compensated=True)` on the same answers, of which some cannot be read."""
    [evaluation, _] = load_evaluations([folder for folder, _ in runs])
    rows = evaluation.samples["longbench_v2-answer"]
    assert {row["prediction"] is None for row in rows} == {True, False}
    judged = [row | {"judge": row["score"], "pred": row["prediction"]} for row in rows]
    [row] = [row for row in rows_of(paper_tables()[1], [evaluation]) if row.ours]
    for compensated, ours in ((False, row.ours), (True, row.compensated)):
        for column, official in breakdown(judged, compensated=compensated).items():
            assert 100 * ours[column.lower()].value == pytest.approx(official, abs=0.051)


def test_the_report_says_which_differences_may_be_chance(runs):
    evaluations = load_evaluations([folder for folder, _ in runs])
    report = markdown(evaluations)
    title = "Points more than Qwen3-8B-SFT w/ DAPO on the same samples; bold where p < 0.05, else it may be chance:"
    plain, compensated = cells(report, title)[2:]  # Table 1's, the first
    assert [plain[0], compensated[0]] == ["Qwen3-8B-SFT w/ LongAct", "Qwen3-8B-SFT w/ LongAct, compensated"]
    for line, way in ((plain, False), (compensated, True)):
        for cell, (gain, p, total) in zip(
            line[1:], compare(paper_tables()[1], *evaluations, way).values(), strict=True
        ):
            bold = "**" if p < 0.05 else ""
            assert cell.startswith(f"{bold}{100 * gain.value:+.2f}{bold} (") and cell.endswith(
                f"p = {p:.2g}, n = {total}"
            )
    own = report.split("## RULER at 4096 tokens")[1]  # where a model goes by its label
    at_4k = cells(own, title.replace("Qwen3-8B-SFT w/ DAPO", "qwen3_8b_dense"))[2]
    assert at_4k[1].startswith("**+") and at_4k[1].endswith("n = 156")


def test_what_makes_a_number_no_official_one_is_said(runs):
    report = markdown(load_evaluations([folder for folder, _ in runs]))
    line = next(line for line in report.splitlines() if line.startswith("- qwen3_8b_longact: "))
    assert "official protocol, temperature 1, seed 0" in line
    assert "**stand-in data, no official score" in line


def test_two_models_are_compared_on_their_common_samples(runs):
    baseline, other = load_evaluations([folder for folder, _ in runs])
    other.samples["longbench_v2-answer"].pop(0)
    gain, p, total = compare(paper_tables()[1], baseline, other)["overall"]
    before = {row["sample_id"]: row["score"] for row in baseline.samples["longbench_v2-answer"]}
    gains = [row["score"] - before[row["sample_id"]] for row in other.samples["longbench_v2-answer"]]
    assert total == len(gains) == 5
    assert gain.value == pytest.approx(np.mean(gains)) and gain.low <= gain.value <= gain.high
    assert p == sign_flip_p([gains])
    half, _, _ = compare(paper_tables()[1], baseline, other, compensated=True)["overall"]
    assert half.value == pytest.approx(0.75 * gain.value)  # a wrong answer is always unread here
    gain, p, total = compare(tables_for([other])["RULER at 4096 tokens"], baseline, other)["4096"]
    assert gain.value > 0 and p < 0.01 and total == 13 * 12


def test_rulers_interval_keeps_its_tasks_apart():
    """Tasks that differ much do not widen the interval: only samples within a task are drawn again."""
    groups = [[0.0, 0.0, 1.0, 0.0] * 10, [1.0] * 40]
    interval = bootstrap_mean(groups)
    rng = np.random.default_rng(1)
    means = np.mean([rng.choice(group, (20_000, 40)).mean(1) for group in groups], axis=0)
    assert interval.value == 0.625
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.01)


def test_the_permutation_test_against_all_sign_flips():
    gains = [1.0, 1.0, 0.0, 1.0, -1.0, 1.0, 0.5, 1.0]
    observed = abs(np.mean(gains))
    flips = [abs(np.mean(np.multiply(gains, signs))) for signs in itertools.product((1, -1), repeat=len(gains))]
    exact = np.mean([flip >= observed - 1e-12 for flip in flips])
    assert sign_flip_p([gains]) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p([[0.0, 0.0]]) == 1.0


def test_one_label_may_come_in_parts_but_not_twice(tmp_path):
    parts = []
    for benchmark in ("longbench_v2", "infinitebench"):
        parts.append(str(tmp_path / benchmark))
        evaluate(make_config(tmp_path, benchmarks=[benchmark], label="mine", output_dir=parts[-1]), Says(gold))
    [mine] = load_evaluations(parts)
    assert [row.name for table in (1, 3) for row in rows_of(paper_tables()[table], [mine]) if row.ours] == ["mine"] * 2
    with pytest.raises(ValueError, match="'mine' has longbench_v2-answer already"):
        load_evaluations([parts[0], parts[0]])
    with pytest.raises(ValueError, match="has no results.json"):
        load_evaluations([str(tmp_path)])


def test_the_command_writes_markdown_and_a_picture(runs, tmp_path):
    output = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", *(folder for folder, _ in runs), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.md").read_text() in done.output
    figure = draw_report(load_evaluations([folder for folder, _ in runs]))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert [title.split(".")[0] for title in titles] == [
        *(f"Table {n}" for n in (1, 3, 4, 5, 6)),
        "RULER at 4096 tokens",
        "Tiny tasks, this project's own",
    ]
    assert render(figure).width > 1000 and (tmp_path / "report.png").stat().st_size > 50_000


def test_every_recipe_of_the_paper_has_a_row():
    recipes = [path for path in RECIPES.rglob("*qwen3_*.yaml") if "output_dir" in read_config(path)]
    trained = {read_config(path)["output_dir"].removeprefix("runs/") for path in recipes}
    labels = {label for number, table in paper_tables().items() if number != 7 for label in table["rows"]}
    assert trained == labels - {f"Qwen3-{size}{base}" for size in ("8B", "4B") for base in ("", "-Base")}


def test_results_of_earlier_versions_are_read(tmp_path):
    """Before benchmarks were renamed, and without positions."""
    folder = tmp_path / "old"
    (folder / "samples").mkdir(parents=True)
    unit = {"name": "synthetic", "benchmark": "synthetic", "task": "synthetic", "length": None, "score": 50.0}
    unit |= {"num_samples": 2, "skipped": 0, "truncated": 0, "unfinished": 0}
    results = {"format": 1, "label": "old", "complete": True, "protocol": "official", "temperature": 0.0, "seed": 0}
    results |= {"backend": "transformers", "units": [unit], "scores": {"synthetic": {"average": 50.0}}}
    results |= {"follows": {"synthetic": "longact_trl.data.tiny_tasks, split test"}}
    (folder / "results.json").write_text(json.dumps(results))
    rows = [{"task": "needle", "sample_id": str(i), "score": float(i)} for i in range(2)]
    (folder / "samples" / "synthetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [old] = load_evaluations([folder])
    assert old.groups("tiny_tasks", "all") == [{"tiny_tasks 0 0": 0.0, "tiny_tasks 1 1": 1.0}]
    assert eval_results(folder)[0].metric_value == 50.0
