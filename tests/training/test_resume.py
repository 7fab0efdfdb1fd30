import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from trl import GRPOConfig, GRPOTrainer

from helpers.forking import run_forked
from helpers.models import make_decoder, make_model
from helpers.resuming import SETTINGS, StopAt, run_in_one_and_in_two
from helpers.trainers import make_trainer
from helpers.weights import assert_same_weights
from longact_trl import MaskRefreshCallback
from longact_trl.training.checkpoints import checkpoints, newest_complete_checkpoint, resolve_resume
from longact_trl.training.mask_file import STATE_DIR


RUNS = {
    "massive": {"strategy": "massive"},
    "min": {"strategy": "min"},
    "random": {"strategy": "random"},
    "row_sparse": {"row_sparse_gradients": "on"},
    "dense": {"strategy": "dense"},
    "previous_step": {"strategy": "massive", "saliency_source": "previous_step"},
    "accumulation": {"gradient_accumulation_steps": 2, "num_generations": 2},
    "middle_of_a_generation": {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
    "middle_of_a_generation_random": {"steps_per_generation": 2, "strategy": "random"},
    "middle_of_a_generation_previous": {"steps_per_generation": 2, "saliency_source": "previous_step"},
    "num_iterations": {"num_iterations": 2},
    "reference": {"beta": 0.1, "steps_per_generation": 2},
    "middle_of_the_second_epoch": {"per_device_train_batch_size": 32},  # two steps an epoch
    "end_of_an_epoch": {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 4, "num_train_epochs": 6}
    | {"max_steps": -1},  # one step an epoch
}


@pytest.mark.parametrize(
    "run, update_rule",
    [
        *[(run, "masked_gradient") for run in RUNS],
        *[(run, "frozen_rows") for run in ("massive", "random", "previous_step", "middle_of_a_generation")],
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, run, update_rule, tiny_model):
    settings = {**RUNS[run], "update_rule": update_rule}
    if run == "reference":
        whole = make_trainer(tmp_path / "whole", tiny_model, **SETTINGS, **settings)
        whole.train()
        first = make_trainer(tmp_path / "parts", tiny_model, callbacks=[StopAt(3)], **SETTINGS, **settings)
        first.train()
        resumed = make_trainer(tmp_path / "parts", tiny_model, **SETTINGS, **settings)
        resumed.train(resume_from_checkpoint="auto")
    else:
        whole, resumed = run_in_one_and_in_two(tmp_path, **settings)
    assert_same_weights(resumed.model, whole.model)
    ours, theirs = resumed.mask_refresh, whole.mask_refresh
    assert ours.num_refreshes == theirs.num_refreshes
    for group in ("masks", "magnitudes", "ever_selected"):
        named, expected = getattr(ours, group), getattr(theirs, group)
        assert named.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in named.items()), group
    assert torch.equal(ours.generator.get_state(), theirs.generator.get_state())
    for name in ("loss", "longact/mask_churn"):
        logged = [[log[name] for log in t.state.log_history if name in log] for t in (whole, resumed)]
        assert logged[0] == logged[1], name


def test_what_is_saved(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1, steps_per_generation=2)
    trainer.train()
    folder = tmp_path / "checkpoint-1" / STATE_DIR
    assert sorted(f.name for f in folder.iterdir()) == [
        "masks.json",
        "masks.safetensors",
        "rollouts-0-of-1.safetensors",
    ]
    assert not list((tmp_path / "checkpoint-1").glob("masks*"))
    state = json.loads((folder / "masks.json").read_text())
    assert state["strategy"] == "massive" and state["sparsity_ratio"] == 0.3 and state["num_refreshes"] == 2
    with safe_open(folder / "rollouts-0-of-1.safetensors", "pt") as file:
        assert file.metadata() == {"step": "1"}
        assert "1/completion_ids" in file.keys()
    restored = MaskRefreshCallback(trainer.args, make_model())
    restored.load(tmp_path / "checkpoint-1")
    saved = trainer.mask_refresh
    assert restored.num_refreshes == saved.num_refreshes
    for group in ("masks", "magnitudes", "ever_selected"):
        named, expected = getattr(restored, group), getattr(saved, group)
        assert list(named) == list(expected) and len(named) == 4  # in one order: churn lays masks end to end
        assert all(torch.equal(tensor, expected[name]) for name, tensor in named.items())
    assert torch.equal(restored.generator.get_state(), saved.generator.get_state())


KILLED = """
import os, signal, sys
from pathlib import Path

from helpers.trainers import make_trainer
from longact_trl import LongActTrainer

class Dies(LongActTrainer):
    def _save_rng_state(self, output_dir):
        if output_dir.endswith("checkpoint-4"):
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(output_dir)

make_trainer(Path(sys.argv[1]), trainer_class=Dies, max_steps=6, save_strategy="steps", save_steps=2).train()
"""


def test_a_run_killed_while_it_saves(tmp_path, caplog):
    assert run_forked("-c", KILLED, tmp_path / "killed", timeout=600).returncode == -signal.SIGKILL
    assert [folder.name for folder in checkpoints(tmp_path / "killed")] == ["checkpoint-4", "checkpoint-2"]
    assert (tmp_path / "killed" / "checkpoint-4" / "model.safetensors").is_file()
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    resumed = make_trainer(tmp_path / "killed", make_model(seed=5), **settings)
    with caplog.at_level("WARNING", logger="longact_trl.training.checkpoints"):
        resumed.train(resume_from_checkpoint="auto")
    assert "checkpoint-4: it was not written to its end" in caplog.text
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    assert_same_weights(resumed.model, whole.model)


# Which checkpoint


def write_checkpoint(folder: Path, content: str | None = "{}") -> Path:
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "trainer_state.json").write_text(content)
    return folder


