"""What a study makes of the results in its folders: seeds that are missing, other questions, nothing at all."""

import json

import pytest
import yaml

from longact_trl.evaluation.results import RESULTS, SAMPLES
from longact_trl.study.command import markdown, rows_of
from longact_trl.study.execution import claim
from longact_trl.study.outcome import outcome_of
from longact_trl.study.study_file import read_study


@pytest.fixture
def study(tmp_path):
    content = {
        "title": "Study",
        "expected": "Nothing.",
        "decides": "Nothing.",
        "baseline": "dense",
        "seeds": 7,
        "train": {"recipe": "grpo_longact.py", "config": "quickstart.yaml", "accelerate_config": "cpu.yaml"},
        "evaluate": {"config": "eval_tiny.yaml"},
        "arms": {"before": {"model": "m"}, "dense": {"strategy": "dense"}, "massive": {}},
        "output_dir": str(tmp_path / "runs"),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(str(tmp_path / "study.yaml"))


def finish(run, scores, first: int = 0) -> None:
    """Results as recipes/evaluate.py leaves them."""
    claim(run)
    rows = [{"sample_id": first + i, "position": i, "score": s, "task": "t"} for i, s in enumerate(scores)]
    scored = [score for score in scores if score is not None]
    mean = round(100 * sum(scored) / len(scored), 2) if scored else None
    unit = {"name": "tiny_tasks", "benchmark": "tiny_tasks", "task": "t", "length": None, "score": mean}
    unit |= {"num_samples": len(rows), "skipped": 0, "truncated": 0, "unfinished": 0}
    results = {"format": 1, "label": "x", "protocol": "official", "temperature": 0.0, "seed": 0, "backend": "t"}
    results |= {"complete": True, "units": [unit], "scores": {}, "follows": {}}
    folder = run.folder / "evaluation"
    (folder / SAMPLES).mkdir(parents=True)
    (folder / RESULTS).write_text(json.dumps(results))
    (folder / SAMPLES / "tiny_tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def runs_of(study, arm):
    return [run for run in study.runs() if run.arm == arm]


def test_nothing_is_finished(study):
    with pytest.raises(ValueError, match="No run of .* is finished yet"):
        outcome_of(study)


def test_seeds_that_still_run_are_left_out_of_the_pair(study):
    for run in runs_of(study, "dense")[:3]:
        finish(run, [0, 1, 0, 0])
    for run in runs_of(study, "massive")[2:5]:
        finish(run, [1, 1, 0, None])
    arms = outcome_of(study)
    assert list(arms) == ["dense", "massive"] and arms["massive"].seeds == [2, 3, 4]
    assert arms["massive"].difference.value == pytest.approx(0.25)  # of seed 2 alone
    assert arms["massive"].p == 1.0 and arms["massive"].detectable is None
    assert arms["massive"].score.value == pytest.approx(0.5)  # no answer earns nothing
    assert [row[1] for row in rows_of(study, arms)] == ["3", "3"]


def test_without_the_baseline_there_are_scores_only(study):
    finish(runs_of(study, "massive")[0], [1, 0])
    arms = outcome_of(study)
    assert arms["massive"].difference is None and "| massive | 1 | 50.0" in markdown(study, arms)


@pytest.mark.parametrize("score", [0, 1, 0.5])
def test_all_alike_is_no_difference(study, score):
    for run in study.runs():
        finish(run, [score] * 6)
    arms = outcome_of(study)
    assert all(tuple(arm.score) == pytest.approx((score,) * 3) for arm in arms.values())
    for name in ("before", "massive"):
        assert tuple(arms[name].difference) == (0, 0, 0) and arms[name].p == 1.0 and arms[name].detectable == 0
    assert arms["before"].seeds == study.seeds  # one model beside each seed


def test_seven_seeds_that_agree_have_the_smallest_p(study):
    for run in runs_of(study, "dense"):
        finish(run, [1, 0, 0, run.seed % 2])
    for run in runs_of(study, "massive"):
        finish(run, [1, 1, 0, run.seed % 2])
    assert outcome_of(study)["massive"].p == pytest.approx(2 / 2**7)


@pytest.mark.parametrize(("scores", "first"), [([1, 0, 1], 0), ([1, 0], 5)])
def test_other_questions_are_refused(study, scores, first):
    finish(runs_of(study, "dense")[0], [1, 0])
    finish(runs_of(study, "massive")[0], scores, first)
    with pytest.raises(ValueError, match="massive.* answered other questions than .*dense"):
        outcome_of(study)


def test_a_score_that_is_no_number_is_refused(study):
    finish(runs_of(study, "dense")[0], [1.0, float("nan")])
    with pytest.raises(ValueError, match="tiny_tasks.jsonl"):
        outcome_of(study)
