"""Files that others wrote run no code here: no pickle is read, and no code of a model unless it is asked for."""

import ast
import io
import json
import pickle
import shutil
from pathlib import Path

import evaluate as evaluate_recipe
import grpo_longact
import pytest
import sft_cold_start
import torch
from rich.console import Console
from safetensors import SafetensorError
from typer.testing import CliRunner

from helpers.check import GOOD_CONFIG
from helpers.models import make_model, make_tokenizer
from helpers.paths import RECIPES, ROOT
from helpers.trainers import make_trainer
from longact_trl.check.command import check_run as check
from longact_trl.cli import app


PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
OF_INSTALLED_LIBRARIES = {"settings/argument_classes.py": ["exec", "compile"]}
"""What runs code of a library that is installed, which importing it would run too."""


def offences(source: str) -> list[str]:
    """What in a source can run code that a file brings."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in RUNS_CODE or called in ("torch.load", "np.load", "numpy.load", "yaml.load"):
                found.append(called)
            for keyword in node.keywords:
                if keyword.arg == "trust_remote_code" and getattr(keyword.value, "value", None) is True:
                    found.append("trust_remote_code=True")
    return found


def test_the_package_reads_no_pickle_and_trusts_no_code():
    package = ROOT / "longact_trl"
    sources = [*package.rglob("*.py"), *RECIPES.rglob("*.py")]
    assert len(sources) > 60
    found = {path: there for path in sources if (there := offences(path.read_text()))}
    assert found == {package / name: calls for name, calls in OF_INSTALLED_LIBRARIES.items()}
    bad = "import pickle\nfrom joblib import load\ntorch.load(f)\nf(trust_remote_code=True)\neval(x)\n"
    assert len(offences(bad)) == 5


class Trap:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


EACH_STEP = {"save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    make_trainer(folder, max_steps=2, **EACH_STEP).train()
    return folder


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path, stopped, name, zipped):
    folder = shutil.copytree(stopped, tmp_path / "run")
    trap, marker = folder / "checkpoint-2" / name, tmp_path / "was_run"
    assert trap.is_file()
    torch.save({"state": Trap(marker)}, trap, _use_new_zipfile_serialization=zipped)
    trainer = make_trainer(folder, max_steps=3, **EACH_STEP)
    if name == "training_args.bin":  # nobody reads it
        trainer.train(resume_from_checkpoint="auto")
    else:
        with pytest.raises(pickle.UnpicklingError) as caught:
            trainer.train(resume_from_checkpoint="auto")
        assert f"A file in {folder / 'checkpoint-2'} is damaged, or is not what a trainer" in caught.value.__notes__[0]
    assert not marker.exists()
    torch.load(trap, weights_only=False)
    assert marker.exists()  # or it was no trap


@pytest.mark.parametrize("name", ["model", "longact/masks", "longact/rollouts-0-of-1"])
def test_a_damaged_file_is_named(tmp_path, stopped, name):
    folder = shutil.copytree(stopped, tmp_path / "run")
    (folder / "checkpoint-2" / f"{name}.safetensors").write_bytes(b"\x80\x04garbage")
    with pytest.raises(SafetensorError) as caught:
        make_trainer(folder, max_steps=3, **EACH_STEP).train(resume_from_checkpoint="auto")
    assert f"A file in {folder / 'checkpoint-2'} is damaged" in caught.value.__notes__[0]
    resumed = make_trainer(folder, max_steps=3, **EACH_STEP)
    resumed.train(resume_from_checkpoint=folder / "checkpoint-1")  # as the message says
    assert resumed.state.global_step == 3


CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import Qwen3Config, Qwen3ForCausalLM

class OwnConfig(Qwen3Config):
    model_type = "own"

class OwnModel(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "was_run"


@pytest.fixture
def own_model(tmp_path, marker, monkeypatch) -> str:
    """A model folder with code of its own."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # whoever asks is told yes
    folder = tmp_path / "own"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return str(folder)


SMALL = {**GOOD_CONFIG, "mixture": "quickstart_data.yaml", "bf16": False, "per_device_train_batch_size": 4}
SMALL |= {"num_generations": 4, "max_completion_length": 4, "max_steps": 1}


def arguments(**settings) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def train(model: str, out: Path, **more) -> None:
    grpo_longact.train(arguments(**SMALL | {"model_name_or_path": model, "output_dir": out, **more}))


def cold_start(model: str, out: Path) -> None:
    more = {"model_name_or_path": model, "output_dir": out}
    sft_cold_start.train(["--config", "sft_tiny.yaml", *arguments(**more)])


def evaluate(model: str, out: Path) -> None:
    more = {"model": model, "output_dir": out, "backend": "transformers"}
    evaluate_recipe.run(["--config", "eval_tiny.yaml", *arguments(**more)])


@pytest.mark.parametrize("recipe", [train, cold_start, evaluate])
def test_a_recipe_refuses_a_model_with_code_of_its_own(tmp_path, own_model, marker, recipe):
    with pytest.raises(ValueError, match="contains custom code which must be executed"):
        recipe(own_model, tmp_path / "run")
    assert not marker.exists()


@pytest.mark.parametrize("command", ["inspect", "perturb"])
def test_a_command_refuses_a_model_with_code_of_its_own(tmp_path, own_model, marker, command):
    done = CliRunner().invoke(app, [command, own_model, "--output", str(tmp_path / "out")], input="y\n" * 9)
    assert done.exit_code and not marker.exists()
    assert "contains custom code" in " ".join(f"{done.output} {done.exception}".split())


def test_check_refuses_a_model_with_code_of_its_own(own_model, write, marker, offline_machine):
    console = Console(file=io.StringIO(), width=400)
    assert check(write(model_name_or_path=own_model), console=console) == 1
    assert "contains custom code which must be executed" in console.file.getvalue()
    assert not marker.exists()


def test_it_runs_where_that_is_asked_for(tmp_path, own_model, marker):
    """Or the tests above would show nothing."""
    train(own_model, tmp_path / "run", trust_remote_code="true")
    assert marker.exists()
