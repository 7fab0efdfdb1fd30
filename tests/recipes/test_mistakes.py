"""What a user mistypes is said at once: one message, no traceback, the nearest name, and nothing heavy is loaded."""

import json
import os
import re
import subprocess
import sys

import pytest

from helpers.paths import RECIPES, ROOT, TESTS
from helpers.recipes import RUNS
from longact_trl.method.sparsity import check_sparsity_ratio
from longact_trl.settings.messages import usage_errors
from longact_trl.settings.paths import MODEL
from longact_trl.settings.recipe_yaml import read_config
from longact_trl.training.command_line import COLD_START as COLD_START_RECIPE
from longact_trl.training.command_line import GRPO as GRPO_RECIPE
from longact_trl.training.command_line import check_command_line, recipe_of


GRPO, COLD_START, EVALUATE = (str(RECIPES / name) for name in ("grpo_longact.py", "sft_cold_start.py", "evaluate.py"))
CONFIG = ("--config", "qwen3_8b.yaml")
QUICK = ("--config", "quickstart.yaml", "--output_dir", "/no/such/folder")
CHECK = ("check", *CONFIG)
PAPER = ("--config", "eval_paper.yaml")

CASES = {
    "no arguments": (GRPO, [], "no model to train.*--config.*qwen3_8b.yaml"),
    "option": (GRPO, [*CONFIG, "--sparsity_ration", "0.2"], "`--sparsity_ration`. Did you mean `--sparsity_ratio`"),
    "option of TRL": (GRPO, [*CONFIG, "--num_generation=8"], "`--num_generation`. Did you mean `--num_generations`"),
    "option with hyphens": (GRPO, [*CONFIG, "--learning-rat", "1"], "Did you mean `--learning_rate`"),
    "option with one hyphen": (GRPO, [*CONFIG, "-learning_rate", "1"], "Did you mean `--learning_rate`"),
    "option with a dash": (GRPO, [*CONFIG, "—learning-rate", "1"], "Did you mean `--learning_rate`"),
    "no such option": (GRPO, [*CONFIG, "--zzz", "1"], "no option `--zzz`. See `--help`"),
    "config": (GRPO, ["--config", "qwen3_8.yaml"], "no config .*Did you mean qwen3_8b.yaml"),
    "config without its option": (GRPO, ["qwen3_8b.yaml"], "Write `--config qwen3_8b.yaml`"),
    "config without a name": (GRPO, ["--config"], "`--config` needs a file"),
    "two configs": (GRPO, [*CONFIG, *CONFIG], "`--config` is given twice"),
    "value without an option": (GRPO, [*CONFIG, "0.2"], "'0.2' belongs to no option"),
    "option without a value": (GRPO, [*CONFIG, "--max_steps"], "`--max_steps`: expected one argument"),
    "no number": (GRPO, [*CONFIG, "--max_steps", "ten"], "`--max_steps`: invalid int value: 'ten'"),
    "comma": (GRPO, [*CONFIG, "--sparsity_ratio", "0,2"], "`--sparsity_ratio`: invalid float value: '0,2'"),
    "neither yes nor no": (GRPO, [*CONFIG, "--bf16", "perhaps"], "`--bf16`: .*got perhaps"),
    "λ": (GRPO, [*CONFIG, "--sparsity_ratio", "30"], r"`sparsity_ratio` must be in \(0, 1\], got 30"),
    "strategy": (GRPO, [*CONFIG, "--strategy", "masive"], "`strategy` 'masive'. Write one of 'massive', 'min'"),
    "policy": (GRPO, [*CONFIG, "--prompt_length_policy", "cut"], "`prompt_length_policy` 'cut'.*'truncate_middle'"),
    "loss": (GRPO, [*CONFIG, "--policy_loss", "klcov"], "`policy_loss` 'klcov'.*'kl_cov'"),
    "loss that cannot work": (GRPO, [*CONFIG, "--policy_loss", "kl_cov"], "KL-Cov does nothing where"),
    "optimizer": (GRPO, [*CONFIG, "--optim", "adamw_torh"], "'adamw_torh'. Did you mean adamw_torch"),
    "optimizer that moves rows": (
        GRPO,
        [*CONFIG, "--update_rule", "frozen_rows", "--optim", "adafactor"],
        "`update_rule='frozen_rows'` needs an optimizer .*got `optim='adafactor'`",
    ),
    "mixture": (GRPO, [*CONFIG, "--mixture", "mixtur.yaml"], "no config .*mixtur.yaml.*Did you mean mixture.yaml"),
    "cold start first": (GRPO, CONFIG, "runs/sft_qwen3_8b.*sft_cold_start.py"),
    "model's folder": (GRPO, [*CONFIG, "--model_name_or_path", "./nope"], "`model_name_or_path`: .* no './nope'"),
    "checkpoint": (GRPO, [*CONFIG, "--resume_from_checkpoint", "nope"], "'nope' is no complete checkpoint"),
    "token": (GRPO, [*CONFIG, "--hub_token", "hf_x"], "hub_token.*HF_TOKEN"),
    "two sizes of a generation": (
        GRPO,
        [*QUICK, "--generation_batch_size", "16", "--steps_per_generation", "2"],
        "'generation_batch_size' and 'steps_per_generation' can not be both configured",
    ),
    "broken groups": (GRPO, [*QUICK, "--num_generations", "7"], "must be divisible by num_generations"),
    "no group": (GRPO, [*QUICK, "--num_generations", "1"], "at least 2 generations"),
    "no batch": (GRPO, [*QUICK, "--per_device_train_batch_size", "0"], "batch_size` must be a whole number from 1 on"),
    "no pass over a batch": (GRPO, [*QUICK, "--num_iterations", "0"], "`num_iterations` must be a whole number"),
    "batch sizes to be found": (GRPO, [*QUICK, "--auto_find_batch_size", "1"], "auto_find_batch_size is not supp"),
    "cold start's option": (COLD_START, ["--config", "sft_tiny.yaml", "--max_row", "3"], "Did you mean `--max_rows`"),
    "cold start, nothing": (COLD_START, [], "no model to train.*sft_qwen3_8b.yaml"),
    "cold start's data": (
        COLD_START,
        ["--config", "sft_tiny.yaml", "--dataset_name", "/no/rows.jsonl"],
        "`dataset_name`: there is no '/no/rows.jsonl'",
    ),
    "evaluation, nothing": (EVALUATE, [], "Nothing to evaluate"),
    "evaluation's option": (EVALUATE, [*PAPER, "--modle", "m"], "Did you mean `--model`"),
    "benchmark": (EVALUATE, [*PAPER, "--model", "m", "--benchmarks", "rular"], "'rular' is not one of .*ruler"),
    "protocol": (EVALUATE, [*PAPER, "--model", "m", "--protocol", "reason"], "'reason' is not one of .*reasoning"),
    "evaluated folder": (EVALUATE, [*PAPER, "--model", "../nope"], "`model`: there is no '../nope'"),
    "check's config": ("longact", ["check", "--config", "nope.yaml"], "There is no config .*nope.yaml"),
    "check's override": ("longact", [*CHECK, "--sparsity_ration", "0.2"], "Did you mean `--sparsity_ratio`"),
    "check's own option": ("longact", [*CHECK, "--gpuss", "8"], "Did you mean `--gpus`"),
    "check's launch": ("longact", [*CHECK, "--accelerate-config", "zero4.yaml"], "Did you mean zero[123].yaml"),
    "check without a config": ("longact", ["check"], "Missing option '--config'"),
    "inspect's λ": ("longact", ["inspect", "m", "--sparsity-ratio", "30"], "`sparsity_ratio` must be in"),
    "inspect's projections": ("longact", ["inspect", "m", "--projections", "q,o"], "Unknown projections 'q,o'"),
    "inspect's layers": ("longact", ["inspect", "m", "--layers", "first"], "Cannot read layers 'first'"),
    "inspect's length": ("longact", ["inspect", "m", "--length", "long"], "Cannot read a length from 'long'"),
    "inspect's model": ("longact", ["inspect", "./nope"], "MODEL`: there is no './nope'"),
    "perturb's text": ("longact", ["perturb", "m", "--text", "nope.txt"], "Cannot read 'nope.txt'"),
    "drift's λ": ("longact", ["drift", "a", "b", "--sparsity-ratio", "0"], "`sparsity_ratio` must be in"),
    "drift's model": ("longact", ["drift", "a", "/no/b"], "TRAINED`: there is no '/no/b'"),
    "study": ("longact", ["study", "tiny_table_7.yaml"], "no config .*Did you mean tiny_table_[56].yaml"),
    "page's run": ("longact", ["page", "runs/nope"], "There is no folder 'runs/nope'"),
    "report's results": ("longact", ["report", "/no/results"], "There is no folder '/no/results'"),
    "version": ("longact", ["drift", "--versoin"], "No such option: --versoin"),
    "command": ("longact", ["inspekt", "m"], "No such command 'inspekt'. Did you mean 'inspect'"),
    "command's option": ("longact", ["inspect", "m", "--lenght", "4k"], "No such option: --lenght .*--length"),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict]:
    command = [sys.executable, "-m", "helpers.mistakes"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", "COLUMNS": "200"}
    cases = json.dumps([[program, arguments] for program, arguments, _ in CASES.values()])
    done = subprocess.run(command, input=cases, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_said_at_once(outcomes, name):
    _, arguments, message = CASES[name]
    code, shown = outcomes[name]["code"], " ".join(outcomes[name]["shown"].split())
    assert re.search(message, shown), shown
    assert "Traceback" not in shown and len(shown) < 1200
    assert code == (1 if arguments[:1] == ["check"] and len(arguments) > 1 else 2)
    assert outcomes[name]["loaded"] == []


YAML = {
    "lerning_rate: 1.0e-6": "unknown key `lerning_rate`. Did you mean `learning_rate`",
    "learning_rate: [1]": "`learning_rate` cannot be \\[1\\]: it must be float",
    "max_steps: ten": "`--max_steps`: invalid int value: 'ten'",
    "lr_scheduler_type: cosin": "`lr_scheduler_type` cannot be 'cosin'. Did you mean `cosine`",
    "strategy: max": "Unknown `strategy` 'max'",
    "sparsity_ratio: 3": "`sparsity_ratio` must be in",
    "- a": "must hold `key: value` lines",
    "base: nope.yaml": "no config .*nope.yaml",
}


@pytest.mark.parametrize("recipe", [GRPO_RECIPE, COLD_START_RECIPE], ids=["grpo", "cold start"])
@pytest.mark.parametrize("line", YAML)
def test_what_a_file_says_is_read_as_early(tmp_path, recipe, line):
    own = line.partition(":")[0] in ("strategy", "sparsity_ratio")
    (tmp_path / "run.yaml").write_text(
        f"model_name_or_path: m/m\ndataset_name: d/d\n{line}\n" if ":" in line else line
    )
    message = "unknown key" if own and recipe is COLD_START_RECIPE else YAML[line]
    with pytest.raises(ValueError, match=message):
        check_command_line(recipe, ["--config", str(tmp_path / "run.yaml")], RECIPES)


MIXTURES = {
    "seed: 1\nsources: [{loader: docqs}]": "loader must be one of .*'docqs'. Did you mean docqa",
    "seed: 1\nsources: [{loader: docqa, num_rows: many}]": "num_rows of source 'docqa' must be a whole number",
    "seed: 1\nsources: [docqa]": "loader must be one of",
    "seed: one\nsources: [{loader: docqa}]": "seed must be an integer",
    "sources: [{loader: docqa}]": "must have `seed` and a list of `sources`",
}


@pytest.mark.parametrize("content", MIXTURES)
def test_what_a_mixture_says_is_read_as_early(tmp_path, content):
    (tmp_path / "mixture.yaml").write_text(content)
    with pytest.raises(ValueError, match=MIXTURES[content]):
        check_command_line(GRPO_RECIPE, [*QUICK, "--mixture", str(tmp_path / "mixture.yaml")], RECIPES)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_what_ships_is_not_refused(path, clone, monkeypatch):
    recipe = recipe_of(read_config(path))
    monkeypatch.setenv("WORLD_SIZE", "1" if "quickstart" in path.stem else "8")
    assert (recipe is COLD_START_RECIPE) == path.stem.startswith("sft_")
    there = ["--model_name_or_path", str(MODEL)] if recipe is GRPO_RECIPE else []  # some start from a cold start's
    check_command_line(recipe, ["--config", str(path), "--output_dir", "/no/such/folder", *there], RECIPES)


def test_a_later_mistake_has_no_traceback_either_but_a_fault_has_one(capsys):
    with pytest.raises(SystemExit, match="2"), usage_errors():
        check_sparsity_ratio(3.0)
    assert capsys.readouterr().err.startswith("Error: `sparsity_ratio` must be in (0, 1], got 3.0.")
    with pytest.raises(ValueError, match="not enough values"), usage_errors():
        _, _ = "a"
