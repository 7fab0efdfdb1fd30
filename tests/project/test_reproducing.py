"""Every command of docs/reproducing.md: bash expands its loops, each parses, and uses nothing that is not made yet."""

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer
from trl import ModelConfig, SFTConfig

from helpers.paths import RECIPES, ROOT
from longact_trl import LongActConfig
from longact_trl.cli import app
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.evaluation.tables import paper_tables
from longact_trl.settings.recipe_yaml import find_config, parse_recipe
from longact_trl.training.cold_start import ColdStartArguments
from longact_trl.training.recipe_parts import RecipeArguments


PAGE = (ROOT / "docs" / "reproducing.md").read_text()
CPU = ["--use_cpu", "true", "--bf16", "false"]  # this machine, not the recipe's
SAY = 'say() {{ printf "%q " "$@"; echo; }}; {}'.format(
    " ".join(f'{name}() {{ say {name} "$@"; }};' for name in ("accelerate", "longact", "python", "sbatch"))
)
"""The programs say how they were called; loops and substitutions are bash's own."""


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    script = "set -eu\n" + SAY + "\n" + "\n".join(blocks)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def parsed(command: list[str]) -> tuple:
    """A recipe's arguments as the recipe reads them."""
    recipe = next(part for part in command if part.endswith(".py"))
    assert (ROOT / recipe).is_file()
    argv = command[command.index(recipe) + 1 :]
    if recipe == "recipes/evaluate.py":
        return parse_recipe((EvaluationConfig,), argv, RECIPES)
    assert (ROOT / option(command, "--config_file")).is_file()
    own = {"recipes/grpo_longact.py": (RecipeArguments, LongActConfig)}.get(recipe, (ColdStartArguments, SFTConfig))
    return parse_recipe((*own, ModelConfig), [*argv, *CPU], RECIPES)


def test_every_command_parses_and_uses_what_an_earlier_one_has_made(commands):
    made, evaluated = {"Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", "Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Base"}, set()
    for command in commands:
        if command[0] == "accelerate":
            _, args, model_args = parsed(command)
            assert model_args.model_name_or_path in made, command
            assert args.output_dir not in made, f"{command} would write over an earlier run"
            made.add(args.output_dir)
        elif command[0] == "python":
            [config] = parsed(command)
            assert config.model in made and Path(config.output_dir).name == config.label, command
            assert config.output_dir not in evaluated, command
            evaluated.add(config.output_dir)
        elif command[0] == "longact":
            longact = typer.main.get_command(app).commands[command[1]]
            arguments = longact.make_context(command[1], command[2:]).params  # raises for what it does not know
            if command[1] == "check":
                assert find_config(arguments["config"], RECIPES).is_file()
            elif command[1] == "perturb":
                evaluated.add(str(arguments["output"]))
            elif command[1] == "report":
                for folder in arguments["results"]:
                    assert any(fnmatch(other, folder) for other in evaluated), f"{folder} has not been evaluated yet"
        else:
            assert command[0] == "sbatch" and (ROOT / command[1]).is_file()
            assert find_config(option(command, "--config"), RECIPES).is_file()


def test_every_row_of_the_paper_is_trained_and_evaluated(commands):
    """On the benchmark of its table; rows of Tables 4 to 6 on Table 1's."""
    labels = {}
    for command in commands:
        if command[0] == "python":
            benchmarks = parsed(command)[0].benchmarks
            assert len(benchmarks) == 1, command
            labels.setdefault(benchmarks[0], set()).add(option(command, "--model").rpartition("/")[2])
    for number, table in paper_tables().items():
        if number in range(1, 7):
            printed = {label for label, row in table["rows"].items() if "paper" in row}
            assert printed <= labels[table["benchmark"]], f"Table {number}"
    perturbed = [command for command in commands if command[:2] == ["longact", "perturb"]]
    assert all(option(command, "--task") == "longbench_v2" for command in perturbed) and len(perturbed) == 2
    assert any(
        command[:2] == ["longact", "inspect"] and option(command, "--layout") == "paper" for command in commands
    )


def test_there_is_a_row_for_every_table_and_figure():
    rows = re.findall(r"^\| (?:Tables?|Figures?) ([\d, ]+) \|", PAGE, re.MULTILINE)
    named = [number for row in rows for number in row.split(", ")]
    assert named == [*"1234567", *"123456"]  # seven tables, six figures
