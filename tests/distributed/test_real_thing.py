"""The paper's path, small: the recipe, ZeRO-3 on two processes, one colocated vLLM per rank, groups of 16, resume."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from helpers.forking import run_forked
from helpers.launching import launch_each


READ_WITH_VLLM = """
import sys
from vllm import LLM, SamplingParams
from longact_trl.models.vllm_cpu import keep_weights_loadable

keep_weights_loadable()
model = LLM(sys.argv[1], dtype="float32", max_model_len=256, enforce_eager=True)
outputs = model.generate([{"prompt_token_ids": [4, 5, 6, 7]}], SamplingParams(temperature=0, max_tokens=8))
print("TOKENS", list(outputs[0].outputs[0].token_ids))
"""


def training(out: Path, *overrides: str) -> list[str]:
    settings = {"use_vllm": "true", "vllm_mode": "colocate", "vllm_max_model_length": "512", "num_generations": "16"}
    settings |= {"vllm_gpu_memory_utilization": "0.1", "per_device_train_batch_size": "8", "bf16": "false"}
    settings |= {"gradient_accumulation_steps": "2", "gradient_checkpointing": "true", "save_steps": "1"}
    settings |= {"logging_steps": "1", "report_to": "none", "output_dir": str(out)}
    flags = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return ["tests/distributed/eager.py", "recipes/grpo_longact.py", "--config", "quickstart.yaml", *flags, *overrides]


def test_three_steps_checkpoint_resume_and_a_plain_model(tmp_path):
    resumed = training(tmp_path, "--max_steps", "4", "--resume_from_checkpoint", "auto")
    printed = launch_each("zero3", training(tmp_path, "--max_steps", "3"), resumed, timeout=900)
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "longact/density_q" in entry]
    assert len(steps) == 3
    for entry in steps:
        assert entry["longact/density_q"] == entry["longact/density_k"] == 9 / 32  # floor(0.3 · 32) of 32
        # vLLM serves in bfloat16 what is trained in float32: 0.006 seen. test_smollm2.py has both in float32.
        assert entry["sampling/sampling_logp_difference/mean"] < 0.02

    assert printed.count("'longact/density_q'") == 4  # logged lines: no step was redone
    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    # Continued, not begun anew: the record of the first three steps, times included, is the first run's.
    assert [entry for entry in state["log_history"] if "longact/density_q" in entry][:3] == steps
    assert json.loads((tmp_path / "checkpoint-4" / "longact" / "masks.json").read_text())["num_refreshes"] == 4

    # A plain checkpoint: nothing of LongAct in it, read by transformers and by vLLM alike.
    assert not list(tmp_path.glob("longact*"))
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert not any("mask" in name or "longact" in name for name in weights.keys())
    assert "longact" not in (tmp_path / "config.json").read_text().lower()
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = model.generate(torch.tensor([[4, 5, 6, 7]]), do_sample=False, max_new_tokens=8)[0, 4:].tolist()
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    for folder in (tmp_path, tmp_path / "checkpoint-4"):  # a process each: one engine ends what the next has begun
        done = run_forked("-c", READ_WITH_VLLM, folder, timeout=600, **settings)
        assert f"TOKENS {expected}" in done.stdout, (done.stdout + done.stderr)[-3000:]
