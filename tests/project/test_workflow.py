"""CI's workflow, which runs elsewhere, against what is here: versions of Python, commands, files, make's targets."""

import re
import tomllib

import pytest
import yaml

from helpers.paths import ROOT


WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
JOBS = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
VERSIONS = JOBS["versions"]["strategy"]["matrix"]["include"]


def test_every_python_that_is_named_is_tried():
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    whole_suite = next(step["with"]["python-version"] for step in JOBS["test"]["steps"] if "with" in step)
    assert named == {row["python"] for row in VERSIONS} and whole_suite in named


@pytest.mark.parametrize("command", [step["run"] for step in STEPS if "run" in step])
def test_a_command_finds_what_it_runs(command):
    program, *words = command.split()
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))
        assert {word for word in words if "=" not in word} <= targets
        for variable in (word.partition("=")[0] for word in words if "=" in word):
            assert f"$({variable})" in MAKEFILE
    elif program == "pip":
        extras = re.search(r"\.\[([\w,]+)\]", command)[1].split(",")
        assert set(extras) <= set(PROJECT["optional-dependencies"])
        assert all(row["constraints"] == "/dev/null" or (ROOT / row["constraints"]).is_file() for row in VERSIONS)
    else:
        assert (ROOT / program).stat().st_mode & 0o100 and (ROOT / program).read_text().startswith("#!")


def test_what_is_tried_without_vllm_is_there():
    lines = r"no-loadscope-reorder \\\n\t\t(.*?) \\\n.*?addsuffix \.py,([\w ]+)"
    folders, files = re.search(lines, MAKEFILE).groups()
    tried = [ROOT / folder for folder in folders.split()]
    tried += [ROOT / "tests" / "training" / f"test_{name}.py" for name in files.split()]
    assert len(tried) > 10 and all(path.exists() for path in tried)
