"""RULER's metrics against scores of the official code."""

import json
import subprocess
import sys
from functools import partial

import pytest

from helpers.paths import FIXTURES
from longact_trl.evaluation.results import summary_of
from longact_trl.evaluation.ruler import postprocess, score, score_batch


CASES = FIXTURES / "protocols"


def cases(name: str) -> list[dict]:
    return json.loads((CASES / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", cases("ruler_metrics.json"))
def test_one_prediction_scores_as_officially(case):
    assert postprocess(case["prediction"]) == case["official_postprocessed"]
    assert round(score(case["task"], case["prediction"], case["references"]) * 100, 2) == case["official_score"]
    assert score_batch(case["task"], [case["prediction"]], [case["references"]]) == case["official_score"]


@pytest.mark.parametrize("case", cases("ruler_metrics_batch.json"))
def test_a_task_scores_as_officially(case):
    scored = partial(score_batch, case["task"], case["predictions"], case["references"])
    if case["official_error"]:
        with pytest.raises(ZeroDivisionError):
            scored()
    else:
        assert scored() == case["official_score"]


def test_a_runs_score_is_rounded_as_officially():
    """54.375 is in RULER's order of operations a little less, in the other order a half that rounds up."""
    golds, predictions = [list("wxyz")] * 40, ["w x y z"] * 21 + ["w x y"] + [""] * 18
    scores = [score("niah_multivalue", *pair) for pair in zip(predictions, golds, strict=True)]
    rows = [{"score": value, "truncated": False, "unfinished": False} for value in scores]
    assert summary_of(rows)["score"] == score_batch("niah_multivalue", predictions, golds) == 54.37


def test_what_evaluate_py_does_at_the_edges():
    assert score_batch("vt", ["None", "x"], [[None], ["x"]]) == 0.0
    with pytest.raises(ZeroDivisionError):
        score("vt", "x", [])
    with pytest.raises(ValueError, match="empty"):
        score("qa_1", "x", [])
    # Each control character becomes a newline, so two do not join what stands around them, and none is lost.
    assert postprocess(" \x00a\x1fb\t\r\nc\x7f \x01") == "a\nb\n\n\nc\x7f"


def test_scoring_loads_nothing_heavy():
    code = "import longact_trl.evaluation.ruler, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert not {"lm_eval", "transformers", "torch", "datasets"} & set(done.stdout.split())