def test_half_written_checkpoints_are_skipped_with_a_warning(tmp_path, caplog):
    good = write_checkpoint(tmp_path / "checkpoint-9")
    write_checkpoint(tmp_path / "checkpoint-10", content=None)
    write_checkpoint(tmp_path / "checkpoint-100", content='{"global_')
    write_checkpoint(tmp_path / "not-a-checkpoint-200")
    (tmp_path / "checkpoint-300").write_text("a file")
    with caplog.at_level("WARNING", logger="longact_trl.training.checkpoints"):
        assert newest_complete_checkpoint(tmp_path) == good
    assert "checkpoint-10:" in caplog.text and "checkpoint-100:" in caplog.text and "checkpoint-9:" not in caplog.text


def test_nothing_to_resume_from(tmp_path):
    assert newest_complete_checkpoint(tmp_path / "missing") is None
    assert resolve_resume("auto", tmp_path) is None
    assert resolve_resume(None, tmp_path) is None
    assert resolve_resume(False, tmp_path) is None
    with pytest.raises(ValueError, match="no complete checkpoint.*'auto'"):
        resolve_resume(True, tmp_path)
    with pytest.raises(ValueError, match="nowhere.*trainer_state.json.*'auto'"):
        resolve_resume(tmp_path / "nowhere", tmp_path)
    write_checkpoint(tmp_path / "checkpoint-1", content=None)
    with pytest.raises(ValueError, match="no complete checkpoint"):
        resolve_resume(True, tmp_path)
    with pytest.raises(ValueError, match="checkpoint-1.*trainer_state.json"):
        resolve_resume(str(tmp_path / "checkpoint-1"), tmp_path)


def test_what_to_resume_from(tmp_path):
    older, newer = write_checkpoint(tmp_path / "checkpoint-8"), write_checkpoint(tmp_path / "checkpoint-12")
    assert resolve_resume("auto", tmp_path) == str(newer)
    assert resolve_resume(True, tmp_path) == str(newer)
    assert resolve_resume(older, tmp_path) == resolve_resume(str(older), tmp_path) == str(older)
    with pytest.raises(ValueError, match="holds another run's checkpoint-12.*resume_from_checkpoint='auto'"):
        resolve_resume(None, tmp_path)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_trainer(folder, max_steps=1, save_strategy="steps", save_steps=1).train()
    return folder


def test_a_new_run_does_not_mix_with_an_old_one(finished_run):
    before = sorted(finished_run.rglob("*"))
    with pytest.raises(ValueError, match="holds another run's checkpoint-1"):
        make_trainer(finished_run).train()
    assert sorted(finished_run.rglob("*")) == before


@pytest.mark.parametrize("resume", ["auto", True, "path"])
def test_ways_to_continue(finished_run, tmp_path, resume):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    trainer = make_trainer(folder, max_steps=2)
    trainer.train(resume_from_checkpoint=folder / "checkpoint-1" if resume == "path" else resume)
    assert trainer.state.global_step == 2
    assert trainer.mask_refresh.num_refreshes == 2


def test_the_checkpoint_of_another_model_raises(finished_run):
    other = MaskRefreshCallback(make_trainer(finished_run).args, make_decoder("qwen3", num_hidden_layers=1))
    with pytest.raises(ValueError, match="masks of 4 projections with 384 rows, this model has 2 with 128"):
        other.load(finished_run / "checkpoint-1")
    other = MaskRefreshCallback(make_trainer(finished_run).args, make_model(num_attention_heads=2))
    with pytest.raises(ValueError, match="another model"):
        other.load(finished_run / "checkpoint-1")


def test_a_dense_checkpoint_does_not_become_a_masked_one(tmp_path, finished_run):
    """Their optimizers have other parameter groups. A plain GRPOTrainer's checkpoint is a dense one."""
    kwargs = {"save_strategy": "steps", "save_steps": 1}
    stock = make_trainer(tmp_path, trainer_class=GRPOTrainer, config_class=GRPOConfig, max_steps=1, **kwargs)
    stock.train()
    with pytest.raises(ValueError, match="checkpoint-1 was written by a dense run.*strategy='massive'"):
        make_trainer(tmp_path, max_steps=2, **kwargs).train(resume_from_checkpoint="auto")
    with pytest.raises(ValueError, match="a run with strategy='massive'.*strategy='dense'"):
        make_trainer(finished_run, max_steps=2, strategy="dense").train(resume_from_checkpoint="auto")
    dense = make_trainer(tmp_path, max_steps=2, strategy="dense", **kwargs)
    dense.train(resume_from_checkpoint="auto")
    assert dense.state.global_step == 2


def test_a_checkpoint_of_a_model_only_is_not_resumed_from(tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    make_trainer(tmp_path, **settings).train()
    with pytest.raises(ValueError, match="checkpoint-2 holds a model only"):
        make_trainer(tmp_path, **settings).train(resume_from_checkpoint="auto")


def test_a_generation_is_not_resumed_in_other_pieces(tmp_path):
    settings = {**SETTINGS, "save_steps": 1}
    make_trainer(tmp_path, callbacks=[StopAt(1)], steps_per_generation=4, **settings).train()
    with pytest.raises(ValueError, match="with `steps_per_generation=4`. Resume with the same value, not 2"):
        make_trainer(tmp_path, steps_per_generation=2, **settings).train(resume_from_checkpoint="auto")
