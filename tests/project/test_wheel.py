"""The wheel holds all that a user without a clone needs: it is tried where the repository cannot be imported."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from helpers.paths import ROOT


ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for folder in ("longact_trl", "recipes", "accelerate_configs", "studies"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--no-deps", "--wheel-dir", source, source)
    (built,) = source.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a program of an environment that has the wheel, and of the tests' own only what pip put there."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip("--python", environment / "bin" / "python", "install", "--no-deps", wheel)
    (site_packages,) = (environment / "lib").glob("*/site-packages")
    # A line of a .pth is a place to import from. What lies there in .pth files, a clone's link among it, is not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    variables = ALONE | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}

    def start(program: str, *arguments: str | Path) -> str:
        command = [environment / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    start.folder = folder
    start.package = Path(start("python", "-c", "import longact_trl; print(longact_trl.__path__[0])").strip())
    assert start.package.is_relative_to(environment)
    return start


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True, timeout=900, env=ALONE)


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_every_file_is_in_it(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    package = tmp_path / "longact_trl"
    assert files_of(ROOT / "longact_trl") <= files_of(package)
    assert files_of(ROOT / "recipes") == files_of(package / "recipes")
    for folder in ("accelerate_configs", "studies"):
        assert files_of(ROOT / folder) == files_of(package / folder)


def test_from_check_to_report(run):
    """Check, train, inspect, evaluate, report: whatever reads files that are no Python."""
    model = run.package / "assets" / "tiny_qwen3"
    assert " pass" in run("longact", "check", "--config", "quickstart.yaml", "--model_name_or_path", model)
    package, settings = run.package, ["--model_name_or_path", model, "--output_dir", "trained", "--max_steps", "2"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", package / "accelerate_configs" / "cpu.yaml"]
    run("python", *launch, package / "recipes" / "grpo_longact.py", "--config", "quickstart.yaml", *settings)
    assert "index.html" in run("longact", "inspect", "trained", "--length", "64", "--layers", "0")
    assert (run.folder / "runs" / "inspect" / "trained" / "index.html").is_file()
    evaluation = ["--config", "eval_tiny.yaml", "--model", "trained", "--output_dir", "scores", "--num_samples", "2"]
    run("python", package / "recipes" / "evaluate.py", *evaluation)
    assert "ours" in run("longact", "report", "scores", "--output", "report")
    assert {"report.md", "report.png"} <= {file.name for file in run.folder.iterdir()}
