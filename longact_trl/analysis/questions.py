"""Questions to ask a model with and without its channels: needles of our own, synthetic facts, RULER."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..data.tiny_tasks import KEYS, VALUES, make_dataset
from ..evaluation.benchmarks.longbench_v2 import HUB_DATASET
from ..evaluation.chat_template import TEMPLATE_OPTIONS
from .options import FACTS, LONGBENCH_V2, RULER, check_task


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAPER_CASE = "66ec41d3821e116aacb1c874"
"""The LongBench v2 question of the paper's Fig. 6."""
NUM_NEEDLES, NUM_DISTRACTORS = 4, 6
MAX_NEW_TOKENS = 40
NUM_TEXTS = 2  # to compare with each other
DISTRACTORS = (
    "The old road leads past the river.",
    "A green tree stands near the hill.",
    "A wide bridge crosses the valley.",
    "The cold river runs behind the garden.",
    "A bright cloud hangs over the field.",
    "A small stone lies beside the road.",
    "Tall trees hide the quiet garden.",
    "The grey hill meets the valley.",
)


@dataclass
class Question:
    """
    One prompt and what is right.

    Args:
        name (`str`):
            Its id in the task.
        input_ids (`list[int]`):
            The prompt with chat template.
        text (`str`):
            What the user asks; of LongBench v2 without the long text.
        answers (`list[str]`):
            What the completion must contain.
        max_new_tokens (`int`):
            Where the completion is cut.
        score (`Callable[[str], float | None]`):
            From a completion to a mark between 0 and 1; `None` where no answer can be read from it.
        truncated (`bool`, *optional*, defaults to `False`):
            Whether the text lost its middle.
    """

    name: str
    input_ids: list[int]
    text: str
    answers: list[str]
    max_new_tokens: int
    score: Callable[[str], float | None]
    truncated: bool = False


