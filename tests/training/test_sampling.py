import signal

import pytest
import torch
from datasets import IterableDataset

from helpers.forking import run_forked
from helpers.models import make_model, make_tokenizer
from helpers.noting import answer_reward, length_reward, prompt_number
from helpers.resuming import run_in_one_and_in_two
from helpers.sampling import RUN, SETTINGS, logs_of, make_noting
from helpers.trainers import make_args, make_prompts, make_trainer
from helpers.weights import assert_same_weights, weights_of
from longact_trl import LongActTrainer, measure_magnitudes


# What is trained on


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4},
        {"num_iterations": 2},
        {"steps_per_generation": 2, "saliency_source": "previous_step", "beta": 0.1},
        {"per_device_train_batch_size": 16, "strategy": "dense", "pad_to_multiple_of": 8},
    ],
    ids=["plain", "accumulation", "steps_per_generation", "num_iterations", "reference", "dense"],
)
def test_the_batch_is_made_of_varying_groups(tmp_path, settings, tiny_model):
    trainer = make_noting(tmp_path, model=tiny_model, **settings)
    trainer.train()
    assert max(len(generation.sampled) for generation in trainer.generations) > 1
    for generation in trainer.generations:
        assert generation.check(num_generations=4) == 0
        assert len(generation.output["advantages"]) == trainer.args.generation_batch_size


def test_advantages_over_the_batch_are_those_of_the_new_batch(tmp_path):
    trainer = make_noting(tmp_path, scale_rewards="batch", reward=[answer_reward], max_steps=2)
    trainer.train()
    for generation in trainer.generations:  # every group is 0, 1, 0, 1
        expected = torch.tensor([-0.5, 0.5] * 4) / (torch.tensor([0.0, 1.0] * 4).std() + 1e-4)
        torch.testing.assert_close(generation.advantages, expected)


def test_nothing_changes_where_all_groups_vary(tmp_path):
    weights = []
    for dynamic in (False, True):
        trainer = make_noting(tmp_path / str(dynamic), reward=[length_reward], dynamic_sampling=dynamic)
        trainer.train()
        weights.append(weights_of(trainer.model))
        assert [len(generation.sampled) for generation in trainer.generations] == [1] * 4
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert {log["longact/sampling_rounds"] for log in logs_of(trainer)} == {1}


def test_without_it_nothing_is_replaced(tmp_path):
    trainer = make_noting(tmp_path, dynamic_sampling=False)
    trainer.train()
    assert [len(generation.sampled) for generation in trainer.generations] == [1] * 4
    assert not any("longact/sampling_rounds" in log for log in logs_of(trainer))


def test_evaluation_is_untouched(tmp_path):
    trainer = make_noting(tmp_path, eval_dataset=make_prompts(), per_device_eval_batch_size=8, max_steps=1)
    trainer.train()
    drawn = trainer._prompts_drawn
    metrics = trainer.evaluate()
    assert len(trainer.evaluations) == 16 * 4 // 8
    for evaluation in trainer.evaluations:
        assert len(evaluation.sampled) == 1 and evaluation.trained == evaluation.sampled[0]
    assert trainer._prompts_drawn == drawn
    assert not [name for name in metrics if "sampling_rounds" in name]


# When there are not enough


def rarely(prompts, completions, **kwargs) -> list[float]:
    return [float(row % 2) if prompt_number(prompt) == 0 else 0.0 for row, prompt in enumerate(prompts)]


def test_falls_back_to_what_there_is_and_says_so(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="longact_trl.training.sampling"):
        trainer = make_noting(tmp_path, reward=[rarely], per_device_train_batch_size=16, max_resamples=2, max_steps=3)
        trainer.train()
    left = [generation.check(num_generations=4, max_resamples=2) for generation in trainer.generations]
    assert trainer.state.global_step == 3 and any(left)
    assert [log["longact/groups_degenerate_left"] for log in logs_of(trainer)] == left
    assert f"after 2 resamples, {left[0]} of 4 groups still have the same answer reward" in caplog.text
    assert caplog.text.count("Training goes on") == sum(n > 0 for n in left)


# What masks are measured on


@pytest.mark.parametrize("steps_per_generation", [1, 2])
def test_magnitudes_are_those_of_the_sequences_trained_on(tmp_path, steps_per_generation):
    """Learning rate 0, so that what a step measured can be measured again afterwards."""
    settings = {"steps_per_generation": steps_per_generation, "per_device_train_batch_size": 16}
    trainer = make_noting(tmp_path, max_steps=1, learning_rate=0.0, **settings)
    refreshed, counted = [], []
    refresh = trainer.mask_refresh.refresh

    def note_refresh():
        counted.append(trainer.mask_refresh.observer.num_sequences)
        refresh()
        refreshed.append(trainer.mask_refresh.magnitudes)

    trainer.mask_refresh.refresh = note_refresh
    trainer.train()
    trainer.model.eval()
    [generation] = trainer.generations
    assert len(generation.sampled) > 1
    assert counted[0] == len(generation.trained) == 16 * steps_per_generation
    output = generation.output
    ids, mask = (torch.cat([output[f"{k}_{of}"] for k in ("prompt", "completion")], 1) for of in ("ids", "mask"))
    expected = measure_magnitudes(trainer.model, {"input_ids": ids, "attention_mask": mask})
    for name, magnitude in expected.items():
        torch.testing.assert_close(refreshed[0][name], magnitude, rtol=1e-5, atol=0)


