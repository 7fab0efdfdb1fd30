"""Pushes to a Hub on the loopback, over a network that fails: what arrives, what is said, and what is never told."""

import logging
import shlex
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForCausalLM
from transformers.utils.hub import PushInProgress, hf_api

from helpers.hub_server import NO_PROXY, TOKEN, Hub, environment_of
from helpers.paths import ROOT
from helpers.trainers import make_trainer
from longact_trl import LongActConfig, LongActTrainer
from longact_trl.settings.recipe_yaml import parse_recipe
from longact_trl.training.checkpoints import newest_complete_checkpoint


CPU = ["--use_cpu", "true", "--bf16", "false"]
MODEL = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


@pytest.fixture
def hub(monkeypatch):
    """The Hub that this process talks to, logged in."""
    with Hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        url = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(hf_api(), "endpoint", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        for name, value in {"HF_TOKEN": TOKEN, **NO_PROXY}.items():
            monkeypatch.setenv(name, value)
        yield hub
        huggingface_hub.close_session()  # its kept connections


def pushed(folder: Path) -> dict[str, bytes]:
    """What of a run's folder belongs on the Hub."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(("_", "checkpoint-"))}


def assert_arrived(hub: Hub, repo: str, folder: Path) -> None:
    assert MODEL | {"README.md", "reward_curve.png"} <= set(hub.files[repo])
    assert hub.files[repo] == pushed(folder)


def assert_same_weights(trainer: LongActTrainer, folder: Path) -> None:
    for mine, theirs in zip(
        trainer.model.parameters(), AutoModelForCausalLM.from_pretrained(folder).parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_what_is_downloaded_is_what_was_trained(hub, tmp_path):
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny")
    trainer.train()
    trainer.push_to_hub(license="apache-2.0")
    assert hub.commits["me/tiny"] == ["End of training"]
    assert_arrived(hub, "me/tiny", tmp_path / "run")
    folder = Path(snapshot_download("me/tiny", endpoint=hub.url, cache_dir=tmp_path / "cache"))
    assert pushed(folder) == pushed(tmp_path / "run")
    assert_same_weights(trainer, folder)
    asked = dict(hub.tokens)
    assert asked["commit"] == f"Bearer {TOKEN}"
    assert asked["put"] is None  # storage is not the Hub


def test_a_flaky_network_is_waited_out(hub, tmp_path):
    hub.faults |= {"create": [503], "validate": [500], "preupload": ["drop"], "batch": [503], "put": ["drop"]}
    hub.faults["commit"] = ["lose"]  # made, but the answer is lost: there must be no second one
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny")
    trainer.train()
    trainer.push_to_hub()
    assert set(hub.failed) == {"create", "validate", "preupload", "batch", "put", "commit"}
    assert_arrived(hub, "me/tiny", tmp_path / "run")
    assert hub.commits["me/tiny"] == ["End of training"]


@pytest.mark.parametrize("kind", ["dead", "refused"])
def test_a_push_that_fails_loses_nothing_and_says_how_to_push_again(hub, tmp_path, kind):
    trainer = make_trainer(tmp_path / "my run", hub_model_id="me/tiny")
    trainer.train()
    hub.is_dead = kind == "dead"
    hub.faults["create"] = [403] if kind == "refused" else []
    hub.files["me/tiny"] = {}  # where creating is refused, whether there is one is asked
    hub.faults["info"] = [403]
    with pytest.raises(Exception) as error:
        trainer.push_to_hub()
    (note,) = error.value.__notes__
    assert f"nothing is lost: the model is saved in {tmp_path / 'my run'}" in note
    assert hub.failed["create"] == (kind == "refused")  # which no second try would change
    assert_same_weights(trainer, tmp_path / "my run")
    if kind == "dead":  # as the note says, from a shell
        hub.is_dead = False
        command = shlex.split(note.split("`")[1])
        command[0] = str(Path(sys.executable).with_name(command[0]))
        subprocess.run(command, env=environment_of(hub), check=True, capture_output=True, timeout=600)
    else:
        trainer.push_to_hub()
    assert_arrived(hub, "me/tiny", tmp_path / "my run")


def test_a_run_that_cannot_create_its_repository_does_not_start(hub, tmp_path):
    hub.faults["create"] = [401]
    hub.faults["info"] = [401]
    with pytest.raises(HfHubHTTPError) as error:
        make_trainer(tmp_path / "run", hub_model_id="me/tiny", push_to_hub=True)
    assert "`push_to_hub=False` and push the model later with `hf upload me/tiny" in error.value.__notes__[0]


def slow(record: logging.LogRecord) -> bool:
    """A filter that takes its time, as a busy machine does."""
    time.sleep(1)
    return True


def test_a_push_in_the_background_that_fails_is_told_and_the_run_goes_on(hub, tmp_path, caplog, monkeypatch):
    hub.faults["preupload"] = [403]
    kwargs = {"save_strategy": "steps", "save_steps": 3, "hub_strategy": "every_save"}
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny", push_to_hub=True, **kwargs)
    monkeypatch.setattr(logging.getLogger("longact_trl.training.hub"), "filters", [slow])
    with caplog.at_level(logging.WARNING, "longact_trl.training.hub"):
        trainer.train()  # does not return before it is told
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "longact_trl.training.hub"]
    assert "403" in warning
    assert "checkpoint-3 was not pushed, but is complete. The next save pushes again." in warning
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-3"
    trainer.save_model()  # which pushes, as in any Trainer
    assert hub.commits["me/tiny"] == ["Model save"]
    assert_arrived(hub, "me/tiny", tmp_path / "run")


def test_a_push_of_ones_own_in_the_background_that_fails_is_told_with_the_way_to_push_again(
    hub, tmp_path, caplog, monkeypatch
):
    hub.faults["preupload"] = [403]
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny")
    monkeypatch.setattr(logging.getLogger("longact_trl.training.hub"), "filters", [slow])
    with caplog.at_level(logging.WARNING, "longact_trl.training.hub"):
        push = trainer.push_to_hub(blocking=False)
        assert isinstance(push.exception(timeout=600), HfHubHTTPError)
        trainer.push_to_hub()  # not before the one before it is told
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "longact_trl.training.hub"]
    assert "403" in warning and f"nothing is lost: the model is saved in {tmp_path / 'run'}" in warning
    assert "`hf upload me/tiny" in warning
    assert_same_weights(trainer, tmp_path / "run")
    assert hub.commits["me/tiny"] == ["End of training"]


def test_what_is_being_pushed_does_not_change(hub, tmp_path):
    """A save while the push of the one before is under way."""
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny", push_to_hub=True, logging_steps=1)
    trainer.train()
    trainer.create_model_card("tiny")
    before = pushed(tmp_path / "run")
    trainer.push_in_progress = PushInProgress([Future()])
    trainer.state.log_history += [{"step": 4, "reward": 9.0}]
    trainer.create_model_card("other")
    assert pushed(tmp_path / "run") == before
    trainer.push_in_progress.jobs[0].set_result(None)
    trainer.push_to_hub()
    assert set(pushed(tmp_path / "run")) > set(before)
    assert pushed(tmp_path / "run")["reward_curve.png"] != before["reward_curve.png"]


def test_a_recipe_pushes_every_save_and_never_tells_the_token(tmp_path):
    """A run of its own, as a user starts it, over a flaky network."""
    run = tmp_path / "run"
    options = {"max_steps": 2, "save_steps": 1, "num_generations": 4, "per_device_train_batch_size": 4}
    options |= {"gradient_accumulation_steps": 1, "max_completion_length": 8, "output_dir": run, "push_to_hub": "true"}
    options |= {"hub_model_id": "me/quick", "hub_strategy": "every_save"}
    options |= {"license": "apache-2.0", "report_to": "none", "save_total_limit": 9, "logging_steps": 1}
    command = [sys.executable, "recipes/grpo_longact.py", "--config", "quickstart.yaml"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with Hub() as hub:
        hub.faults |= {"create": ["drop"], "preupload": [503], "put": [500]}
        environment = {**environment_of(hub), "HF_HUB_VERBOSITY": "debug", "TRANSFORMERS_VERBOSITY": "debug"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        assert sum(hub.failed.values()) == 3
        first, *_, last = hub.commits["me/quick"]  # a save during a push is not pushed
        assert (first, last) == ("Training in progress, step 1", "End of training")
        assert_arrived(hub, "me/quick", run)
    assert metadata_load(run / "README.md")["license"] == "apache-2.0"
    assert "| data | tiny_tasks |" in (run / "README.md").read_text()
    told = [done.stdout.encode(), done.stderr.encode(), *hub.bodies]
    told += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(told) > 30
    assert not [text for text in told if TOKEN.encode() in text]


def test_a_token_among_the_arguments_stays_in_memory(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny", hub_token=TOKEN, push_to_hub=True)
    trainer.train()
    trainer.push_to_hub()
    assert {token for kind, token in hub.tokens if kind == "commit"} == {f"Bearer {TOKEN}"}
    assert "training_args.bin" in hub.files["me/tiny"]  # a pickle, maybe compressed: it is read, too
    saved = torch.load(tmp_path / "run" / "training_args.bin", weights_only=False)
    assert saved.hub_token is None and trainer.args.hub_token == TOKEN
    assert not [name for name, content in hub.files["me/tiny"].items() if TOKEN.encode() in content]


def test_a_recipe_takes_no_token(tmp_path):
    with pytest.raises(ValueError, match="Set HF_TOKEN or run `hf auth login`") as error:
        parse_recipe(
            (LongActConfig,), ["--output_dir", str(tmp_path), "--use_cpu", "true", "--hub_token", TOKEN], ROOT
        )
    assert TOKEN not in str(error.value)
