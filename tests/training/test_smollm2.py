"""A pretrained model, vLLM in the trainer's process, two optimizer steps: the whole loop as a user runs it.

The run is a process of its own (this file as a script): a vLLM engine keeps what it has until that ends.
"""

import json
import math
import resource
import sys

import pytest

from helpers.forking import run_forked


PROMPTS = ["Name three rivers.", "Why is the sky blue?", "Write a line about winter.", "What is 17 plus 25?"]
# vLLM and transformers add in different orders: mean difference of log-probs in float32, 1e-5 when this was written.
AGREEMENT = 2e-4


def run(output_dir: str) -> None:
    """Train for two steps; print metrics and, per step, how many masked elements of W_Q and W_K moved, as JSON."""
    from functools import partial

    import torch
    import trl.generation.vllm_generation as generation
    from datasets import Dataset
    from smollm2 import smollm2_135m
    from transformers import TrainerCallback

    from helpers.trainers import spread_reward
    from longact_trl import LongActConfig, LongActTrainer

    class CountMoved(TrainerCallback):
        """Elements that a step changed, by whether their row was selected."""

        def __init__(self):
            self.moved = []

        def on_step_begin(self, args, state, control, **kwargs):
            self.before = {p.name: p.module.weight.detach().clone() for p in trainer.mask_refresh.projections}

        def on_step_end(self, args, state, control, **kwargs):
            moved = {"selected": 0, "unselected": 0}
            for projection in trainer.mask_refresh.projections:
                changed = self.before[projection.name] != projection.module.weight
                mask = trainer.mask_refresh.masks[projection.name]
                moved["selected"] += changed[mask].sum().item()
                moved["unselected"] += changed[~mask].sum().item()
            self.moved.append(moved)

    # vLLM rounds a float32 model to bfloat16 unless told otherwise, and TRL has no field to tell it.
    generation.LLM = partial(generation.LLM, dtype="float32", enforce_eager=True)
    count_moved = CountMoved()
    args = LongActConfig(
        output_dir,
        use_cpu=True,
        bf16=False,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=128,
        vllm_gpu_memory_utilization=0.1,
        update_rule="frozen_rows",
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        max_steps=2,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
    )
    dataset = Dataset.from_dict({"prompt": [[{"role": "user", "content": prompt}] for prompt in PROMPTS]})
    trainer = LongActTrainer(str(smollm2_135m()), spread_reward, args, dataset, callbacks=[count_moved])
    assert trainer.model.dtype == torch.float32
    trainer.train()
    print("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB")
    print("RESULT", json.dumps({"log": trainer.state.log_history[:2], "moved": count_moved.moved}))


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    done = run_forked(__file__, tmp_path_factory.mktemp("smollm2"), timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return json.loads(done.stdout.split("RESULT", 1)[1].splitlines()[0])


def test_two_steps_train(result):
    assert len(result["log"]) == 2
    for step in result["log"]:
        assert math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"]) and step["grad_norm"] > 0
        assert step["longact/density_q"] == step["longact/density_k"] == pytest.approx(math.floor(0.3 * 64) / 64)


def test_only_selected_rows_move(result):
    for moved in result["moved"]:
        assert moved["unselected"] == 0
        assert moved["selected"] > 0


def test_vllm_follows_the_weights(result):
    before, after = (step["sampling/sampling_logp_difference/mean"] for step in result["log"])
    assert 0 < before < AGREEMENT
    assert 0 < after < AGREEMENT


if __name__ == "__main__":
    run(sys.argv[1])
