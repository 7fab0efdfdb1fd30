"""InfiniteBench: six of its tasks (Table 3 of the paper)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def units(tasks: Sequence[str] | None = None, **_: object) -> list[Unit]:
    """A unit a task."""
    return [Unit("infinitebench", task) for task in official.TASKS if task in (tasks or [task])]


def rows(
    prompter: "Prompter",
    task: str,
    infinitebench_data: str = HUB_DATASET,
    num_samples: int | None = None,
    **_: object,
) -> Iterator[dict]:
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
        `ValueError`: If the data cannot be read, a row cannot be used, or the task cannot be generated.
    """
    budget = prompter.budget(official.MAX_NEW_TOKENS[task])
    templates = "gpt4" if prompter.chat else "yarn-mistral"
    cut = {
        "limit": official.MAX_PROMPT_TOKENS[templates],
        "system": official.SYSTEM_PROMPT if prompter.chat else None,
        "keep": keep_ends if prompter.chat else keep_equal_ends,
        "always_decode": not prompter.chat,  # tiktoken, which the gpt4 script uses, gives the same text back
    }
    generated = infinitebench_data == GENERATED
    for position, item in enumerate(_items(task, infinitebench_data, num_samples)):
        gold = official.get_answer(item, task)
        gold = [gold] if isinstance(gold, str) else gold  # the scores of QA would go through its letters
        row = {"position": position, "sample_id": str(item["id"]), "gold": gold, "max_new_tokens": budget}
        row |= {"haystack": "noise (stand-in for the published rows)"} if generated else {}
        yield row | prompter.fit(official.build_prompt(item, task, templates), budget=budget, **cut)


def content(task: str, infinitebench_data: str = HUB_DATASET, num_samples: int | None = None, **_: object) -> str:
    """Names the rows that are asked."""
    from ..benchmark_files import content_of

    return content_of(_items(task, infinitebench_data, num_samples))


def _items(task: str, source: str, num_samples: int | None) -> Iterable[dict]:
    if source == GENERATED:
        return infinitebench_generated.make_samples(task)[:num_samples]
    from ..benchmark_files import NAME, TEXT, TEXT_OR_TEXTS, TEXTS, read_rows

    fields = {"id": NAME, "context": TEXT, "input": TEXT, "answer": TEXT_OR_TEXTS}
    fields |= {"options": TEXTS} if task == "longbook_choice_eng" else {}

    checks = {"longbook_choice_eng": _check_choice, "passkey": _check_number, "number_string": _check_number}
    return read_rows("infinitebench_data", source, f"{task}.jsonl", num_samples, fields, check=checks.get(task))


def _check_choice(item: Mapping) -> None:
    if len(item["options"]) < len(official.LETTERS):
        raise ValueError(f"options={item['options']} are fewer than {len(official.LETTERS)}")
    official.get_answer(item, "longbook_choice_eng")


def _check_number(item: Mapping) -> None:
    gold = item["answer"] if isinstance(item["answer"], str) else item["answer"][0]
    if not gold or official.first_int_match(gold) != gold:
        raise ValueError(f"answer={item['answer']!r} is no number in digits, so no response or an empty one is right")


def score(row: Mapping, answer: Answer) -> Verdict:
    """The official scorer of the task; a letter alone in tags is read as training reads it."""
    text = answer.text
    if answer.tagged and row["task"] == "longbook_choice_eng":
        text = read_choice(text) or text
    return Verdict(float(official.score(row["task"], text, row["gold"])), text, answer.unfinished)


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
    content=content,
    score=score,
    breakdown=breakdown,
    columns=columns,
    tasks=official.TASKS,
)
