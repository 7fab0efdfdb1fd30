"""The page of a run: what is in it, read as its script reads it."""

import base64
import gzip
import json
import re

import pandas
import pytest
from trl import GRPOConfig, GRPOTrainer
from typer.testing import CliRunner

from helpers.trainers import make_trainer
from longact_trl import answer_reward
from longact_trl.cli import app
from longact_trl.page.run_files import read_run


def right_or_wrong(completions, log_extra=None, **kwargs):
    """Golds that the tiny model cannot know: the columns are what matters."""
    return answer_reward(completions, answer=[["w1"]] * len(completions), log_extra=log_extra)


right_or_wrong.__name__ = "answer_reward"


def content_of(page: str) -> tuple[dict, dict]:
    """The data of the page's script, and its parts, unpacked."""
    data = json.loads(re.search(r"const data = (.*);\n", page)[1].replace("<\\/", "</"))
    parts = dict(re.findall(r'<script type="text/plain" id="([\w-]+)">([^<]*)</script>', page))
    return data, {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in parts.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "</script><b>run"
    from helpers.trainers import spread_reward

    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "log_completions": True}
    make_trainer(folder, reward=[spread_reward, right_or_wrong], num_completions_to_print=0, **settings).train()
    return folder


def test_curves_rollouts_reasons_masks_and_settings(run, tmp_path):
    done = CliRunner().invoke(app, ["page", str(run), "--output", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    assert "<b>run" not in re.sub(r"const data = .*;\n", "", page)  # a name is never markup
    data, parts = content_of(page)
    [described] = data["runs"]
    assert [step for step, _ in described["log"]["reward"]] == [1, 2, 3, 4]
    assert described["rollouts"] == {"1": 4, "2": 4, "3": 4, "4": 4} and described["masks"] == [2, 4]
    table = pandas.read_parquet(run / "completions" / "completions_00003.parquet")
    [group] = parts["rollouts-0-3"]
    assert [row["rewards"]["spread_reward"] for row in group["rows"]] == table["spread_reward"].tolist()
    assert group["gold"] == ["w1"] and all("answer: thinking never ends" in row["why"][0] for row in group["rows"])
    projections = parts["masks-0"]
    assert [(p["kind"], p["layer"]) for p in projections] == [("Q", "0"), ("K", "0"), ("Q", "1"), ("K", "1")]
    saved = read_run(run, 100).masks
    for projection, name in zip(projections, saved[4], strict=True):
        counts = list(base64.b64decode(projection["counts"]))
        assert counts == (saved[2][name].int() + saved[4][name].int()).flatten().tolist()
        assert projection["heads"] == len(saved[4][name])
    assert described["settings"]["strategy"] == "massive" and described["settings"]["model_type"] == "qwen3"


def test_several_runs_and_no_more_rollouts_than_wanted(run, tmp_path):
    done = CliRunner().invoke(
        app, ["page", str(run), str(run), "--output", str(tmp_path / "p.html"), "--max-rollouts", "16"]
    )
    assert done.exit_code == 0, done.output
    data, parts = content_of((tmp_path / "p.html").read_text())
    assert len(data["runs"]) == 2
    assert [described["rollouts"] for described in data["runs"]] == [{"1": 4, "4": 4}] * 2  # the first and the last
    assert {"rollouts-0-1", "rollouts-1-4", "masks-0", "masks-1"} <= parts.keys()


def test_trls_own_run_and_one_that_has_just_begun(tmp_path):
    settings = {"log_completions": True, "num_completions_to_print": 0, "max_steps": 2}
    make_trainer(tmp_path / "trl", trainer_class=GRPOTrainer, config_class=GRPOConfig, **settings).train()
    run = read_run(tmp_path / "trl", 100)
    assert not run.masks and [entry["step"] for entry in run.log] == [1, 2]  # from the rollouts: nothing was saved
    assert run.log[0]["reward"] == pytest.approx(run.rollouts[1]["spread_reward"].mean())


def test_a_folder_without_a_run_is_named(tmp_path):
    done = CliRunner().invoke(app, ["page", str(tmp_path)])
    assert done.exit_code == 2 and "log_completions: true" in " ".join(done.output.split())
