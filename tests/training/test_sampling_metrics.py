"""What is logged where groups were replaced."""

import pandas
import pytest
import torch

from helpers.models import make_tokenizer
from helpers.noting import answer_reward, length_reward, prompt_number
from helpers.sampling import logs_of, make_noting
from longact_trl.training.completion_groups import reward_statistics


def logging_reward(prompts, completions, log_extra, log_metric, **kwargs) -> list[float]:
    log_extra("number", [prompt_number(prompt) for prompt in prompts])
    log_metric("mean_number", sum(map(prompt_number, prompts)) / len(prompts))
    return answer_reward(prompts, completions)


def test_metrics(tmp_path):
    trainer = make_noting(tmp_path, reward=[logging_reward, length_reward], reward_weights=[1.0, 0.5])
    # No function is named answer_reward and the weighted sum always varies: the first decides once it has the name.
    trainer.reward_func_names[0] = "answer_reward"
    trainer.train()
    weights = torch.tensor([1.0, 0.5])
    assert max(len(generation.sampled) for generation in trainer.generations) > 2
    for log, generation in zip(logs_of(trainer), trainer.generations, strict=True):
        rounds = len(generation.sampled)
        assert log["longact/sampling_rounds"] == rounds and log["longact/groups_thrown_away"] == 2 * (rounds - 1)
        first = generation.rewards[0]
        assert log["longact/frac_groups_degenerate"] == (first[:, 0].view(2, 4).std(1) == 0).float().mean()
        assert log["longact/groups_degenerate_left"] == 0
        # The policy's rewards and lengths, not those of the groups that the filter let through.
        for name, value in reward_statistics(first, weights, trainer.reward_func_names).items():
            assert log[name] == pytest.approx(value), name
        lengths = [len(completion) for _, completion in generation.sampled[0]]
        assert log["completions/mean_length"] == pytest.approx(sum(lengths) / 8)
        assert log["completions/max_length"] == max(lengths)
        assert log["mean_number"] == pytest.approx(sum(len(p) for p, _ in generation.sampled[0]) / 8 - 9)
    sampled = [row for g in trainer.generations for rows in g.sampled for row in rows]
    assert logs_of(trainer)[-1]["num_tokens"] == sum(len(prompt) + len(completion) for prompt, completion in sampled)


def test_the_first_rewards_are_logged_as_trl_would(tmp_path):
    settings = {"per_device_train_batch_size": 16, "max_steps": 1}
    plain = make_noting(tmp_path / "plain", dynamic_sampling=False, **settings)
    plain.train()
    dynamic = make_noting(tmp_path / "dynamic", **settings)
    dynamic.train()
    assert len(dynamic.generations[0].sampled) > 1
    [expected], [log] = logs_of(plain), logs_of(dynamic)
    for name in expected:
        if name.startswith(("reward", "completions/")):
            assert log[name] == pytest.approx(expected[name], rel=1e-6), name


def test_the_table_shows_what_is_trained_on(tmp_path):
    trainer = make_noting(tmp_path, reward=[logging_reward, length_reward], log_completions=True)
    trainer.reward_func_names[0] = "answer_reward"
    trainer.train()
    for step, generation in enumerate(trainer.generations, start=1):
        table = pandas.read_parquet(tmp_path / "completions" / f"completions_{step:05d}.parquet")
        prompts = [prompt_number(prompt) for prompt in table["prompt"]]
        assert prompts == table["number"].tolist() == [len(prompt) - 9 for prompt, _ in generation.trained]
        assert all(number % 3 == 0 for number in prompts)
        texts = make_tokenizer().batch_decode([c for _, c in generation.trained], skip_special_tokens=True)
        assert [completion[0]["content"] for completion in table["completion"]] == texts
        torch.testing.assert_close(torch.tensor(table["advantage"].tolist()), generation.advantages)
        assert table["answer_reward"].tolist() == [0, 1] * 4
