"""The page of a run: what is in it, read as its script reads it."""

import base64
import gzip
import json
import re
from importlib.util import find_spec

import numpy
import pandas
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer
from typer.testing import CliRunner

from helpers.run_folder import write_run
from helpers.trainers import make_trainer, spread_reward
from longact_trl import answer_reward
from longact_trl.cli import app
from longact_trl.page import run_files
from longact_trl.page.content import names_of, page_of
from longact_trl.page.run_files import read_run, spread_steps
from longact_trl.training.mask_file import STATE_DIR
from longact_trl.training.mask_refresh import churn_of
from longact_trl.training.run_file import RUN_FILE


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
    folder = tmp_path_factory.mktemp("runs") / "<!--<script><b>run"
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
    assert described["rollouts"] == {step: [4, 0] for step in "1234"} and described["masks"] == [2, 4]
    table = pandas.read_parquet(run / "completions" / "completions_00003.parquet")
    [group] = parts["rollouts-0-3"]["groups"]
    assert [row["rewards"]["spread_reward"] for row in group["rows"]] == table["spread_reward"].tolist()
    assert group["gold"] == ["w1"] and all("answer: thinking never ends" in row["why"][0] for row in group["rows"])
    projections = parts["masks-0"]
    assert [(p["kind"], p["layer"]) for p in projections] == [("Q", "0"), ("K", "0"), ("Q", "1"), ("K", "1")]
    saved = read_run(run, 100).masks
    for projection, name in zip(projections, saved[4], strict=True):
        for text, step in zip(projection["masks"], (2, 4), strict=True):
            bits = numpy.unpackbits(numpy.frombuffer(base64.b64decode(text), numpy.uint8))
            assert bits[: projection["rows"]].tolist() == saved[step][name].int().flatten().tolist()
        [churn] = projection["churn"]
        assert churn == pytest.approx(churn_of(saved[2][name], saved[4][name]), abs=1e-4)
        assert projection["heads"] == len(saved[4][name])
    for part in ("generate", "reward", "score", "train", "optimizer"):
        assert [step for step, _ in described["seconds"][part]] == [1, 2, 3, 4]
        assert all(gib > 0 for _, gib in described["gib"][part])
    configuration = described["configuration"]
    assert configuration["run"]["strategy"] == "massive" and configuration["run"]["model_type"] == "qwen3"
    assert configuration["settings"]["max_steps"] == "4" and configuration["settings"]["sparsity_ratio"] == "0.3"
    assert configuration["versions"]["torch"] == torch.__version__ and configuration["machine"]["processes"] == "1"


def test_several_runs_and_no_more_rollouts_than_wanted(run, tmp_path):
    done = CliRunner().invoke(
        app, ["page", str(run), str(run), "--output", str(tmp_path / "p.html"), "--max-rollouts", "16"]
    )
    assert done.exit_code == 0, done.output
    data, parts = content_of((tmp_path / "p.html").read_text())
    assert len(data["runs"]) == 2
    assert [described["rollouts"] for described in data["runs"]] == [
        {"1": [4, 0], "4": [4, 0]}
    ] * 2  # the first and the last
    assert {"rollouts-0-1", "rollouts-1-4", "masks-0", "masks-1"} <= parts.keys()


def test_trls_own_run_and_one_that_has_just_begun(tmp_path):
    settings = {"log_completions": True, "num_completions_to_print": 0, "max_steps": 2}
    make_trainer(tmp_path / "trl", trainer_class=GRPOTrainer, config_class=GRPOConfig, **settings).train()
    run = read_run(tmp_path / "trl", 100)
    assert not run.masks and [entry["step"] for entry in run.log] == [1, 2]  # from the rollouts: nothing was saved
    assert run.log[0]["reward"] == pytest.approx(run.rollouts[1]["spread_reward"].mean())


def test_the_configuration_of_trls_own_run_is_what_its_files_say(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "hub_token": "hf_secret"}
    make_trainer(tmp_path / "trl", trainer_class=GRPOTrainer, config_class=GRPOConfig, **settings).train()
    found = read_run(tmp_path / "trl", 100).configuration
    assert found["settings"] | {"max_steps": 2, "logging_steps": 1, "save_steps": 2} == found["settings"]
    assert found["run"]["model_type"] == "qwen3" and found["model"]["hidden_size"] == found["run"]["hidden_size"]
    assert "secret" not in str(found)


