"""This project's own held-out questions for the embedded model ([`~data.tiny_tasks`]), no benchmark of the paper."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


if TYPE_CHECKING:
    from ..prompter import Prompter

BUDGET = 40  # tokens, as in recipes/quickstart.yaml: twice the longest demonstration
NO_LIMIT = 10**9
AVERAGE = "average"


def units(**_: object) -> list[Unit]:
    """All tasks at once, as `make quickstart` asks them."""
    return [Unit("tiny_tasks", "tiny_tasks")]


def rows(prompter: "Prompter", task: str, num_samples: int | None = None, **_: object) -> Iterator[dict]:
    """
    The very prompts, in the same order, that `make quickstart` measures the embedded model on.

    Args:
        prompter (`Prompter`):
            The model's.
        task (`str`):
            `"tiny_tasks"`; each row says which of the three it is.
        num_samples (`int`, *optional*):
            Default: 300.
    """
    from ...data.tiny_tasks import HELD_OUT_SEED, NUM_HELD_OUT, make_dataset

    for position, item in enumerate(make_dataset(num_samples or NUM_HELD_OUT, HELD_OUT_SEED, split="test")):
        [message] = item["prompt"]
        row = {"position": position, "task": item["task"], "sample_id": str(position), "gold": item["answer"]}
        row |= {"answer_kind": item["answer_kind"], "max_new_tokens": BUDGET}
        yield row | prompter.fit(message["content"], limit=NO_LIMIT, budget=BUDGET)


def content(task: str, **_: object) -> str:
    """Code makes them, which a claim names anyway."""
    return ""


def score(row: Mapping, answer: Answer) -> Verdict:
    """The reward of training."""
    from ...rewards.tagged import answer_reward
    from ...rewards.tags import END_THINK

    [right] = answer_reward([answer.response], answer=[row["gold"]], answer_kind=[row["answer_kind"]])
    return Verdict(right, answer.response, END_THINK not in answer.response)


def breakdown(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """Each task and all together."""
    [unit] = units
    scores = {AVERAGE: unit["score"]}
    rows = samples[unit["name"]]
    for task in dict.fromkeys(row["task"] for row in rows):
        part = [row["score"] for row in rows if row["task"] == task]
        scores[task] = round(100 * sum(part) / len(part), 2)
    return scores


def columns(lengths: Sequence[int] = ()) -> dict[str, Column]:
    """All together, and each task."""
    from ...data.tiny_tasks import TASKS

    found = {"all": Column("all", (Part(),))}
    for task in TASKS:
        found[task] = Column(task.replace("_", " "), (Part(keep=lambda row, task=task: row["task"] == task),))
    return found


BENCHMARK = Benchmark(
    name="tiny_tasks",
    title="Tiny tasks, this project's own",
    dataset="longact-tiny-tasks",
    metric="accuracy",
    units=units,
    rows=rows,
    content=content,
    score=score,
    breakdown=breakdown,
    columns=columns,
    of_sample={"task": str},
)
