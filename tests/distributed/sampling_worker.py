"""Run by both ranks: dynamic sampling where the ranks have different groups to replace. Prints OK."""

import os
import sys
from pathlib import Path

import pandas
import torch
import torch.distributed as dist

from helpers.models import make_model
from helpers.noting import NotingTrainer, answer_reward, length_reward, prompt_number
from helpers.resuming import StopAt
from helpers.trainers import make_trainer
from helpers.weights import weights_of
from longact_trl.training.completion_tables import THROWN_AWAY, tables


BACKEND, OUT = sys.argv[1], Path(sys.argv[2])


def only_number_0(prompts, completions, **kwargs) -> list[float]:
    """Varies in the groups of one prompt of 16."""
    return [float(row % 2) if prompt_number(prompt) == 0 else 0.0 for row, prompt in enumerate(prompts)]


def run(name: str, model=None, resume=None, **kwargs) -> NotingTrainer:
    settings = {
        "dynamic_sampling": True,
        "num_generations": 4,
        "max_steps": 4,
        "reward": [answer_reward, length_reward],
    }
    trainer = make_trainer(OUT / name, model, NotingTrainer, **{**settings, **kwargs})
    trainer.train(resume_from_checkpoint=resume)
    rank = trainer.accelerator.process_index
    for generation in trainer.generations:
        rows = len(generation.output["advantages"])
        assert rows * 2 == len(generation.trained)
        assert torch.equal(generation.advantages[rank * rows : (rank + 1) * rows], generation.output["advantages"])
    both = [None, None]
    dist.all_gather_object(both, [(g.trained, g.advantages.tolist()) for g in trainer.generations])
    assert both[0] == both[1]
    return trainer


def degenerate_by_rank(trainer: NotingTrainer) -> set[tuple[int, int]]:
    """How many groups begin on each rank that the first round leaves to be replaced, one pair a generation."""
    counts = set()
    for generation in trainer.generations:
        degenerate = generation.rewards[0][:, 0].view(-1, 4).std(1) == 0
        starts = torch.arange(len(degenerate)) * 4 >= len(generation.output["advantages"])
        counts.add((int((degenerate & ~starts).sum()), int((degenerate & starts).sum())))
    return counts


def check_whole_groups() -> None:
    trainer = run("whole", per_device_train_batch_size=8)
    assert all(generation.check(num_generations=4) == 0 for generation in trainer.generations)
    assert any(first != second for first, second in degenerate_by_rank(trainer))
    assert max(len(generation.sampled) for generation in trainer.generations) > 1


def check_a_group_on_both_ranks() -> None:
    """6 rows a rank are 3 groups of 4: the middle one is half on either rank. With accumulation, 12 rows."""
    for settings in ({}, {"gradient_accumulation_steps": 2}, {"steps_per_generation": 2, "num_iterations": 2}):
        trainer = run("split", per_device_train_batch_size=6, **settings)
        spans = [g.rewards[0][:, 0].view(-1, 4).std(1)[1] == 0 for g in trainer.generations]
        assert settings or any(spans), "the group on both ranks was never replaced"
        assert all(generation.check(num_generations=4) == 0 for generation in trainer.generations)


def check_fallback() -> None:
    settings = {"max_resamples": 2, "log_completions": True, "num_completions_to_print": 0}
    rewards = [only_number_0, length_reward]
    trainer = run("fallback", per_device_train_batch_size=6, reward=rewards, **settings)
    left = [generation.check(4, max_resamples=2) for generation in trainer.generations]
    assert any(left)
    if trainer.accelerator.is_main_process:
        check_thrown_away(trainer)


def check_thrown_away(trainer: NotingTrainer) -> None:
    """Whole groups of both ranks, as many as are trained on at most."""
    files = tables(OUT / "fallback", THROWN_AWAY)
    assert files
    for step, file in files.items():
        table, sampled = pandas.read_parquet(file), trainer.generations[step - 1].sampled
        assert len(table) in (4, 8, 12)
        lengths = {len(prompt) for rows in sampled for prompt, _ in rows}
        for _, group in table.groupby(table.index // 4):
            numbers = {prompt_number(prompt) for prompt in group["prompt"]}
            assert len(numbers) == 1 and numbers.pop() + 9 in lengths
            if (group["reason"] == "answer_reward is 0 for all").all():
                assert (group["answer_reward"] == 0).all()


def check_resume() -> None:
    settings = {"per_device_train_batch_size": 6, "save_strategy": "steps", "save_steps": 2}
    straight = run("straight", **settings)
    run("parts", callbacks=[StopAt(2)], **settings)
    resumed = run("parts", make_model(seed=5), resume="auto", **settings)
    assert len(resumed.generations) == 2 and resumed._prompts_drawn == straight._prompts_drawn > 0
    expected = weights_of(straight.model)
    for name, weight in weights_of(resumed.model).items():
        assert torch.equal(weight, expected[name]), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    only_number_0.__name__ = "answer_reward"
    if BACKEND == "ddp":
        check_whole_groups()
        check_a_group_on_both_ranks()
        check_fallback()
    else:  # under DDP on CPUs transformers maps the optimizer's state to "cpu:0", which torch.load refuses
        check_resume()
    print(f"OK sampling {BACKEND} rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