def test_settings_and_versions_are_written_down_and_no_token(tmp_path):
    make_trainer(tmp_path, max_steps=1, hub_token="hf_secret").train()
    written = json.loads((tmp_path / RUN_FILE).read_text())
    assert written["settings"]["max_steps"] == 1 and "hf_secret" not in str(written)
    # vLLM's build for CPUs is a package of another name.
    assert any(name.startswith("vllm") for name in written["versions"]) == bool(find_spec("vllm"))


def test_what_dynamic_sampling_threw_away_is_on_the_page(tmp_path):
    run = read_run(write_run(tmp_path / "run", steps=2, groups=3, thrown=2), 1000)
    data, parts = content_of(page_of([run]))
    assert data["runs"][0]["rollouts"] == {"1": [12, 8], "2": [12, 8]}
    content = parts["rollouts-0-2"]
    assert [len(group["rows"]) for group in content["groups"]] == [4] * 3
    assert [group["reason"] for group in content["thrown"]] == ["answer_reward is 0 for all"] * 2
    assert all("answer: " in row["why"][0] for group in content["thrown"] for row in group["rows"])
    assert all(group["reason"] is None for group in content["groups"])
    assert len(read_run(tmp_path / "run", 20).rollouts) == 1  # what was thrown away counts


def test_what_is_just_being_written_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run", steps=6)
    for file in (
        folder / "checkpoint-6" / "trainer_state.json",
        folder / "checkpoint-6" / STATE_DIR / "masks.safetensors",
        folder / "completions" / "completions_00006.parquet",
        folder / "thrown_away" / "completions_00005.parquet",
    ):
        file.write_bytes(file.read_bytes()[:100])
    for file in (folder / "trainer_state.json", folder / "config.json", folder / RUN_FILE):
        file.write_text('{"log_history": [{"st')
    run = read_run(folder, 1000)
    assert [entry["step"] for entry in run.log] == [1, 2, 3, 4, 5] and list(run.masks) == [2, 4]
    assert list(run.rollouts) == [1, 2, 3, 4, 5] and list(run.thrown_away) == [1, 2, 3, 4]


def test_what_the_run_removes_while_it_is_read_is_not_missed(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", steps=6)
    removed = iter([1, 2, 3, 5])

    def removing(*args):  # as `max_logged_completions` does, behind the listing
        step = next(removed, 1)
        (folder / "completions" / f"completions_{step:05d}.parquet").unlink(missing_ok=True)
        return spread_steps(*args)

    monkeypatch.setattr(run_files, "spread_steps", removing)
    assert list(read_run(folder, 1000).rollouts) == [4, 6]


def write_table(folder, rows, step=1):
    file = folder / "completions" / f"completions_{step:05d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {"step": step, "prompt": "p", "completion": "c", "advantage": 0.0}
    pandas.DataFrame([plain | row for row in rows]).to_parquet(file)
    return folder


CALLS = [
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 3}}}]},
    {"role": "tool", "name": "add", "content": "12"},
    {"role": "assistant", "reasoning_content": "Easy.", "content": "It is 12"},
]
SEEN = [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": SEEN}], "[image]\nWhat is it?"),
        (CALLS, '[assistant] [calls] add({"a": 3})\n\n[tool] 12\n\n[assistant] [reasoning] Easy.\nIt is 12'),
        ([{"role": "user", "content": None}], ""),
        ([], ""),
    ],
)
def test_messages_of_any_kind_are_shown(tmp_path, messages, text):
    """As they come back from Parquet: arrays, and each field that one of the messages has."""
    _, parts = content_of(page_of([read_run(write_table(tmp_path, [{"completion": messages, "r": 1.0}]), 100)]))
    [group] = parts["rollouts-0-1"]["groups"]
    assert [row["completion"] for row in group["rows"]] == [text]


