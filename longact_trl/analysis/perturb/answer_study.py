"""Answers of a model with some channels of each head clamped (LongAct, Table 7 and Fig. 6)."""

import os
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
BATCH_TOKENS = 131_072  # of prompts and completions together: one text of the longest benchmarks
SEED = 0


@dataclass
class Answers:
    """
    What a model answered under one condition.

    Args:
        completions (`list[str]`):
            One a question.
        scores (`list[float | None]`):
            Mark of each completion, from 0 to 1; `None` where no answer can be read from it, which counts as 0.
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
    scores: list[float | None]
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
    *,
    conditions: Sequence[str] = CONDITIONS,
    clamp: str = "sample",
    temperature: float = 0.0,
) -> dict[str, Answers]:
    """
    Answer every question under each condition.

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
        conditions (`Sequence[str]`, *optional*):
            Some of `CONDITIONS`; default all.
        clamp (`str`, *optional*, defaults to `"sample"`):
            What channels are clamped to: one of [`~longact_trl.analysis.perturb.calibration.CLAMPS`].
        temperature (`float`, *optional*, defaults to `0.0`):
            0 decodes greedily; otherwise sampled from the whole vocabulary, always with the same seed.

    Returns:
        `dict[str, Answers]`: By condition.
    """
    answers = {}
    for condition in progress(list(conditions)):
        rows = calibration.rows(condition, sparsity_ratio)
        tokens: list[list[int]] = [[] for _ in questions]
        for batch in _batches(questions, engine, one_by_one=bool(rows) and clamp == "sample"):
            with perturb_activations(engine, rows, calibration.clamp_values(clamp, batch)):
                completions = generate(engine, tokenizer, [questions[i] for i in batch], temperature)
            for i, completion in zip(batch, completions, strict=True):
                tokens[i] = completion
        completions = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        scores = [q.score(completion) for q, completion in zip(questions, completions, strict=True)]
        count = len(tokens)
        answers[condition] = Answers(
            completions,
            scores,
            wilson_interval(sum(score or 0.0 for score in scores), count),
            sum(map(distinct_n, tokens)) / count,
            sum(map(longest_repeat, tokens)) / count,
            sum(map(len, tokens)) / count,
        )
    return answers


def _batches(questions: Sequence[Question], engine: "nn.Module | LLM", one_by_one: bool) -> list[list[int]]:
    """Numbers of the questions that are answered together: with transformers, those that are about equally long."""
    if not isinstance(engine, nn.Module):  # vLLM mixes the tokens of its requests, which then share one value
        return [[i] for i in range(len(questions))] if one_by_one else [list(range(len(questions)))]
    batches: list[list[int]] = []
    for i in sorted(range(len(questions)), key=lambda i: len(questions[i].input_ids)):
        size = len(questions[i].input_ids) + questions[i].max_new_tokens  # the longest so far
        if not batches or len(batches[-1]) == BATCH_SIZE or (len(batches[-1]) + 1) * size > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches


@torch.no_grad()
def generate(
    engine: "nn.Module | LLM",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    temperature: float = 0.0,
) -> list[list[int]]:
    """
    Completions of one batch; greedy ones are the same from both engines.

    Args:
        engine (`PreTrainedModel` or `vllm.LLM`):
            Who answers.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        questions (`Sequence[Question]`):
            What is asked, all at once.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 decodes greedily; otherwise sampled from the whole vocabulary, always with the same seed.

    Returns:
        `list[list[int]]`: Token ids without prompt and end of turn.
    """
    limit = questions[0].max_new_tokens
    if not isinstance(engine, nn.Module):
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": q.input_ids} for q in questions]
        sampling = SamplingParams(temperature=temperature, max_tokens=limit, seed=SEED)
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        tokens = [list(output.outputs[0].token_ids) for output in outputs]
    else:
        # Nothing of the checkpoint's generation_config.json: vLLM applies none of it, and a penalty hides loops.
        options = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": limit}
        options |= {"pad_token_id": tokenizer.pad_token_id}
        if temperature:
            torch.manual_seed(SEED)
            options |= {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        ids = [q.input_ids for q in questions]
        inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(engine.device)
        tokens = engine.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
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
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # hooks reach only an engine of this process
    from vllm import LLM

    window = max(len(q.input_ids) + q.max_new_tokens for q in questions)
    dtype = "auto" if torch.cuda.is_available() else "float32"
    return LLM(model, dtype=dtype, enforce_eager=True, max_model_len=window)
