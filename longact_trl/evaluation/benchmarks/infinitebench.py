"""InfiniteBench: six of its tasks (Table 3 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...rewards.answers import read_choice
from ..protocols import infinitebench as official
from ..protocols import infinitebench_generated
from ..protocols.truncation import keep_ends, keep_equal_ends
from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


if TYPE_CHECKING:
    from ..prompter import Prompter

HUB_DATASET = "xinrongzhang2022/InfiniteBench"
GENERATED = "generated"
AVERAGE = "average"
FIELDS = ("id", "context", "input", "answer")


def units(tasks: Sequence[str] | None = None, **_: object) -> list[Unit]:
    """A unit a task."""
    return [Unit("infinitebench", task) for task in official.TASKS if task in (tasks or [task])]


def rows(
    prompter: "Prompter",
    task: str,
    infinitebench_data: str = HUB_DATASET,
    num_samples: int | None = None,
    **_: object,
) -> list[dict]:
    """
    One of its tasks: gpt4's templates and truncation with a chat template, yarn-mistral's without.

    Args:
        prompter (`Prompter`):
            The model's.
        task (`str`):
            One of `protocols.infinitebench.TASKS`.
        infinitebench_data (`str`, *optional*):
            Hub id, local folder with one `TASK.jsonl` a task, or `"generated"`: PassKey and Number made here, as the
            published rows were, with other keys.
        num_samples (`int`, *optional*):
            Take the first ones; `None` takes all.

    Raises:
        `ValueError`: If the data cannot be read, or the task cannot be generated.
    """
    from ..benchmark_files import read_rows

    budget = prompter.budget(official.MAX_NEW_TOKENS[task])
    templates = "gpt4" if prompter.chat else "yarn-mistral"
    cut = {
        "limit": official.MAX_PROMPT_TOKENS[templates],
        "system": official.SYSTEM_PROMPT if prompter.chat else None,
        "keep": keep_ends if prompter.chat else keep_equal_ends,
        "always_decode": not prompter.chat,  # tiktoken, which the gpt4 script uses, gives the same text back
    }
    generated = infinitebench_data == GENERATED
    if generated:
        items = infinitebench_generated.make_samples(task)[:num_samples]
    else:
        fields = (*FIELDS, *(["options"] if task == "longbook_choice_eng" else []))
        items = read_rows("infinitebench_data", infinitebench_data, f"{task}.jsonl", num_samples, fields)
    made = []
    for position, item in enumerate(items):
        gold = official.get_answer(item, task)
        row = {"position": position, "sample_id": str(item["id"]), "gold": gold, "max_new_tokens": budget}
        row |= {"haystack": "noise (stand-in for the published rows)"} if generated else {}
        made.append(row | prompter.fit(official.build_prompt(item, task, templates), budget=budget, **cut))
    return made


def score(row: Mapping, answer: Answer) -> Verdict:
    """The official scorer of the task; a letter alone in tags is read as training reads it."""
    text = answer.text
    if answer.tagged and row["task"] == "longbook_choice_eng":
        text = read_choice(text) or text
    return Verdict(official.score(row["task"], text, row["gold"]), text, answer.unfinished)


def breakdown(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """Each task, and the plain mean of the six where all were run."""
    scores = {unit["task"]: unit["score"] for unit in units}
    if len(scores) == len(official.TASKS) and None not in scores.values():
        scores[AVERAGE] = round(sum(scores.values()) / len(scores), 2)
    return scores


def columns(lengths: Sequence[int] = ()) -> dict[str, Column]:
    """Each task, and the plain mean of the six."""
    found = {task: Column(title, (Part(task),)) for task, title in official.NAMES.items()}
    share = 1 / len(official.TASKS)
    return found | {AVERAGE: Column("Avg", tuple(Part(task, weight=share) for task in official.TASKS))}


BENCHMARK = Benchmark(
    name="infinitebench",
    title="InfiniteBench",
    dataset=HUB_DATASET,
    metric="score",
    units=units,
    rows=rows,
    score=score,
    breakdown=breakdown,
    columns=columns,
    tasks=official.TASKS,
)
