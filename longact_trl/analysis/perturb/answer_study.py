"""Answers of a model with some channels of each head clamped (LongAct, Table 7 and Fig. 6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...evaluation.statistics import Interval, wilson_interval
from ...models.vllm_cpu import share_the_process
from ..questions import Question
from .calibration import CONDITIONS, Calibration
from .perturbation import perturb_activations
from .repetition import distinct_n, longest_repeat


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import LLM

BATCH_SIZE = 16


@dataclass
class Answers:
    """
    What a model answered under one condition.

    Args:
        completions (`list[str]`):
            One a question.
        accuracy (`Interval`):
            Mean score with Wilson's interval.
        distinct_2 (`float`):
            Share of bigrams that are different, mean over completions.
        longest_repeat (`float`):
            Tokens of the longest stretch that repeats one unit, mean over completions.
        tokens (`float`):
            Length of a completion, mean.
    """

    completions: list[str]
    accuracy: Interval
    distinct_2: float
    longest_repeat: float
    tokens: float


def study_answers(
    engine: "nn.Module | LLM",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    calibration: Calibration,
    sparsity_ratio: float,
    progress: Callable[[list], Iterable] = iter,
) -> dict[str, Answers]:
    """
    Answer every question greedily under each condition.

    Args:
        engine (`PreTrainedModel` or `vllm.LLM`):
            Who answers.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        questions (`Sequence[Question]`):
            As [`~longact_trl.analysis.questions.make_questions`] returns them.
        calibration (`Calibration`):
            Of the same model on these questions' prompts.
        sparsity_ratio (`float`):
            λ.
        progress (`Callable`, *optional*):
            Wraps the list of conditions, e.g. `rich.progress.track`.

    Returns:
        `dict[str, Answers]`: By condition.
    """
    answers = {}
    for condition in progress(list(CONDITIONS)):
        with perturb_activations(engine, calibration.rows(condition, sparsity_ratio), calibration.means):
            tokens = generate(engine, tokenizer, questions)
        completions = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        scores = [q.score(completion) for q, completion in zip(questions, completions, strict=True)]
        count = len(tokens)
        answers[condition] = Answers(
            completions,
            wilson_interval(sum(scores), count),
            sum(map(distinct_n, tokens)) / count,
            sum(map(longest_repeat, tokens)) / count,
            sum(map(len, tokens)) / count,
        )
    return answers


@torch.no_grad()
def generate(
    engine: "nn.Module | LLM", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[Question]
) -> list[list[int]]:
    """
    Greedy completions, the same from both engines.

    Args:
        engine (`PreTrainedModel` or `vllm.LLM`):
            Who answers.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        questions (`Sequence[Question]`):
            What is asked.

    Returns:
        `list[list[int]]`: Token ids without prompt and end of turn.
    """
    limit = questions[0].max_new_tokens
    if not isinstance(engine, nn.Module):
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": q.input_ids} for q in questions]
        outputs = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=limit), use_tqdm=False)
        tokens = [list(output.outputs[0].token_ids) for output in outputs]
    else:
        tokens = [[] for _ in questions]
        by_length = sorted(range(len(questions)), key=lambda i: len(questions[i].input_ids))
        for start in range(0, len(questions), BATCH_SIZE):
            batch = by_length[start : start + BATCH_SIZE]
            ids = [questions[i].input_ids for i in batch]
            inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(engine.device)
            # Nothing of the checkpoint's generation_config.json: vLLM applies none of it, and a penalty hides loops.
            greedy = {"do_sample": False, "repetition_penalty": 1.0}
            greedy |= {"max_new_tokens": limit, "pad_token_id": tokenizer.pad_token_id}
            output = engine.generate(**inputs, **greedy)
            for i, row in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                tokens[i] = row
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in tokens]


def start_vllm(model: str, questions: Sequence[Question]) -> "LLM":
    """
    A vLLM engine in this process whose activations can be perturbed.

    Args:
        model (`str`):
            Hub id or folder.
        questions (`Sequence[Question]`):
            What it will be asked, for the length of its window.

    Returns:
        `vllm.LLM`
    """
    share_the_process()
    from vllm import LLM

    window = max(len(q.input_ids) + q.max_new_tokens for q in questions)
    dtype = "auto" if torch.cuda.is_available() else "float32"
    return LLM(model, dtype=dtype, enforce_eager=True, max_model_len=window)
