"""Which groups vary, and which prompts replace the others."""

import torch

from longact_trl.training.completion_groups import answer_rewards, draw_prompts, varying_groups


def test_varying_groups():
    nan = torch.nan
    groups = [[1, 1, 1], [0, 1, 1], [nan, 1, 1], [nan, 1, 0], [nan, nan, 1], [nan, nan, nan], [-2, -2, -2]]
    expected = [False, True, False, True, False, False, False]
    assert varying_groups(torch.tensor(groups).flatten(), 3).tolist() == expected


def test_only_the_answer_decides():
    rewards, weights = torch.tensor([[1.0, 0.5], [1.0, 0.25], [torch.nan, torch.nan]]), torch.tensor([1.0, 2.0])
    answers = answer_rewards(rewards, weights, ["answer_reward", "length"])
    torch.testing.assert_close(answers, rewards[:, 0], equal_nan=True)
    answers = answer_rewards(rewards, weights, ["length", "answer_reward"])
    torch.testing.assert_close(answers, rewards[:, 1], equal_nan=True)
    answers = answer_rewards(rewards, weights, ["right", "length"])
    torch.testing.assert_close(answers, torch.tensor([2.0, 1.5, torch.nan]), equal_nan=True)


def test_replacement_prompts_are_a_stream():
    whole = draw_prompts(5, 0, 0, 23)
    assert all(sorted(whole[i : i + 5]) == list(range(5)) for i in range(0, 20, 5))
    assert draw_prompts(5, 0, 7, 9) == whole[7:16]
    assert len({tuple(whole[i : i + 5]) for i in range(0, 20, 5)}) > 1
    assert draw_prompts(50, 0, 0, 50) != draw_prompts(50, 1, 0, 50)
