"""Share of held-out answers that are right, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..rewards.tagged import answer_reward
from .chat_template import TEMPLATE_OPTIONS
from .statistics import Interval, wilson_interval


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


BATCH_SIZE = 50
ALL = "all"


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

    options = {"add_generation_prompt": True, "return_dict": False, **TEMPLATE_OPTIONS}
    prompts = tokenizer.apply_chat_template(dataset["prompt"][:], **options)
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
