"""The paper's training stack, small: cold start of a Base model, then DAPO and LongAct from it, each by its YAML.

Two processes, ZeRO-3, one colocated vLLM per rank, dynamic sampling, overlong punishment; on the fixtures of DocQA and
MemAgent, synthetic contexts and the embedded model's own tasks.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.base_model import ends, make_base_model
from helpers.launching import launch_each
from helpers.paths import FIXTURES


MIXTURE = {
    "seed": 42,
    "sources": [
        {"loader": "docqa", "source": str(FIXTURES / "docqa.jsonl"), "max_bad_share": 0.2},
        {"loader": "memagent", "source": str(FIXTURES / "memagent.jsonl"), "num_rows": 4, "max_bad_share": 0.5},
        {"loader": "synthetic", "tokens": 512, "num_prompts": 9},
        {"loader": "tiny_tasks", "num_prompts": 60},  # what this model is right on now and then
    ],
}
# This machine, not the recipe's. The learning rate has no warm-up to wait for, so that two steps move every weight.
CPU = {"use_cpu": "true", "bf16": "false", "dtype": "float32", "attn_implementation": "sdpa", "report_to": "none"}
SMALL = {
    **CPU,
    "max_steps": "2",
    "save_steps": "1",
    "learning_rate": "1e-3",
    "warmup_steps": "0",
    "num_generations": "8",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "1",
    "max_completion_length": "40",
    "overlong_buffer": "20",
    "vllm_max_model_length": "1024",
    "vllm_gpu_memory_utilization": "0.1",
    "vllm_enable_sleep_mode": "false",
}
STEPS = ("checkpoint-1", "checkpoint-2")


def run(recipe: str, config: str, **overrides: str) -> list[str]:
    flags = [part for name, value in overrides.items() for part in (f"--{name}", value)]
    return ["tests/distributed/eager.py", f"recipes/{recipe}.py", "--config", config, *flags]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Where the three runs ended."""
    root = tmp_path_factory.mktemp("pipeline")
    (root / "mixture.yaml").write_text(yaml.safe_dump(MIXTURE))
    cold = root / "cold"
    base = str(make_base_model(root / "base"))
    cold_start = {"max_steps": "2", "max_rows": "40", "model_name_or_path": base, "eos_token": "<|im_end|>"}
    runs = [run("sft_cold_start", "sft_tiny.yaml", **cold_start, output_dir=str(cold))]
    arms = {"dense": "paper/qwen3_8b_dense.yaml", "longact": "qwen3_8b.yaml"}
    for arm, config in arms.items():
        names = {"mixture": str(root / "mixture.yaml"), "output_dir": str(root / arm)}
        runs.append(run("grpo_longact", config, model_name_or_path=str(cold), **names, **SMALL))
    launch_each("zero3", *runs, timeout=900)
    return {"cold": cold, **{arm: root / arm for arm in arms}}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved_rows(before: Path, after: Path) -> dict[str, torch.Tensor]:
    """Which rows of W_Q and W_K differ between two checkpoints."""
    old, new = weights(before), weights(after)
    return {name: (old[name] != new[name]).any(1) for name in old if "q_proj" in name or "k_proj" in name}


def masks(folder: Path) -> dict[str, torch.Tensor]:
    saved = load_file(folder / "longact" / "masks.safetensors")
    return {f"{name[5:]}.weight": mask.bool() for name, mask in saved.items() if name.startswith("mask/")}


def logs_of(folder: Path) -> list[dict]:
    state = json.loads((folder / STEPS[-1] / "trainer_state.json").read_text())
    return [log for log in state["log_history"] if "loss" in log]


@pytest.mark.parametrize("arm", ["dense", "longact"])
def test_it_finishes_with_metrics(folders, arm):
    logs = logs_of(folders[arm])
    assert [log["step"] for log in logs] == [1, 2]
    for log in logs:
        assert log["grad_norm"] > 0 and log["longact/sampling_rounds"] >= 1
        # vLLM stops where the cold start of a Base model has learned to end its turn.
        assert log["completions/clipped_ratio"] < 1 and 0 < log["completions/mean_terminated_length"] < 40
        assert log["longact/groups_degenerate_left"] == 0 and log["frac_reward_zero_std"] == 0
        assert 0 <= log["rewards/answer_reward/mean"] <= 1 and 0 < log["rewards/format_reward/mean"] <= 1
        assert -1 <= log["rewards/soft_overlong_punishment_reward/mean"] <= 0
        # vLLM serves in bfloat16 what is trained in float32.
        assert log["sampling/sampling_logp_difference/mean"] < 0.02
        assert log.get("longact/density_q") == (9 / 32 if arm == "longact" else None)


def test_groups_that_do_not_vary_are_replaced(folders):
    """This model is never right on documents, so they make way for its own tasks."""
    logs = logs_of(folders["dense"]) + logs_of(folders["longact"])
    assert max(log["longact/sampling_rounds"] for log in logs) > 1
    for log in logs:
        assert log["longact/groups_thrown_away"] == 2 * (log["longact/sampling_rounds"] - 1)


def test_dense_moves_every_row_of_queries_and_keys(folders):
    for rows in moved_rows(folders["cold"], folders["dense"] / "checkpoint-1").values():
        assert rows.all()


def test_longact_moves_the_selected_rows_alone(folders):
    first, second = (folders["longact"] / step for step in STEPS)
    moved, selected = moved_rows(folders["cold"], first), masks(first)
    assert moved.keys() == selected.keys() and len(moved) == 4
    for name, rows in moved.items():
        assert torch.equal(rows, selected[name]), name
    # Momentum goes on moving what the step before has moved; nothing else moves.
    for name, rows in moved_rows(first, second).items():
        assert torch.equal(rows, rows & (selected[name] | masks(second)[name])), name
        assert rows[masks(second)[name]].all()
    # The rest of the model learns as ever.
    before, after = weights(folders["cold"]), weights(first)
    others = [name for name in before if name not in moved]
    assert len(others) > 10 and all(not torch.equal(before[name], after[name]) for name in others)


@pytest.mark.parametrize("run_name", ["cold", "dense", "longact"])
def test_what_is_saved_is_a_plain_model(folders, run_name):
    folder = folders[run_name]
    assert all("<|im_end|>" in where for where in ends(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if run_name != "cold":
        assert all(torch.equal(w, model.state_dict()[name]) for name, w in weights(folder / STEPS[-1]).items())
    prompt = [{"role": "user", "content": "fox 42 . what is the number of fox ?"}]
    inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    text = tokenizer.decode(model.generate(**inputs, do_sample=False, max_new_tokens=20)[0])
    assert "<think>" in text and "longact" not in (folder / "config.json").read_text().lower()
