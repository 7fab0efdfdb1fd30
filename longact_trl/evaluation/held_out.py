"""Share of held-out answers that are right, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..rewards.tagged import answer_reward


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Z = 1.959964  # 97.5 % quantile of the normal distribution: two-sided 95 %
BATCH_SIZE = 50
NUM_RESAMPLES = 10_000  # an end of the interval then moves by less than 0.1 points from one seed to another
ALL = "all"


class Interval(NamedTuple):
    """A value and its 95 % interval: shares from 0 to 1, their differences, or losses in nats."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f}–{100 * self.high:.0f})"


@torch.no_grad()
def answers_right(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    max_new_tokens: int,
    temperature: float = 0.0,
    batch_size: int = BATCH_SIZE,
    progress=iter,
) -> list[bool]:
    """
    Answer every prompt once and mark the answers as [`~longact_trl.answer_reward`] does in training.

    Args:
        model (`PreTrainedModel`):
            The policy.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer, with a chat template.
        dataset (`Dataset`):
            Rows with `prompt` (messages), `answer` and `answer_kind`.
        max_new_tokens (`int`):
            Length at which a completion is cut.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 decodes greedily; otherwise one sample a prompt from the whole vocabulary, always with the same seed.
        batch_size (`int`, *optional*, defaults to `50`):
            Prompts decoded together.
        progress (`Callable`, *optional*):
            Wraps the list of batches, e.g. `rich.progress.track`.

    Returns:
        `list[bool]`: One entry a row.
    """
    from transformers import set_seed

    prompts = tokenizer.apply_chat_template(dataset["prompt"][:], add_generation_prompt=True, return_dict=False)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # so that a batch has little padding
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    completions = [""] * len(prompts)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    set_seed(0)
    model.eval()
    for batch in progress(batches):
        inputs = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, padding_side="left", return_tensors="pt")
        output = model.generate(**inputs.to(model.device), **sampling, max_new_tokens=max_new_tokens)
        texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(batch, texts, strict=True):
            completions[i] = text
    rewards = answer_reward(completions, answer=dataset["answer"][:], answer_kind=dataset["answer_kind"][:])
    return [reward == 1.0 for reward in rewards]


def accuracy_by_task(right: Sequence[bool], tasks: Sequence[str]) -> dict[str, Interval]:
    """
    Accuracy over all answers, under `"all"`, and of each task, in order of appearance.

    Args:
        right (`Sequence[bool]`):
            Whether each answer is right.
        tasks (`Sequence[str]`):
            Task of each answer.

    Returns:
        `dict[str, Interval]`: With Wilson intervals.
    """
    parts = {ALL: list(right)}
    for is_right, task in zip(right, tasks, strict=True):
        parts.setdefault(task, []).append(is_right)
    return {task: wilson_interval(sum(part), len(part)) for task, part in parts.items()}


def wilson_interval(num_right: int, total: int) -> Interval:
    """
    Wilson's score interval of a share: unlike value ± 1.96 standard errors it never leaves 0 to 1.

    Args:
        num_right (`int`):
            Answers that are right.
        total (`int`):
            Answers, at least 1.

    Returns:
        `Interval`

    Raises:
        `ValueError`: If there are no answers.
    """
    if total < 1:
        raise ValueError("An accuracy needs at least one answer.")
    share = num_right / total
    center = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return Interval(share, max(center - half, 0.0), min(center + half, 1.0))


def paired_difference(before: Iterable[bool], after: Iterable[bool]) -> Interval:
    """
    Gain in accuracy on the same prompts, with a bootstrap interval over prompts. Pairs make it far narrower than the
    two accuracies' own intervals suggest.

    Args:
        before (`Iterable[bool]`):
            Whether each answer was right before.
        after (`Iterable[bool]`):
            Whether the answer to the same prompt is right after.

    Returns:
        `Interval`: Of the difference of the shares, from -1 to 1.
    """
    return bootstrap_mean([[float(b) - float(a) for a, b in zip(before, after, strict=True)]])


def bootstrap_mean(groups: Sequence[Sequence[float]]) -> Interval:
    """
    Mean of the groups' means, with a bootstrap interval over the members of each group.

    Args:
        groups (`Sequence[Sequence[float]]`):
            Values of each group, e.g. the scores of each task's samples. No group is empty.

    Returns:
        `Interval`
    """
    generator = torch.Generator().manual_seed(0)
    means, resampled = [], torch.zeros(NUM_RESAMPLES)
    for group in groups:
        values = torch.tensor(group)
        drawn = torch.randint(len(values), (NUM_RESAMPLES, len(values)), generator=generator)
        means.append(values.mean().item())
        resampled += values[drawn].mean(1) / len(groups)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Interval(sum(means) / len(means), low, high)


def sign_flip_p(groups: Sequence[Sequence[float]]) -> float:
    """
    Two-sided p-value of a paired permutation test: how often the mean of the groups' means is at least as far from 0
    when each difference may as well have had the other sign.

    Args:
        groups (`Sequence[Sequence[float]]`):
            Differences between two models on the same samples, by group. No group is empty.

    Returns:
        `float`: At least 1 / (`NUM_RESAMPLES` + 1).
    """
    generator = torch.Generator().manual_seed(0)
    observed, flipped = 0.0, torch.zeros(NUM_RESAMPLES, dtype=torch.float64)
    for group in groups:
        values = torch.tensor(group, dtype=torch.float64)
        signs = torch.randint(2, (NUM_RESAMPLES, len(values)), generator=generator, dtype=torch.int8) * 2 - 1
        observed += values.mean().item() / len(groups)
        flipped += (signs * values).mean(1) / len(groups)
    as_far = (flipped.abs() >= abs(observed) - 1e-12).sum().item()
    return (1 + as_far) / (1 + NUM_RESAMPLES)
