"""RULER: 13 generated tasks at any length (Table 2 of the paper)."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..ruler import TASKS, Sources, iter_samples, render
from ..ruler import score as official_score
from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


if TYPE_CHECKING:
    from ..prompter import Prompter

SEED = 42  # of the data, as published; the seed of an evaluation is that of sampling
NUM_SAMPLES = 500
AVERAGE = "average"
# Columns of Table 2: key, title, tasks. Its caption has NIAH-sub of "multi-key level 2, multi-key level 3 and
# multi-value".
FAMILIES = {
    "niah_sub": ("NIAH-sub", ("niah_multikey_2", "niah_multikey_3", "niah_multivalue")),
    "niah": ("NIAH", tuple(task for task in TASKS if task.startswith("niah"))),
    "vt": ("VT", ("vt",)),
    "qa": ("QA", ("qa_1", "qa_2")),
}


def units(tasks: Sequence[str] | None = None, lengths: Sequence[int] = (), **_: object) -> list[Unit]:
    """A unit a task and length, from short to long."""
    chosen = [task for task in TASKS if task in (tasks or [task])]
    return [Unit("ruler", task, length) for length in sorted(set(lengths)) for task in chosen]


def rows(
    prompter: "Prompter",
    task: str,
    max_seq_length: int = 4096,
    num_samples: int | None = None,
    ruler_sources: dict | None = None,
    **_: object,
) -> Iterator[dict]:
    """
    One of its tasks, generated for the model's tokenizer.

    Args:
        prompter (`Prompter`):
            The model's.
        task (`str`):
            One of `ruler.TASKS`.
        max_seq_length (`int`, *optional*, defaults to `4096`):
            Tokens of prompt and answer together.
        num_samples (`int`, *optional*):
            Default: 500, as published.
        ruler_sources (`dict`, *optional*):
            Keyword arguments of [`~ruler.Sources`].
    """
    tokenizer = copy.copy(prompter.tokenizer)
    if not prompter.chat:
        tokenizer.chat_template = None  # what `render` goes by
    samples = iter_samples(
        task,
        tokenizer,
        max_seq_length,
        num_samples or NUM_SAMPLES,
        SEED,
        Sources(**(ruler_sources or {})),
        reasoning_tokens=prompter.budget(0),
        window=prompter.window,
    )
    for sample in samples:
        prompt = render(tokenizer, sample["input"], sample["answer_prefix"], prompter.reasoning)
        row = {"position": sample["index"], "sample_id": str(sample["index"]), "gold": sample["outputs"]}
        row |= {"prompt": prompt, "prompt_tokens": prompter.num_tokens(prompt), "truncated": False}
        yield row | {"haystack": sample["haystack"], "max_new_tokens": sample["max_new_tokens"]}


def content(task: str, ruler_sources: dict | None = None, **_: object) -> str:
    """Names the texts that the task is made of."""
    from ..benchmark_files import content_of

    return content_of(Sources(**(ruler_sources or {})).texts(task))


def score(row: Mapping, answer: Answer) -> Verdict:
    """The official metric of the task."""
    return Verdict(official_score(row["task"], answer.text, row["gold"]), answer.text, answer.unfinished)


def breakdown(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """By length: each task, and the plain mean of all 13 where all were run."""
    scores: dict[str, dict] = defaultdict(dict)
    for unit in units:
        scores[str(unit["length"])][unit["task"]] = unit["score"]
    for by_task in scores.values():
        if len(by_task) == len(TASKS) and None not in by_task.values():
            by_task[AVERAGE] = round(sum(by_task.values()) / len(by_task), 2)
    return dict(scores)


def columns(lengths: Sequence[int] = ()) -> dict[str, Column]:
    """
    By length, under `"LENGTH"`, RULER's own mean of the 13 tasks; under `"LENGTH niah_sub"`, `niah`, `vt`, `qa` and
    `avg`, those of Table 2, whose Avg is the mean of the four before it (its printed rows add up so).
    """
    found = {}
    for length in sorted(lengths):
        size = str(length) if length % 1024 else f"{length // 1024}k"
        found[str(length)] = Column(f"{size}, all {len(TASKS)}", _mean(length, TASKS))
        shares: dict[str, float] = defaultdict(float)
        for name, (title, tasks) in FAMILIES.items():
            found[f"{length} {name}"] = Column(f"{size} {title}", _mean(length, tasks))
            for task in tasks:
                shares[task] += 1 / len(tasks) / len(FAMILIES)
        parts = tuple(Part(task, length, weight=share) for task, share in shares.items())
        found[f"{length} avg"] = Column(f"{size} Avg", parts)
    return found


def _mean(length: int, tasks: Sequence[str]) -> tuple[Part, ...]:
    return tuple(Part(task, length, weight=1 / len(tasks)) for task in tasks)


BENCHMARK = Benchmark(
    name="ruler",
    title="RULER",
    dataset="ruler",
    metric="score",
    units=units,
    rows=rows,
    content=content,
    score=score,
    breakdown=breakdown,
    columns=columns,
    tasks=TASKS,
    fills_length=True,
)
