"""What a user mistypes is said at once: one message, no traceback, the nearest name, and nothing heavy is loaded."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from helpers.paths import RECIPES, ROOT, TESTS
from longact_trl.method.sparsity import check_sparsity_ratio
from longact_trl.settings.messages import usage_errors
from longact_trl.settings.paths import MODEL
from longact_trl.training.command_line import GRPO as GRPO_RECIPE
from longact_trl.training.command_line import check_command_line
from longact_trl.training.number_ranges import check_numbers


GRPO, COLD_START, EVALUATE = (str(RECIPES / name) for name in ("grpo_longact.py", "sft_cold_start.py", "evaluate.py"))
CONFIG = ("--config", "qwen3_8b.yaml")
QUICK = ("--config", "quickstart.yaml", "--model_name_or_path", str(MODEL))
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
    "optimizer cut short": (GRPO, [*CONFIG, "--optim", "adamw"], "'adamw'. Did you mean adamw_torch\\?"),
    "option cut short": (GRPO, [*CONFIG, "--max_comp", "1"], "Did you mean `--max_completion_length`"),
    "how the model is loaded": (
        GRPO,
        [*CONFIG, "--model_init_kwargs", '{"dtyp": "float32"}'],
        "`model_init_kwargs` has an unknown key `dtyp`. Did you mean `dtype`",
    ),
    "optimizer that moves rows": (
        GRPO,
        [*CONFIG, "--update_rule", "frozen_rows", "--optim", "adafactor"],
        "`update_rule='frozen_rows'` needs an optimizer .*got `optim='adafactor'`",
    ),
    "loss of TRL": (GRPO, [*CONFIG, "--loss_type", "dapoo"], "`loss_type` 'dapoo'. .*Did you mean 'dapo'"),
    "loss in upper case": (GRPO, [*CONFIG, "--loss_type", "DAPO"], "Did you mean 'dapo'"),
    "ratio": (GRPO, [*CONFIG, "--importance_sampling_level", "sequenc"], "Did you mean 'sequence'"),
    "scale": (GRPO, [*CONFIG, "--scale_rewards", "grup"], "`scale_rewards` 'grup'. .*Did you mean 'group'"),
    "engine": (GRPO, [*CONFIG, "--vllm_mode", "colocated"], "`vllm_mode` 'colocated'. .*Did you mean 'colocate'"),
    "tracker": (GRPO, [*CONFIG, "--report_to", "wandbb"], "`report_to` cannot be 'wandbb'. .*Did you mean 'wandb'"),
    "log level": (GRPO, [*CONFIG, "--log_level", "inf"], "`log_level` 'inf'. .*Did you mean 'info'"),
    "fewer than no steps": (GRPO, [*CONFIG, "--max_steps", "-5"], "`max_steps` must be a number of steps from 1 on"),
    "no steps": (GRPO, [*CONFIG, "--max_steps", "0"], "`max_steps` must be .*, or -1 where epochs count, got 0"),
    "steps between saves": (GRPO, [*CONFIG, "--save_steps", "-20"], "`save_steps` must be .*, got -20.*'no'"),
    "steps between logs": (GRPO, [*CONFIG, "--logging_steps", "0"], "`logging_steps` must be .*, got 0"),
    "rate": (GRPO, [*CONFIG, "--learning_rate", "-1"], "`learning_rate` must be 0 or more, got -1.0"),
    "rate that is no number": (GRPO, [*CONFIG, "--learning_rate", "nan"], "`learning_rate` must be .*, got nan"),
    "temperature": (GRPO, [*CONFIG, "--temperature", "0"], "`temperature` must be above 0"),
    "percent": (GRPO, [*CONFIG, "--vllm_gpu_memory_utilization", "90"], "must be above 0 and at most 1, got 90"),
    "seed": (GRPO, [*CONFIG, "--seed", "-1"], "`seed` must be 0 or more"),
    "λ in percent": (GRPO, [*CONFIG, "--sparsity_ratio", "30%"], "`--sparsity_ratio`: invalid float value: '30%'"),
    "LoRA": (GRPO, [*CONFIG, "--use_peft", "--lora_r", "0"], "`lora_r` must be a whole number from 1 on"),
    "DeepSpeed's file": (GRPO, [*CONFIG, "--deepspeed", "zero4.json"], "`deepspeed`: there is no file 'zero4.json'"),
    "mapping": (
        GRPO,
        [*CONFIG, "--chat_template_kwargs", "{enable_thinking: true}"],
        "`chat_template_kwargs` cannot be '{enable_thinking: true}': write a mapping in YAML, or JSON",
    ),
    "rows": (GRPO, [*QUICK, "--mixture", "", "--dataset_name", "rows.jsonl"], "there is no 'rows.jsonl'"),
    "half precision": (GRPO, [*QUICK, "--use_cpu", "false", "--bf16", "true"], "no GPU .*Write `use_cpu: true`"),
    "half precision on a CPU": (GRPO, [*QUICK, "--fp16", "true"], "`fp16` needs a GPU"),
    "no half precision, no GPU": (
        GRPO,
        ["--model_name_or_path", "m/m", "--dataset_name", "d/d", "--output_dir", "runs/mine"],
        "no GPU that torch can use, and `bf16` is TRL's default",
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
    "cold start's steps": (
        COLD_START,
        ["--config", "sft_tiny.yaml", "--save_strategy", "steps", "--save_steps", "-1"],
        "`save_steps` must be",
    ),
    "cold start's loss": (COLD_START, ["--config", "sft_tiny.yaml", "--loss_type", "nl"], "'nl'. Did you mean nll"),
    "evaluation, nothing": (EVALUATE, [], "Nothing to evaluate"),
    "evaluation's option": (EVALUATE, [*PAPER, "--modle", "m"], "Did you mean `--model`"),
    "benchmark": (EVALUATE, [*PAPER, "--model", "m", "--benchmarks", "rular"], "'rular' .*Did you mean 'ruler'"),
    "protocol": (EVALUATE, [*PAPER, "--model", "m", "--protocol", "reason"], "'reason' is not one of .*reasoning"),
    "evaluated task": (EVALUATE, [*PAPER, "--model", "m", "--tasks", "qa_7"], "'qa_7' is not one.*Did you mean 'qa_"),
    "evaluation's type": (EVALUATE, [*PAPER, "--model", "m", "--dtype", "bf16"], "'bf16' .*Did you mean 'bfloat16'"),
    "evaluation's engine": (
        EVALUATE,
        [*PAPER, "--model", "m", "--model_args", '{"gpu_memory_utilisation": 0.5}'],
        "`model_args` has an unknown key `gpu_memory_utilisation`. Did you mean `gpu_memory_utilization`",
    ),
    "evaluated folder": (EVALUATE, [*PAPER, "--model", "../nope"], "`model`: there is no '../nope'"),
    "evaluation's lengths": (EVALUATE, [*PAPER, "--model", "m", "--lengths", "4096", "-1"], "lengths: -1 must"),
    "evaluation's seed": (EVALUATE, [*PAPER, "--model", "m", "--seed", "-1"], "seed=-1 must not be negative"),
    "evaluation's data": (
        EVALUATE,
        [*PAPER, "--model", "m", "--longbench_v2_data", "data.json"],
        "`longbench_v2_data`: there is no 'data.json'",
    ),
    "check's config": ("longact", ["check", "--config", "nope.yaml"], "There is no config .*nope.yaml"),
    "check's override": ("longact", [*CHECK, "--sparsity_ration", "0.2"], "Did you mean `--sparsity_ratio`"),
    "check's model": (
        "longact",
        [*CHECK, "--model_name_or_path", f"{ROOT}/longact_trl/assets/tiny_qwen"],
        "`model_name_or_path`: there is no '.*tiny_qwen'. Did you mean '.*/tiny_qwen3'",
    ),
    "check's rows": ("longact", [*CHECK, "--mixture", "", "--dataset_name", "./r.jsonl"], "there is no './r.jsonl'"),
    "check's loss": ("longact", [*CHECK, "--loss_type", "dapoo"], "Did you mean 'dapo'"),
    "check's steps": ("longact", [*CHECK, "--save_steps", "-20"], "`save_steps` must be"),
    "check's mixture": ("longact", [*CHECK, "--mixture", "mixtur.yaml"], "Did you mean mixture.yaml"),
    "check's own option": ("longact", [*CHECK, "--gpuss", "8"], "Did you mean `--gpus`"),
    "check's launch": ("longact", [*CHECK, "--accelerate-config", "zero4.yaml"], "Did you mean zero[123].yaml"),
    "check without a config": ("longact", ["check"], "Missing option '--config'"),
    "inspect's λ": ("longact", ["inspect", "m", "--sparsity-ratio", "30"], "`sparsity_ratio` must be in"),
    "inspect's projections": ("longact", ["inspect", "m", "--projections", "q,o"], "Unknown projections 'q,o'"),
    "inspect's layers": ("longact", ["inspect", "m", "--layers", "first"], "Cannot read layers 'first'"),
    "inspect's layers, backwards": ("longact", ["inspect", "m", "--layers", "5-2"], "Cannot read layers '5-2'"),
    "inspect's layout": ("longact", ["inspect", "m", "--layout", "papr"], "'papr'. .*Did you mean paper"),
    "inspect's benchmark": ("longact", ["inspect", "m", "--benchmark", "ruler/cw"], "'ruler/cw'. .*ruler/cwe\\?"),
    "inspect's recipe": (
        "longact",
        ["inspect", "m", "--gradients", "--config", "quikstart.yaml"],
        "no config .*Did you mean quickstart.yaml",
    ),
    "inspect's prompts": ("longact", ["inspect", "m", "--gradients", "--num-prompts", "0"], "must be 1 or more"),
    "inspect's length": ("longact", ["inspect", "m", "--length", "long"], "Cannot read a length from 'long'"),
    "inspect's model": ("longact", ["inspect", "./nope"], "MODEL`: there is no './nope'"),
    "perturb's text": ("longact", ["perturb", "m", "--text", "nope.txt"], "Cannot read 'nope.txt'"),
    "perturb's task": ("longact", ["perturb", "m", "--task", "needle"], "'needle'. .*Did you mean needles"),
    "perturb's engine": ("longact", ["perturb", "m", "--engine", "vlm"], "'vlm'. .*Did you mean vllm"),
    "perturb's clamp": ("longact", ["perturb", "m", "--clamp", "pool"], "'pool'. .*Did you mean pooled"),
    "perturb's prompts": ("longact", ["perturb", "m", "--num-prompts", "0"], "--num-prompts must be 1 or more"),
    "perturb's temperature": ("longact", ["perturb", "m", "--temperature", "-1"], "must not be negative, got -1"),
    "perturb's data": ("longact", ["perturb", "m", "--longbench-v2-data", "data.json"], "there is no 'data.json'"),
    "drift's magnitudes": ("longact", ["drift", "m", "n", "--magnitudes", "nope"], "no 'nope': write the"),
    "drift's λ": ("longact", ["drift", "a", "b", "--sparsity-ratio", "0"], "`sparsity_ratio` must be in"),
    "drift's model": ("longact", ["drift", "a", "/no/b"], "TRAINED`: there is no '/no/b'"),
    "study": ("longact", ["study", "tiny_table_7.yaml"], "no config .*Did you mean tiny_table_[56].yaml"),
    "study's devices": ("longact", ["study", "tiny_table_5.yaml", "--devices", "0-3,b"], "Cannot read the devices"),
    "study's GPU": ("longact", ["study", "tiny_table_5.yaml", "--gpu", "H10"], "`--gpu` 'H10' is none of"),
    "study's Slurm": ("longact", ["study", "tiny_table_5.yaml", "--sbatch", "0"], "Invalid value for '--sbatch'"),
    "page's rollouts": ("longact", ["page", "runs", "--max-rollouts", "0"], "Invalid value for '--max-rollouts'"),
    "page's run": ("longact", ["page", "runs/nope"], "There is no folder 'runs/nope'"),
    "report's results": ("longact", ["report", "/no/results"], "There is no folder '/no/results'"),
    "version": ("longact", ["drift", "--versoin"], "No such option: --versoin"),
    "command": ("longact", ["inspekt", "m"], "No such command 'inspekt'. Did you mean 'inspect'"),
    "command's option": ("longact", ["inspect", "m", "--lenght", "4k"], "No such option: --lenght .*--length"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_run_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict]:
    command = [sys.executable, "-m", "helpers.mistakes"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", "COLUMNS": "200"}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # a machine without a GPU
    cases = json.dumps([[program, arguments] for program, arguments, _ in CASES.values()])
    here = tmp_path_factory.mktemp("no_run_is_here")  # should a mistake go unnoticed, the run it starts ends here too
    done = subprocess.run(command, input=cases, capture_output=True, text=True, env=environment, timeout=600, cwd=here)
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


@pytest.mark.parametrize(
    "name, value", [("learning_rate", 0.0), ("save_steps", 0.25), ("max_steps", -1), ("top_p", 1)]
)
def test_the_ends_of_ranges_may_be_written(name, value):
    check_numbers(SimpleNamespace(**{name: value, "save_strategy": "steps"}))


def test_rows_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text("")
    check_command_line(GRPO_RECIPE, [*QUICK, "--mixture", "", "--dataset_name", "~/rows.jsonl"], RECIPES)


def test_a_later_mistake_has_no_traceback_either_but_a_fault_has_one(capsys):
    with pytest.raises(SystemExit, match="2"), usage_errors():
        check_sparsity_ratio(3.0)
    assert capsys.readouterr().err.startswith("Error: `sparsity_ratio` must be in (0, 1], got 3.0.")
    with pytest.raises(ValueError, match="not enough values"), usage_errors():
        _, _ = "a"