# Resume


@pytest.mark.parametrize(
    "settings",
    [{}, {"steps_per_generation": 2}, {"num_iterations": 2, "strategy": "random"}],
    ids=["plain", "middle_of_a_generation", "num_iterations"],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, settings):
    whole, resumed = run_in_one_and_in_two(
        tmp_path, reward=[answer_reward, length_reward], **{**SETTINGS, "max_steps": 6, **settings}
    )
    assert whole._prompts_drawn == resumed._prompts_drawn > 0
    assert_same_weights(resumed.model, whole.model)
    names = ("loss", "reward", "longact/sampling_rounds", "num_tokens")
    assert [[log.get(n) for n in names] for log in logs_of(resumed)] == [
        [log.get(n) for n in names] for log in logs_of(whole)
    ]


def test_a_checkpoint_from_before_dynamic_sampling(tmp_path):
    settings = {**SETTINGS, "save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, reward=answer_reward, **{**settings, "dynamic_sampling": False, "max_steps": 1}).train()
    assert not (tmp_path / "checkpoint-1" / "longact" / "sampling.json").exists()
    trainer = make_trainer(tmp_path, reward=answer_reward, **{**settings, "max_steps": 2})
    trainer.train(resume_from_checkpoint="auto")
    assert trainer.state.global_step == 2
    assert (tmp_path / "checkpoint-2" / "longact" / "sampling.json").exists()


KILLED = """
import os, signal, sys
from pathlib import Path

from helpers import noting, sampling
from helpers.trainers import make_trainer

calls = []

def answer_reward(prompts, completions, trainer_state, **kwargs):
    calls.append(trainer_state.global_step)
    if calls.count(3) == 2:  # the fourth step has sampled once and samples again
        os.kill(os.getpid(), signal.SIGKILL)
    return noting.answer_reward(prompts, completions)

make_trainer(Path(sys.argv[1]), reward=[answer_reward, noting.length_reward], **sampling.RUN).train()
"""


def test_a_run_killed_while_it_samples_again(tmp_path):
    assert run_forked("-c", KILLED, tmp_path / "killed", timeout=600).returncode == -signal.SIGKILL
    assert [folder.name for folder in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-2"]
    rewards = [answer_reward, length_reward]
    resumed = make_trainer(tmp_path / "killed", make_model(seed=5), reward=rewards, **RUN)
    resumed.train(resume_from_checkpoint="auto")
    whole = make_trainer(tmp_path / "whole", reward=rewards, **RUN)
    whole.train()
    assert_same_weights(resumed.model, whole.model)
    assert [log["step"] for log in logs_of(resumed)] == [1, 2, 3, 4, 5, 6]
    assert resumed._prompts_drawn == whole._prompts_drawn


# What cannot be


class Environment:
    def reset(self, **kwargs) -> None:
        pass


def test_what_cannot_be_exchanged_raises(tmp_path):
    prompts = make_prompts()

    def make(dataset=prompts, **kwargs):
        args = make_args(tmp_path, dynamic_sampling=True)
        tokenizer = make_tokenizer()
        return LongActTrainer(make_model(), answer_reward, args, dataset, processing_class=tokenizer, **kwargs)

    stream = IterableDataset.from_generator(lambda: iter(prompts))
    with pytest.raises(ValueError, match="prompts by index.*IterableDataset.*streaming"):
        make(stream)
    with pytest.raises(ValueError, match="text only.*'images'"):
        make(prompts.add_column("images", [[]] * 16))
    for name, value in (("rollout_func", lambda *args: {}), ("environment_factory", Environment)):
        with pytest.raises(ValueError, match=f"cannot exchange what a `{name}` rolled out"):
            make(**{name: value})
    with pytest.raises(ValueError, match="`max_resamples` must be a positive number.*got 0"):
        make_args(tmp_path, max_resamples=0)


# vLLM

VLLM = """
import sys
from pathlib import Path

from functools import partial

import trl.generation.vllm_generation as generation
from helpers.sampling import make_noting

generation.LLM = partial(generation.LLM, enforce_eager=True)  # quick to start
trainer = make_noting(
    Path(sys.argv[1]), model=sys.argv[2], use_vllm=True, vllm_mode="colocate", vllm_max_model_length=128,
    vllm_gpu_memory_utilization=0.1, max_steps=3,
)
trainer.train()
assert max(len(generation.sampled) for generation in trainer.generations) > 1
for generation in trainer.generations:
    assert generation.check(num_generations=4) == 0
    # vLLM's log-probs are those of the completions that they now stand beside
    output = generation.output
    for found, logps in zip(output["sampling_per_token_logps"], generation.logps, strict=True):
        assert (found[: len(logps)] - logps).abs().max() < 1e-2
print("OK")
"""


def test_with_vllm(tmp_path, tiny_model):
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = run_forked("-c", VLLM, tmp_path, tiny_model, timeout=900, **environment)
    assert done.stdout.rstrip().endswith("OK"), (done.stdout + done.stderr)[-4000:]
