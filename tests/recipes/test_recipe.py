"""The recipe as a user writes it, up to the first thing that needs a hub or a GPU."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trl import GRPOConfig, ModelConfig, SFTConfig

from helpers.models import make_tokenizer
from helpers.paths import FIXTURES, RECIPES, ROOT
from helpers.recipes import ALL, RUNS
from longact_trl import LongActConfig
from longact_trl.data.length import prompt_lengths
from longact_trl.settings.recipe_yaml import parse_recipe, read_config
from longact_trl.settings.starting_point import check_cold_start, missing_cold_start
from longact_trl.training.cold_start import ColdStartArguments
from longact_trl.training.recipe_parts import RecipeArguments, load_prompts


SFT = [p for p in RUNS if p.name.startswith("sft_")]
TRAINING = [p for p in RUNS if p not in SFT]
DENSE_ARMS = ("dense_grpo", "dense_clip_cov", "dense_kl_cov")  # beside Table 4, in no table of the paper
PAPER_ARMS = ("dense", "lambda_02", "lambda_04", "random", "min", "grpo", "clip_cov", "kl_cov", *DENSE_ARMS)
ARMS = [("", ""), ("sft_", ""), *[("paper/", f"_{arm}") for arm in PAPER_ARMS]]  # λ = 0.3 and the cold start first
CPU = ["--use_cpu", "true", "--bf16", "false"]  # this machine, not the recipe's


def parse(*argv: str):
    return parse_recipe((RecipeArguments, LongActConfig, ModelConfig), [*argv, *CPU], RECIPES)


def test_every_config_is_found():
    names = {p.relative_to(RECIPES).as_posix() for p in RUNS}
    assert len(names) == len(ARMS) * 2 + 2 == 28  # and the two that run on a CPU
    arms = {f"{folder}qwen3_{size}{suffix}.yaml" for folder, suffix in ARMS for size in ("8b", "4b")}
    assert names == {"quickstart.yaml", "sft_tiny.yaml"} | arms
    bases = {"grpo_base.yaml", "sft_base.yaml", "mixture.yaml", "quickstart_data.yaml"}
    bases |= {f"paper/{arm}_arm.yaml" for arm in ("grpo", "clip_cov", "kl_cov")}
    evaluations = {"eval_paper.yaml", "eval_tiny.yaml", *(f"eval_table_{number}.yaml" for number in (1, 2, 3))}
    assert {p.relative_to(RECIPES).as_posix() for p in ALL} == names | bases | evaluations


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_every_training_config_parses(path):
    script_args, args, _ = parse("--config", str(path))
    assert script_args.mixture is None or (RECIPES / script_args.mixture).is_file()
    assert bool(script_args.mixture) != bool(script_args.dataset_name)
    assert args.generation_batch_size % args.num_generations == 0


@pytest.mark.parametrize("path", SFT, ids=lambda p: p.stem)
def test_every_cold_start_parses(path):
    types = (ColdStartArguments, SFTConfig, ModelConfig)
    script_args, args, _ = parse_recipe(types, ["--config", str(path), *CPU], RECIPES)
    assert script_args.dataset_name and args.packing and args.completion_only_loss


def test_no_two_runs_write_into_one_folder():
    folders = [read_config(path)["output_dir"] for path in RUNS]
    assert len(set(folders)) == len(folders)


def difference(arm: str, size: str) -> dict:
    """Keys in which an arm differs from the λ = 0.3 run, the folder apart."""
    ours, main = (read_config(RECIPES / name) for name in (f"paper/qwen3_{size}_{arm}.yaml", f"qwen3_{size}.yaml"))
    assert main["model_name_or_path"] == read_config(RECIPES / f"sft_qwen3_{size}.yaml")["output_dir"]
    return {key: value for key, value in ours.items() if value != main.get(key) and key != "output_dir"}


@pytest.mark.parametrize("size", ["8b", "4b"])
def test_an_arm_differs_in_what_it_is_about(size):
    dense = {"strategy": "dense"}
    grpo = {"loss_type": "grpo", "epsilon_high": 0.2, "dynamic_sampling": False, "overlong_buffer": 0}
    clip_cov = {"policy_loss": "clip_cov", "clip_cov_ratio": 2e-4, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0}
    clip_cov |= {"epsilon": 1.0, "epsilon_high": 1.0}
    kl_cov = {"policy_loss": "kl_cov", "kl_cov_ratio": 2e-3, "kl_cov_coef": 1.0, "steps_per_generation": 32}
    kl_cov |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}  # prompts cannot be shared
    assert {arm: difference(arm, size) for arm in PAPER_ARMS} == {
        "dense": dense,
        "lambda_02": {"sparsity_ratio": 0.2},
        "lambda_04": {"sparsity_ratio": 0.4},
        "random": {"strategy": "random"},
        "min": {"strategy": "min"},
        # Table 4 is LongAct under each algorithm: masks stay as in the λ = 0.3 run.
        "grpo": grpo,
        "clip_cov": clip_cov,
        "kl_cov": kl_cov,
        "dense_grpo": {**dense, **grpo},
        "dense_clip_cov": {**dense, **clip_cov},
        "dense_kl_cov": {**dense, **kl_cov},
    }
    assert read_config(RECIPES / f"qwen3_{size}.yaml")["strategy"] == "massive"


@pytest.mark.parametrize("name", ["qwen3_8b.yaml", "qwen3_4b.yaml"])
def test_the_papers_settings(name):
    script_args, args, model_args = parse("--config", name)
    assert model_args.model_name_or_path == f"runs/sft_{name.removesuffix('.yaml')}"
    assert (args.learning_rate, args.sparsity_ratio, args.temperature, args.beta) == (1e-6, 0.3, 1.0, 0.0)
    assert (args.loss_type, args.epsilon, args.epsilon_high) == ("dapo", 0.2, 0.28)
    assert (args.max_completion_length, args.vllm_max_model_length, args.num_generations) == (4096, 32768, 16)
    prompts_a_step = 8 * args.per_device_train_batch_size * args.gradient_accumulation_steps / args.num_generations
    assert prompts_a_step == 8  # on 8 GPUs
    assert script_args.mixture == "mixture.yaml"


def test_every_value_says_where_it_is_from():
    lines = {path: [line for line in path.read_text().splitlines() if line[:1].isalpha()] for path in ALL}
    settings = {"epsilon", "epsilon_high", "learning_rate", "sparsity_ratio", "num_generations", "temperature"}
    settings |= {"max_completion_length", "vllm_max_model_length", "loss_type", "weight_decay", "warmup_steps"}
    sft = {"max_rows", "max_length", "packing", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps"}
    for name, keys in {"grpo_base.yaml": settings, "sft_base.yaml": sft}.items():
        assert keys <= {line.split(":")[0] for line in lines[RECIPES / name] if "#" in line}
    for path in (RECIPES / "paper").iterdir():
        for line in lines[path]:
            assert "#" in line or line.split(":")[0] in ("base", "output_dir"), (path.name, line)


def test_a_bare_name_is_looked_up_beside_the_recipe_and_a_path_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("sparsity_ratio: 0.5\noutput_dir: runs/mine\n")
    assert parse("--config", "qwen3_8b.yaml")[1].sparsity_ratio == 0.3
    assert parse("--config", "./mine.yaml")[1].sparsity_ratio == 0.5
    assert parse("--config=./mine.yaml")[1].sparsity_ratio == 0.5
    with pytest.raises(ValueError, match=r"no config .*mine\.yaml.*qwen3_8b\.yaml"):
        parse("--config", "mine.yaml")


def test_a_path_is_looked_up_beside_the_recipe_where_the_working_directory_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("--config", "paper/qwen3_8b_dense.yaml")[1].strategy == "dense"
    for name in ("./qwen3_8b.yaml", "../qwen3_8b.yaml", "paper/qwen3_7b_dense.yaml"):
        hint = r"no config .*Did you mean (paper/qwen3_8b_dense|qwen3_8b)\.yaml\? .*paper/qwen3_8b_dense\.yaml"
        with pytest.raises(ValueError, match=hint):
            parse("--config", name)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "qwen3_8b_dense.yaml").write_text("strategy: min\noutput_dir: runs/mine\n")
    assert parse("--config", "paper/qwen3_8b_dense.yaml")[1].strategy == "min"


def test_the_command_line_wins(tmp_path):
    args = parse("--config", "qwen3_8b.yaml", "--sparsity_ratio", "0.2", "--num_generations", "8")[1]
    assert (args.sparsity_ratio, args.num_generations, args.learning_rate) == (0.2, 8, 1e-6)


def test_a_file_overrides_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("a: 1\nb: 2\n")
    (tmp_path / "child.yaml").write_text("base: base.yaml\nb: 3\n")
    assert read_config(tmp_path / "child.yaml") == {"a": 1, "b": 3}
    (tmp_path / "other.yaml").write_text("a: 4\nc: 5\n")
    (tmp_path / "child.yaml").write_text("base: [base.yaml, other.yaml]\nc: 6\n")
    assert read_config(tmp_path / "child.yaml") == {"a": 4, "b": 2, "c": 6}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sparsity_ration: 0.3", "unknown key `sparsity_ration`. Did you mean `sparsity_ratio`"),
        ("max_prompt_length: 100", "unknown key `max_prompt_length`"),
        ("strategy: biggest", "Unknown `strategy` 'biggest'"),
        ("sparsity_ratio: 0", "must be in"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, line, message):
    path = tmp_path / "bad.yaml"
    path.write_text(f"output_dir: {tmp_path}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        parse("--config", str(path))


def test_an_unknown_flag_is_refused():
    with pytest.raises(ValueError, match="sparsity_ration"):
        parse("--config", "qwen3_8b.yaml", "--sparsity_ration", "0.2")


def launch(folder: Path, *flags: str) -> str:
    """What the user's command says on a machine without GPU and Hub, started in a folder without runs."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        f"{ROOT}/accelerate_configs/cpu.yaml",
    ]
    command += [f"{RECIPES}/grpo_longact.py", "--config", "qwen3_8b.yaml", *CPU, "--use_vllm", "false", *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode != 0
    return done.stderr


def test_the_users_command_without_a_cold_start_says_both_ways_on(tmp_path):
    """And each of them is a command that goes further."""
    said = launch(tmp_path)
    assert "There is no model in 'runs/sft_qwen3_8b': the cold start has not been run." in said
    assert "couldn't find" not in said  # nothing was asked for
    way_on = re.search(r"Run it: `(accelerate launch [^`]+)`, or .*: `([^`]+)`", said)
    _, _, _, zero3, recipe, *config = shlex.split(way_on[1])
    assert (zero3, recipe) == (f"{ROOT}/accelerate_configs/zero3.yaml", f"{RECIPES}/sft_cold_start.py")
    cold_start = parse_recipe((ColdStartArguments, SFTConfig, ModelConfig), [*config, *CPU], RECIPES)
    assert (cold_start[2].model_name_or_path, cold_start[1].output_dir) == ("Qwen/Qwen3-8B-Base", "runs/sft_qwen3_8b")
    said = launch(tmp_path, *way_on[2].split())
    assert "Qwen/Qwen3-8B" in said and "couldn't find them in the cached files" in said  # stopped by the Hub alone


@pytest.mark.parametrize("size", ["8b", "4b"])
def test_a_cold_start_counts_once_it_has_come_to_its_end(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    model = f"runs/sft_qwen3_{size}"
    assert missing_cold_start(model, RECIPES).base_model == f"Qwen/Qwen3-{size.upper()}-Base"
    (tmp_path / model / "checkpoint-100").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"has not come to its end\. Run it: `[^`]+ --resume_from_checkpoint auto`, or"
    ):
        check_cold_start(model, RECIPES)
    (tmp_path / model / "config.json").touch()
    for there in (model, f"{model}/", "Qwen/Qwen3-8B", "runs/my_model", None):  # or no cold start of the recipes
        check_cold_start(there, RECIPES)


@pytest.mark.parametrize("policy, fit", [("filter", True), ("truncate_middle", False)])
def test_prompts_are_drawn_among_those_that_the_policy_keeps(tmp_path, policy, fit):
    rows = [json.loads(line) for line in (FIXTURES / "memagent.jsonl").read_text().splitlines()[:6]]
    for row, words in zip(rows, (1, 500, 1, 500, 1, 500), strict=True):
        row["context"] = "word " * words
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"loader": "memagent", "source": str(tmp_path / "rows.jsonl"), "num_rows": 3, "max_bad_share": 0.5}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"seed": 0, "sources": [source]}))
    flags = ["--mixture", str(tmp_path / "mixture.yaml"), "--prompt_length_policy", policy]
    script_args, args, _ = parse("--config", "quickstart.yaml", *flags)
    tokenizer = make_tokenizer()
    lengths = prompt_lengths(load_prompts(script_args, args, tokenizer, RECIPES, 400), tokenizer)
    assert len(lengths) == 3 and (max(lengths) <= 400) == fit


def test_trl_still_has_the_fields_that_the_recipes_set():
    fields = {*GRPOConfig.__dataclass_fields__, *RecipeArguments.__dataclass_fields__}
    fields |= {*LongActConfig.__dataclass_fields__, *ModelConfig.__dataclass_fields__}
    fields |= {*SFTConfig.__dataclass_fields__, *ColdStartArguments.__dataclass_fields__}
    for path in ALL:
        config = yaml.safe_load(path.read_text())
        if "sources" not in config and not path.name.startswith("eval_"):
            assert set(config) - {"base"} <= fields, path.name
