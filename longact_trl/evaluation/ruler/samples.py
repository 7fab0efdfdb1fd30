"""Samples of a RULER task for a tokenizer and a length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from . import niah, question_answering, variable_tracking, word_lists
from .fitting import AIM, Draft, NothingFits, count_tokens, fit, render
from .protocol import TASKS
from .sources import Sources


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_samples(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    num_samples: int = 500,
    seed: int = 42,
    sources: Sources | None = None,
    reasoning_tokens: int = 0,
    window: int | None = None,
) -> list[dict]:
    """
    Samples of one task, each as long as `max_seq_length` allows: never longer, and from 4k tokens on never shorter
    than 97 % of it.

    The same arguments give the same samples, in any process. Sample `i` keeps its names and numbers at all lengths,
    except in `cwe` and `fwe`, whose words depend on the length.

    Args:
        task (`str`): One of `TASKS`.
        tokenizer (`PreTrainedTokenizerBase`): The model's; its chat template, if it has one, counts.
        max_seq_length (`int`): Tokens of the whole prompt and of the published answer's budget together.
        num_samples (`int`): Officially 500.
        seed (`int`): Officially 42.
        sources (`Sources`, *optional*): Where essays, SQuAD and HotpotQA are.
        reasoning_tokens (`int`):
            Budget for thinking before the answer, on top of `max_seq_length`. With it there is no answer prefix, since
            the model thinks first.
        window (`int`, *optional*): Tokens that the model can hold; prompt and all new tokens fit into it.

    Returns:
        `list[dict]` with `index`, `task`, `input` (what the user says, without chat template), `answer_prefix` (how
        the assistant begins; see [`render`]), `outputs` (gold answers), `length` (tokens of the prompt plus
        `max_new_tokens`), `max_new_tokens` and `haystack` (what surrounds the answers; stand-ins say so).

    Raises:
        `ValueError`: For an unknown task, a length that no sample fits, a missing source, or too few questions.
    """
    return list(iter_samples(task, tokenizer, max_seq_length, num_samples, seed, sources, reasoning_tokens, window))


def iter_samples(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    num_samples: int = 500,
    seed: int = 42,
    sources: Sources | None = None,
    reasoning_tokens: int = 0,
    window: int | None = None,
) -> Iterator[dict]:
    """The samples of [`make_samples`], one after the other; what is wrong with its arguments is said at the first."""
    if task not in TASKS:
        raise ValueError(f"RULER has no task {task!r}; its tasks are {', '.join(TASKS)}")
    if num_samples < 1 or reasoning_tokens < 0:
        raise ValueError(f"num_samples={num_samples} must be 1 or more, reasoning_tokens={reasoning_tokens} 0 or more")
    max_new_tokens = TASKS[task].tokens_to_generate + reasoning_tokens
    budget = max_seq_length - TASKS[task].tokens_to_generate
    if window is not None:
        budget = min(budget, window - max_new_tokens)

    def measure(sample: Draft) -> int:
        return count_tokens(tokenizer, render(tokenizer, sample.input, sample.answer_prefix, bool(reasoning_tokens)))

    draft, smallest = drafter(task, tokenizer, max_seq_length, num_samples, seed, sources or Sources())
    size = smallest
    for index in range(num_samples):

        def of_size(size: int, index: int = index) -> Draft:
            sample = draft(random.Random(f"{seed} {task} {index}"), size, index)
            return sample._replace(answer_prefix="") if reasoning_tokens else sample

        try:
            sample, tokens, size = fit(of_size, measure, budget, smallest, guess=size)
        except NothingFits as error:
            raise ValueError(f"max_seq_length={max_seq_length} is too short for {task}: {error}") from error
        row = {"index": index, "task": task, **sample._asdict()}
        yield row | {"length": tokens + max_new_tokens, "max_new_tokens": max_new_tokens}
        size = round(size * AIM * budget / tokens)


def drafter(
    task: str, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, num_samples: int, seed: int, sources: Sources
) -> tuple[Callable[[random.Random, int, int], Draft], int]:
    """The function from a random generator, a size and an index to a sample, and the smallest size."""
    family, tokens_to_generate, args, _ = TASKS[task]
    if family == "niah":
        essay = sources.load("essays") if args["haystack"] == "essay" else None
        draft = partial(niah.draft, seed=seed, essay=essay, **args)
        return lambda rng, size, index: draft(rng, size), args["num_k"] * args["num_v"]
    if family == "vt":
        num_hops = args["num_hops"]

        def example(size: int) -> Draft:
            return variable_tracking.draft_example(size, seed, num_hops)

        def measure_example(sample: Draft) -> int:
            return count_tokens(tokenizer, sample.input + sample.answer_prefix)

        _, _, example_size = fit(example, measure_example, variable_tracking.EXAMPLE_TOKENS, num_hops + 1, 0)
        draft = partial(variable_tracking.draft, seed=seed, example_size=example_size, num_hops=num_hops)
        return lambda rng, size, index: draft(rng, size), num_hops + 1
    if family == "cwe":
        more = sources.load("english_words")
        draft = partial(word_lists.draft_cwe, seed=seed, max_seq_length=max_seq_length, more=more, **args)
        return lambda rng, size, index: draft(rng, size), args["num_cw"]
    if family == "fwe":
        draft = partial(word_lists.draft_fwe, seed=seed, max_seq_length=max_seq_length - tokens_to_generate)
        return lambda rng, size, index: draft(rng, size), 100
    corpus = sources.load(args["dataset"])
    if num_samples > len(corpus.questions):
        raise ValueError(f"{task} has {len(corpus.questions)} questions: num_samples={num_samples} is too many")
    return partial(question_answering.draft, seed=seed, corpus=corpus), 1
