import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from trl import ModelConfig, ScriptArguments

from helpers.models import make_model
from helpers.trainers import make_trainer
from longact_trl import LongActConfig
from longact_trl.analysis.run_picture import draw_run, load_run
from longact_trl.data.mixture import load_mixture
from longact_trl.evaluation.held_out import accuracy_by_task
from longact_trl.pictures.heatmaps import render
from longact_trl.quickstart import next_steps, training_command
from longact_trl.settings.paths import CONFIG, MODEL, free_folder, recipe_root
from longact_trl.settings.recipe_yaml import read_config
from longact_trl.settings.starting_point import missing_cold_start


BEFORE = accuracy_by_task([True, False, False], ["needle", "hops", "multi_key"])
AFTER = accuracy_by_task([True, True, False], ["needle", "hops", "multi_key"])
SHARES_OF = {  # churn begins with the second mask
    "massive": {"energy": [1, 2, 3], "density": [1, 2, 3], "churn": [2, 3]},
    "random": {"density": [1, 2, 3], "churn": [2, 3]},
    "dense": {},
}


@pytest.mark.parametrize("strategy", list(SHARES_OF))
def test_the_picture_of_a_run(tmp_path, strategy):
    model = make_model(num_hidden_layers=11)  # layer 10 must not stand before layer 2
    trainer = make_trainer(tmp_path, model, strategy=strategy, save_strategy="steps", save_steps=2)
    trainer.train()
    run = load_run(tmp_path)
    assert run.step == 3 and run.settings["strategy"] == strategy
    assert [entry["step"] for entry in run.log_history] == [1, 2, 3]
    projections = trainer.mask_refresh.projections
    assert list(run.masks) == ([p.name for p in projections] if strategy != "dense" else [])
    for name, mask in run.masks.items():
        assert torch.equal(mask, trainer.mask_refresh.masks[name])
    last, ever, total = run.rows()
    assert total == sum(p.num_heads * p.head_dim for p in projections if p.name in run.masks)
    assert last < ever < total or strategy == "dense"

    figure = draw_run(run, BEFORE, AFTER)
    _, accuracy, shares = figure.axes[:3]
    assert len(accuracy.patches) == 8  # all and three tasks, before and after
    steps = {line.get_label().partition(":")[0]: line.get_xdata().tolist() for line in shares.lines}
    assert steps == SHARES_OF[strategy]
    assert bool(run.magnitudes) == (strategy == "massive")
    assert len([axis for axis in figure.axes if axis.images]) == 12 * (strategy == "massive")
    assert render(figure).width > 1500


def test_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="Train with `save_strategy: steps`"):
        load_run(tmp_path)


def test_running_twice_takes_another_folder(tmp_path):
    names = []
    for _ in range(3):
        folder = free_folder(tmp_path / "quickstart")
        folder.mkdir()
        names.append(folder.name)
    assert names == ["quickstart", "quickstart-2", "quickstart-3"]


@pytest.mark.parametrize("inside", [True, False], ids=["repository", "elsewhere"])
def test_the_command_names_files_that_exist(tmp_path, monkeypatch, inside):
    monkeypatch.chdir(recipe_root() if inside else tmp_path)
    command = training_command(recipe_root(), tmp_path / "run")
    files = [part for part in command if part.endswith((".py", "cpu.yaml")) or "tiny_qwen3" in part]
    assert command[0] == sys.executable and len(files) == 3
    assert all(Path(file).exists() and Path(file).is_absolute() != inside for file in files)


def test_commands_can_be_copied_from_a_folder_with_a_space(tmp_path, monkeypatch):
    root, output_dir = tmp_path / "my clone", Path("my runs", "quickstart")
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line) for line in next_steps(root, output_dir).splitlines() if line.startswith("  ")]
    assert lines[0] == ["longact", "page", "my runs/quickstart"]
    assert [line[line.index("--config_file") + 1] for line in lines[1:]] == [
        f"my clone/accelerate_configs/{name}.yaml" for name in ("cpu", "zero3", "zero3")
    ]
    assert lines[1][-2:] == ["--output_dir", "my runs/quickstart-random"]
    assert lines[3][4:] == ["my clone/recipes/grpo_longact.py", "--config", "qwen3_8b.yaml"]
    shutil.copytree(recipe_root() / "recipes", root / "recipes")
    message = missing_cold_start("runs/sft_qwen3_8b", root / "recipes").message
    command = shlex.split(re.search("Run it: `([^`]+)`", message)[1])
    assert command[3:5] == ["my clone/accelerate_configs/zero3.yaml", "my clone/recipes/sft_cold_start.py"]


def test_the_configuration_trains_what_the_picture_shows():
    recipes = recipe_root() / "recipes"
    config = read_config(recipes / CONFIG)
    assert (recipe_root() / config["model_name_or_path"]).resolve() == MODEL.resolve()
    assert config["save_strategy"] == "steps"
    fields = {f for cls in (ScriptArguments, LongActConfig, ModelConfig) for f in cls.__dataclass_fields__}
    assert set(config) - fields == {"mixture"}
    rows = load_mixture(recipes / config["mixture"])
    prompts_a_step = config["per_device_train_batch_size"] // config["num_generations"]
    assert len(rows) >= config["max_steps"] * config["gradient_accumulation_steps"] * prompts_a_step
