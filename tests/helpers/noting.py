"""A trainer that notes what TRL samples and what is trained on, and a plain second opinion on dynamic sampling."""

from dataclasses import dataclass

import torch
from accelerate.utils import gather, gather_object
from trl import GRPOTrainer

from longact_trl import LongActTrainer


Completion = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a prompt and of its completion."""


def prompt_number(prompt: list[dict[str, str]]) -> int:
    """Which of the 16 prompts this is: they have 4, 5, 6, ... words."""
    return len(prompt[0]["content"].split()) - 4


def answer_reward(prompts, completions, **kwargs) -> list[float]:
    """Varies within the groups of prompts 0, 3, 6, ..., wherever ranks are cut. The others are all right."""
    return [float(row % 2) if prompt_number(prompt) % 3 == 0 else 1.0 for row, prompt in enumerate(prompts)]


def length_reward(prompts, completions, **kwargs) -> list[float]:
    """Varies within every group."""
    return [-row / 8 for row in range(len(prompts))]


@dataclass
class Generation:
    """One generation with all its resamples; over all ranks, in order, where it says so."""

    sampled: list[list[Completion]]  # by round, of all ranks
    rewards: list[torch.Tensor]  # by round, of all ranks: (rows, functions)
    trained: list[Completion]  # of all ranks
    advantages: torch.Tensor  # of all ranks
    output: dict[str, torch.Tensor]  # of this rank
    logps: list[torch.Tensor]  # of this rank's completions, each on its own

    def check(self, num_generations: int, max_resamples: int = 10) -> int:
        """Compare with what dynamic sampling means, done the plain way. Returns the number of degenerate groups."""

        def split(rows: list) -> list[list]:
            return [rows[i : i + num_generations] for i in range(0, len(rows), num_generations)]

        rounds = [
            list(zip(split(rows), split(rewards.tolist()), strict=True))
            for rows, rewards in zip(self.sampled, self.rewards, strict=True)
        ]
        groups, *resamples = rounds
        to_replace = [i for i, (_, rewards) in enumerate(groups) if len({r[0] for r in rewards}) == 1]
        for candidates in resamples:
            assert to_replace, "sampled again although all groups varied"
            for group in [g for g in candidates if len({r[0] for r in g[1]}) > 1]:
                if to_replace:
                    groups[to_replace.pop(0)] = group
        assert not to_replace or len(resamples) == max_resamples
        assert self.trained == [row for rows, _ in groups for row in rows]
        totals = torch.tensor([[sum(r) for r in rewards] for _, rewards in groups])
        expected = (totals - totals.mean(1, keepdim=True)) / (totals.std(1, keepdim=True) + 1e-4)
        torch.testing.assert_close(self.advantages.cpu(), expected.flatten())
        assert self.output["num_items_in_batch"] == sum(len(completion) for _, completion in self.trained)
        for key in ("old_per_token_logps", "importance_sampling_ratio"):
            if key in self.output:
                assert self.output[key].shape == self.output["completion_ids"].shape
        if "old_per_token_logps" in self.output:
            for found, logps in zip(self.output["old_per_token_logps"], self.logps, strict=True):
                torch.testing.assert_close(found[: len(logps)], logps, rtol=1e-4, atol=1e-5)
        return len(to_replace)


class _NotesWhatIsSampled(GRPOTrainer):
    """Comes after dynamic sampling in the order of bases: sees each generation batch before it does."""

    def _generate(self, prompts):
        generation = super()._generate(prompts)
        rows = zip(map(tuple, generation[0]), map(tuple, generation[1]), strict=True)
        self.sampled.append(gather_object(list(rows)))
        return generation

    def _calculate_rewards(self, *args):
        rewards = super()._calculate_rewards(*args)
        self.rewarded.append(rewards.clone())
        return rewards


class NotingTrainer(LongActTrainer, _NotesWhatIsSampled):
    """Notes every generation, of training and of evaluation."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generations: list[Generation] = []
        self.evaluations: list[Generation] = []

    def _generate_and_score_completions(self, inputs):
        self.sampled, self.rewarded = [], []
        output = super()._generate_and_score_completions(inputs)
        notes = self.generations if self.model.training else self.evaluations
        ids, masks = (torch.cat([output[f"{k}_{of}"] for k in ("prompt", "completion")], 1) for of in ("ids", "mask"))
        width = output["completion_ids"].shape[1]
        logps = [self._logps(row[mask.bool()])[-mask[-width:].sum() :] for row, mask in zip(ids, masks, strict=True)]
        advantages = gather(output["advantages"])
        trained = gather_object(_completions(output))
        notes.append(Generation(self.sampled, self.rewarded, trained, advantages, dict(output), logps))
        return output

    @torch.no_grad()
    def _logps(self, tokens: torch.Tensor) -> torch.Tensor:
        logps = self.model(input_ids=tokens[None]).logits[0, :-1].float().log_softmax(-1)
        return logps.gather(1, tokens[1:, None]).squeeze(1)


def _completions(output: dict[str, torch.Tensor]) -> list[Completion]:
    def tokens(kind: str) -> list[tuple[int, ...]]:
        rows = zip(output[f"{kind}_ids"], output[f"{kind}_mask"].bool(), strict=True)
        return [tuple(ids[mask].tolist()) for ids, mask in rows]

    return list(zip(tokens("prompt"), tokens("completion"), strict=True))