def share_contained(answers: list[str], completion: str) -> float:
    """
    Share of the answers that stand in a completion as whole words: 17 is not in 1777777.

    Args:
        answers (`list[str]`):
            What is right.
        completion (`str`):
            What the model wrote.

    Returns:
        `float`: From 0 to 1.
    """
    found = [re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", completion, re.IGNORECASE) for answer in answers]
    return sum(match is not None for match in found) / len(found)


def make_questions(
    task: str, tokenizer: "PreTrainedTokenizerBase", num_questions: int, length: int, seed: int = 0
) -> list[Question]:
    """
    Questions of a task.

    Args:
        task (`str`):
            `"needles"`: the number of one of four animals, among six other sentences; a small model can do it.
            `"facts"`: held-out rows of `longact_trl.data.tiny_tasks`, what the embedded model was trained on.
            `"ruler/NAME"`: a task of RULER. `"longbench_v2"`: the first questions of LongBench v2, without thinking,
            their texts cut to the length; [`longbench_v2_questions`] has more to choose.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's, with a chat template.
        num_questions (`int`):
            How many.
        length (`int`):
            Tokens of prompt and answer, for RULER and LongBench v2 only.
        seed (`int`, *optional*, defaults to `0`):
            The same seed gives the same questions.

    Returns:
        `list[Question]`

    Raises:
        `ValueError`: If there is no such task.
    """
    check_task(task)
    if task.startswith(RULER):
        return _ruler(task.removeprefix(RULER), tokenizer, num_questions, length, seed)
    if task == LONGBENCH_V2:
        return longbench_v2_questions(tokenizer, length, 0, num_questions)
    if task == FACTS:
        rows = [(r["prompt"][0]["content"], r["answer"]) for r in make_dataset(num_questions, seed, split="test")]
    else:
        rng = random.Random(seed)
        rows = [_needle(rng) for _ in range(num_questions)]
    messages = [[{"role": "user", "content": text}] for text, _ in rows]
    options = {"add_generation_prompt": True, "return_dict": False, **TEMPLATE_OPTIONS}
    ids = tokenizer.apply_chat_template(messages, **options)
    return [
        Question(str(i), prompt, text, answers, MAX_NEW_TOKENS, partial(share_contained, answers))
        for i, (prompt, (text, answers)) in enumerate(zip(ids, rows, strict=True))
    ]


def _needle(rng: random.Random) -> tuple[str, list[str]]:
    keys, values = rng.sample(KEYS, NUM_NEEDLES), rng.sample(VALUES, NUM_NEEDLES)
    sentences = [f"The magic number of the {key} is {value}." for key, value in zip(keys, values, strict=True)]
    sentences += rng.sample(DISTRACTORS, NUM_DISTRACTORS)
    rng.shuffle(sentences)
    return f"{' '.join(sentences)}\n\nWhat is the magic number of the {keys[0]}?", [values[0]]


def _ruler(
    task: str, tokenizer: "PreTrainedTokenizerBase", num_questions: int, length: int, seed: int
) -> list[Question]:
    from ..evaluation.ruler import make_samples, render, score

    questions = []
    for sample in make_samples(task, tokenizer, length, num_questions, seed):
        prompt = render(tokenizer, sample["input"], sample["answer_prefix"])
        ids = tokenizer(prompt, add_special_tokens=tokenizer.chat_template is None, verbose=False)["input_ids"]
        mark = partial(score, task, outputs=sample["outputs"])
        name = str(sample["index"])
        questions.append(Question(name, ids, sample["input"], sample["outputs"], sample["max_new_tokens"], mark))
    return questions


def longbench_v2_questions(
    tokenizer: "PreTrainedTokenizerBase",
    window: int | None,
    reasoning_tokens: int,
    num_questions: int | None = None,
    data: str = HUB_DATASET,
    names: Sequence[str] | None = None,
) -> list[Question]:
    """
    Questions of LongBench v2 as `recipes/evaluate.py` asks and scores them under the protocol `reasoning`.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's, with a chat template.
        window (`int` or `None`):
            Tokens that prompt and completion share; a longer text loses its middle. `None` is no limit.
        reasoning_tokens (`int`):
            New tokens beyond the published 128; with 0 the protocol is `official`, which leaves thinking off.
        num_questions (`int`, *optional*):
            The first ones; default all 503.
        data (`str`, *optional*):
            Hub id, or local `data.json`, parquet file or folder.
        names (`Sequence[str]`, *optional*):
            Only the questions of these ids.

    Returns:
        `list[Question]`

    Raises:
        `ValueError`: If the data cannot be read, or have no such question.
    """
    from ..evaluation.benchmarks import BENCHMARKS
    from ..evaluation.prompter import Prompter

    prompter = Prompter(tokenizer, True, "reasoning" if reasoning_tokens else "official", reasoning_tokens, window)
    options = {"longbench_v2_data": data, "num_samples": None if names else num_questions}
    rows = BENCHMARKS[LONGBENCH_V2].rows(prompter, "answer", **options)
    if names:
        rows = [row for row in rows if row["sample_id"] in names]
        if missing := set(names) - {row["sample_id"] for row in rows}:
            raise ValueError(f"LongBench v2 has no question {', '.join(sorted(missing))} in {data!r}.")
    return [
        Question(
            row["sample_id"],
            prompter.encode(row["prompt"]),
            f"LongBench v2, {row['difficulty']}, {row['length']}",
            row["gold"],
            row["max_new_tokens"],
            partial(_longbench_v2_mark, row | {"benchmark": LONGBENCH_V2, "reasoning": prompter.reasoning}),
            row["truncated"],
        )
        for row in rows
    ]


def _longbench_v2_mark(row: Mapping, completion: str) -> float | None:
    from ..evaluation.final_answer import judge

    verdict = judge(row, completion)
    return None if verdict.prediction is None else verdict.score


def benchmark_texts(tokenizer: "PreTrainedTokenizerBase", task: str, length: int) -> dict[str, torch.Tensor]:
    """
    Prompts of a task as texts to measure.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's.
        task (`str`):
            As in [`make_questions`].
        length (`int`):
            Tokens of prompt and answer.

    Returns:
        `dict[str, torch.LongTensor]`: `NUM_TEXTS` prompts, name to token ids of shape (S,).
    """
    questions = make_questions(task, tokenizer, NUM_TEXTS, length)
    return {f"{task} {number}": torch.tensor(question.input_ids) for number, question in enumerate(questions, 1)}
