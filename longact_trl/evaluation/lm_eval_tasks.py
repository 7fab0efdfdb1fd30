"""What lm-eval calls for the tasks in `tasks/`: rows made for a model, scores of its responses, their mean."""

from collections.abc import Mapping, Sequence
from itertools import islice

from datasets import Dataset

from .benchmarks import BENCHMARKS
from .final_answer import judge
from .prompter import prompter_from_metadata


def rows(benchmark: str, task: str, first_only: bool = False, **metadata) -> dict[str, Dataset]:
    """
    The rows of one task, ready to be read: `custom_dataset` of lm-eval.

    Args:
        benchmark (`str`):
            Name of a benchmark.
        task (`str`):
            One of its tasks.
        first_only (`bool`, *optional*, defaults to `False`):
            Whether to make one row only, to see whether that is possible.
        **metadata:
            Which model and protocol (see [`~prompter.prompter_from_metadata`]), and what the benchmark's `rows` takes.

    Returns:
        `dict[str, Dataset]`: Under `"test"` rows with `benchmark`, `task`, `position` (in the task's data),
        `sample_id` (the data's own, which need not be unique), `prompt` (with chat template), `prompt_tokens`,
        `truncated`, `max_new_tokens`, `gold` (list of strings), `reasoning` (whether the answer is read after
        `</think>`) and columns of the benchmark.
    """
    prompter = prompter_from_metadata(**metadata)
    common = {"benchmark": benchmark, "task": task, "reasoning": prompter.reasoning}
    made = islice(BENCHMARKS[benchmark].rows(prompter, task, **metadata), 1 if first_only else None)
    return {"test": Dataset.from_list([common | row for row in made])}


def process_results(doc: Mapping, results: Sequence[str]) -> dict[str, float | None]:
    """What lm-eval calls with a row and the model's responses to it, of which there is one."""
    return {"score": judge(doc, results[0]).score}


def mean_percent(scores: Sequence[float | None]) -> float:
    """Mean of the samples that have a score, in percent; NaN where none has."""
    scored = [score for score in scores if score is not None]
    return 100 * sum(scored) / len(scored) if scored else float("nan")


def keep_nothing(doc: Mapping, results: Sequence[str]) -> dict[str, float]:
    """The first of two turns has no score of its own."""
    return {"score": 0.0}
