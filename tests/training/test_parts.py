"""Time and memory of the parts of a step."""

import time

import psutil
import torch

from helpers.sampling import logs_of
from helpers.trainers import make_trainer, spread_reward
from longact_trl.training.parts import PARTS, REST, PartsCallback


def slow_reward(completions, **kwargs):
    time.sleep(0.2)
    return spread_reward(completions)


def test_parts_are_a_steps_time(tmp_path):
    trainer = make_trainer(tmp_path, reward=slow_reward, max_steps=2)
    start = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - start
    memory = psutil.Process().memory_info().rss / 2**30
    parts = [{name: log[f"longact/seconds_{name}"] for name in (*PARTS, REST)} for log in logs_of(trainer)]
    assert len(parts) == 2
    for log, of_step in zip(logs_of(trainer), parts, strict=True):
        assert all(seconds > 0 for seconds in of_step.values())
        assert of_step["reward"] >= 0.2 and of_step["generate"] < whole - 0.4
        inside = sum(of_step.values()) - of_step["optimizer"] - of_step[REST]
        assert 0.99 * log["step_time"] < inside < 1.3 * log["step_time"]  # one inside the other counts once
        for name in PARTS:
            assert memory / 2 < log[f"longact/gib_{name}"] < memory * 2, name
    assert sum(map(sum, (of_step.values() for of_step in parts))) < whole


def test_nothing_is_measured_outside_of_a_step(tmp_path):
    trainer = make_trainer(tmp_path, reward=slow_reward, max_steps=1)
    trainer.eval_dataset = trainer.train_dataset
    trainer.evaluate()
    assert not trainer.parts.seconds


def test_a_part_inside_another_counts_once():
    parts = PartsCallback({}, torch.device("cpu"))
    start = time.perf_counter()
    parts.on_step_begin(None, None, None)
    with parts.part("generate"):
        time.sleep(0.05)
        with parts.part("reward"):
            time.sleep(0.1)
    whole = time.perf_counter() - start
    assert parts.seconds["generate"] >= 0.05 and parts.seconds["reward"] >= 0.1
    assert sum(parts.seconds.values()) <= whole