@pytest.mark.parametrize(
    ("answers", "gold"),
    [((5, 6), ["5"]), ((None, ["x"]), None), ((float("nan"), 2.5), None), (([["a"], ["b"]],), ["['a']", "['b']"])],
)
def test_answers_of_any_kind_are_golds(tmp_path, answers, gold):
    rows = [{"answer_reward": 0.0, "answer": answer} for answer in answers]
    _, parts = content_of(page_of([read_run(write_table(tmp_path, rows), 100)]))
    assert parts["rollouts-0-1"]["groups"][0]["gold"] == gold


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["massive/seed-0/model", "dense/seed-0/model"], ["massive", "dense"]),  # of a study
        (["massive/seed-0/model", "dense/seed-1/model"], ["massive/seed-0", "dense/seed-1"]),
        (["a/x/model", "a/y/model", "b/x/model"], ["a/x", "a/y", "b/x"]),
        (["quickstart", "quickstart"], ["quickstart"] * 2),
        (["run", "run/checkpoints"], ["{}/run", "{}/run/checkpoints"]),
    ],
)
def test_runs_are_told_apart(tmp_path, folders, names):
    assert names_of([tmp_path / folder for folder in folders]) == [name.format(tmp_path) for name in names]


def test_rewards_that_are_no_numbers_or_of_other_names(tmp_path):
    one = write_table(tmp_path / "one" / "model", [{"own": 1.0, "right": True}, {"own": None, "right": False}])
    two = write_table(tmp_path / "two" / "model", [{"other": -2.0}, {"other": float("inf")}])
    data, parts = content_of(page_of([read_run(one, 100), read_run(two, 100)]))
    assert [run["name"] for run in data["runs"]] == ["one", "two"]
    rewards = [[row["rewards"] for row in parts[f"rollouts-{i}-1"]["groups"][0]["rows"]] for i in (0, 1)]
    assert rewards == [[{"own": 1.0, "right": 1.0}, {"right": 0.0}], [{"other": -2.0}, {}]]
    assert type(rewards[0][0]["right"]) is float  # the script counts with it
    titles = [title for _, title in data["curves"]]
    assert titles[titles.index("Format right") + 1 :][:3] == ["own", "right", "other"]


def test_rewards_behind_the_last_checkpoint_are_weighted_as_the_log_s(tmp_path):
    weights = [2.0, 0.5]
    rewards = [spread_reward, right_or_wrong]
    settings = {"save_strategy": "no", "max_steps": 2, "log_completions": True, "num_completions_to_print": 0}
    trainer = make_trainer(tmp_path, reward=rewards, reward_weights=weights, **settings)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    run = read_run(tmp_path, 100)
    for ours, theirs in zip(run.log, logged, strict=True):
        assert ours["reward"] == pytest.approx(theirs["reward"])
        for name in ("rewards/spread_reward/mean", "rewards/answer_reward/mean"):
            assert ours[name] == pytest.approx(theirs[name])


def test_a_column_that_a_reward_logs_is_no_reward(tmp_path):
    for step in (1, 2):
        write_table(tmp_path, [{"r": 0.5, "characters": 1000.0}], step)
    state = {"log_history": [{"step": 1, "reward": 0.5, "rewards/r/mean": 0.5}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert [entry["reward"] for entry in read_run(tmp_path, 100).log] == [0.5, 0.5]


def test_where_the_page_goes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(write_table(tmp_path / "here", [{"r": 1.0}]))
    assert CliRunner().invoke(app, ["page", ".", "--output", str(tmp_path)]).exit_code == 0  # a folder
    assert content_of((tmp_path / "page.html").read_text())[0]["runs"][0]["name"] == "here"
    done = CliRunner().invoke(app, ["page", ".", "--output", "/proc/none/page.html"])
    assert done.exit_code == 2 and "cannot be written" in done.output


def test_steps_are_spread_over_the_run():
    assert spread_steps(dict.fromkeys(range(1, 11), 10), 100) == list(range(1, 11))
    assert spread_steps(dict.fromkeys(range(1, 11), 10), 45) == [1, 4, 7, 10]
    assert spread_steps({1: 10, 2: 90, 3: 10}, 30) == [1, 3]
    assert spread_steps({5: 100}, 10) == [5] and spread_steps({}, 10) == []


def test_a_folder_without_a_run_is_named(tmp_path):
    done = CliRunner().invoke(app, ["page", str(tmp_path)])
    assert done.exit_code == 2 and "log_completions: true" in " ".join(done.output.split())
