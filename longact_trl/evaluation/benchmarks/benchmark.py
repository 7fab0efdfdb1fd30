"""What a benchmark is: one object with all that a run, its results and the report ask of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Unit:
    """
    One task of a benchmark, for RULER at one length.

    Args:
        benchmark (`str`):
            Name of the benchmark.
        task (`str`):
            Its task.
        length (`int`, *optional*):
            Tokens of prompt and answer together, where the benchmark has lengths.
    """

    benchmark: str
    task: str
    length: int | None = None

    @property
    def name(self) -> str:
        """For files and progress bars."""
        parts = [self.benchmark, *([str(self.length)] if self.length else []), self.task]
        return "-".join(dict.fromkeys(parts))

    @property
    def lm_eval_task(self) -> str:
        """What the task is called in `tasks/`."""
        return "longact_" + "_".join(dict.fromkeys((self.benchmark, self.task)))


class Answer(NamedTuple):
    """
    What a model wrote, and what of it is scored.

    Args:
        text (`str`):
            What is scored; under the protocol `reasoning`, what follows the thinking.
        tagged (`bool`):
            Whether it stood in `<answer>` tags.
        unfinished (`bool`):
            Whether the budget ended while the model was still thinking.
        response (`str`):
            All that the model wrote.
    """

    text: str
    tagged: bool
    unfinished: bool
    response: str


class Verdict(NamedTuple):
    """
    What became of one response.

    Args:
        score (`float` or `None`):
            From 0 to 1; `None` where the official script leaves the sample out.
        prediction (`str` or `None`):
            What was compared with the gold answers.
        unfinished (`bool`):
            Whether the budget ended while the model was still thinking.
    """

    score: float | None
    prediction: str | None
    unfinished: bool


def every_sample(row: Mapping) -> bool:
    """All samples of a unit."""
    return True


class Part(NamedTuple):
    """
    Samples whose mean score counts towards a number.

    Args:
        task (`str`, *optional*):
            Task of their unit; default any.
        length (`int`, *optional*):
            Length of their unit.
        keep (`Callable[[Mapping], bool]`, *optional*):
            Which samples of the unit; default all.
        weight (`float`, *optional*, defaults to `1.0`):
            Share of the number that their mean makes up.
    """

    task: str | None = None
    length: int | None = None
    keep: Callable[[Mapping], bool] = every_sample
    weight: float = 1.0

    def holds(self, unit: Mapping) -> bool:
        """Whether its samples are among those of a unit (`task`, `length`) of its benchmark."""
        return self.task in (None, unit["task"]) and self.length == unit["length"]


class Column(NamedTuple):
    """
    One number of a table: a weighted mean of means. It is known where all of its parts are.

    Args:
        title (`str`):
            What the tables call it.
        parts (`tuple[Part, ...]`):
            Their weights add up to 1, and no sample is in two of them.
    """

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Benchmark:
    """
    All that tells one benchmark from another.

    Args:
        name (`str`):
            What it is called in `benchmarks` of a configuration and in results.
        title (`str`):
            What it is called in tables and messages.
        dataset (`str`):
            Hub dataset that a model card's entry names.
        metric (`str`):
            Type of its numbers in a model card: `accuracy` or `score`.
        units (`Callable[..., list[Unit]]`):
            From the fields of an `EvaluationConfig` to what is evaluated one after another.
        rows (`Callable[..., Iterator[dict]]`):
            From a [`~prompter.Prompter`], a task and the fields of an `EvaluationConfig` to the rows of one task: see
            [`~lm_eval_tasks.rows`].
        content (`Callable[..., str]`):
            From a task and the fields of an `EvaluationConfig` to a name for the data that its rows are made of, which
            changes when they do. Reads and checks all of them.
        score (`Callable[[Mapping, Answer], Verdict]`):
            The official rule for one row and the answer to it.
        breakdown (`Callable[[Sequence[Mapping], Mapping], dict]`):
            From its finished units (`name`, `task`, `length`, `score`) and their samples by name to the numbers in
            `results.json`, in percent.
        columns (`Callable[[Sequence[int]], dict[str, Column]]`):
            From the lengths that were run to the numbers that a report can show.
        tasks (`tuple[str, ...]`, *optional*):
            What `tasks` of a configuration can choose among.
        first_turns (`Mapping[str, str]`, *optional*):
            Task to the one that is asked before it, whose responses its rows get as `first_responses` by `position`.
        of_sample (`Mapping[str, type]`, *optional*):
            Fields of its samples, beside those of all benchmarks, that `breakdown` and `columns` go by.
        fills_length (`bool`, *optional*, defaults to `False`):
            Whether prompts are made as long as `lengths` says, so that none is ever truncated.
    """

    name: str
    title: str
    dataset: str
    metric: str
    units: Callable[..., list[Unit]]
    rows: Callable[..., Iterator[dict]]
    content: Callable[..., str]
    score: Callable[[Mapping, Answer], Verdict]
    breakdown: Callable[[Sequence[Mapping], Mapping[str, Sequence[Mapping]]], dict]
    columns: Callable[[Sequence[int]], dict[str, Column]]
    tasks: tuple[str, ...] = ()
    first_turns: Mapping[str, str] = field(default_factory=dict)
    of_sample: Mapping[str, type] = field(default_factory=dict)
    fills_length: bool = False
