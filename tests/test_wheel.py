"""The wheel holds what a user needs who has no clone: it is built, unpacked, and trains."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("unpacked")
    for folder in ("longact_trl", "recipes", "accelerate_configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(source), str(source)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = source.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_every_file_is_in_it(unpacked):
    package = unpacked / "longact_trl"
    assert files_of(ROOT / "longact_trl") <= files_of(package)
    assert files_of(ROOT / "recipes") == files_of(package / "recipes")
    assert files_of(ROOT / "accelerate_configs") == files_of(package / "accelerate_configs")


def test_it_trains_without_a_clone(unpacked, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    code = (
        "import json; from pathlib import Path; import longact_trl\n"
        "from longact_trl.quickstart import recipe_root, training_command\n"
        "assert recipe_root() == Path(longact_trl.__file__).parent\n"
        "print(json.dumps(training_command(recipe_root(), Path('run'))))"
    )
    printed = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True, capture_output=True)
    command = [*json.loads(printed.stdout.splitlines()[-1]), "--max_steps", "2"]
    subprocess.run(command, env=env, cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "run" / "model.safetensors").is_file()
