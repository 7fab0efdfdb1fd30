"""What a run leaves behind: a JSON with all that is needed to repeat it, and each task's samples beside it."""

import json
import math
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..rewards.answers import short_repr
from ..settings.installed import VLLM, installed
from ..settings.whole_files import write_whole
from .benchmarks import BENCHMARKS, RENAMED


if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FORMAT = 1
RESULTS, SAMPLES, JOURNALS = "results.json", "samples", "requests"
NUMBER = int | float
NEEDED = {"label": str, "protocol": str, "temperature": NUMBER, "seed": NUMBER | None, "backend": str}
NEEDED |= {"complete": bool, "units": list, "scores": dict, "follows": dict}
OF_UNIT = {"name": str, "benchmark": str, "task": str, "length": int | None, "score": NUMBER | None}
OF_UNIT |= dict.fromkeys(("num_samples", "skipped", "truncated", "unfinished"), int)
OF_SAMPLE = {"sample_id": str | int, "position": int, "score": NUMBER | None}
"""What a report reads, and what it must be."""
AGAIN = "delete it and run the evaluation again with the same command, which repeats no finished request"
PACKAGES = ("longact-trl", "lm-eval", "torch", "transformers", *VLLM, "datasets", "peft", "rouge-score")


def scores_of(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """
    The numbers of the tables, in percent.

    Args:
        units (`Sequence[Mapping]`):
            `name`, `benchmark`, `task`, `length` and `score` of each finished unit.
        samples (`Mapping[str, Sequence[Mapping]]`):
            Name of a unit to its samples.

    Returns:
        `dict`: By benchmark, what its `breakdown` gives: `longbench_v2`: the official table; `ruler`: by length, each
        task, and the plain mean of all 13; `infinitebench`: each task; `tiny_tasks`: each task and all together.
    """
    finished: dict[str, list] = defaultdict(list)
    for unit in units:
        finished[unit["benchmark"]].append(unit)
    return {name: BENCHMARKS[name].breakdown(of_benchmark, samples) for name, of_benchmark in finished.items()}


def summary_of(rows: Sequence[Mapping]) -> dict:
    """
    What is said of one unit.

    Args:
        rows (`Sequence[Mapping]`):
            Its samples.

    Returns:
        `dict`: `score` (in percent, rounded to two digits as RULER rounds; `None` where no sample has one),
        `num_samples`, `skipped` (empty responses that the official script leaves out), `truncated` (prompts),
        `unfinished` (thinking that the budget cut off), `haystack` where there is one.
    """
    summary = {"score": mean_score(rows), "num_samples": len(rows)}
    summary["skipped"] = sum(row["score"] is None for row in rows)
    summary |= {name: sum(row[name] for row in rows) for name in ("truncated", "unfinished")}
    haystacks = sorted({row["haystack"] for row in rows if row.get("haystack")})
    return summary | ({"haystack": ", ".join(haystacks)} if haystacks else {})


def mean_score(rows: Sequence[Mapping]) -> float | None:
    """Mean of the samples that have a score, in percent, rounded to two digits; `None` where none has."""
    scored = [row["score"] for row in rows if row["score"] is not None]
    # In RULER's order of operations: 100 times the sum first would round some halves the other way.
    return round(sum(scored) / len(scored) * 100, 2) if scored else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a score depends on, and this package's commit where it is a checkout."""
    found = {"python": platform.python_version()} | installed(PACKAGES)
    here = Path(__file__).parents[2]
    if (here / ".git").exists():
        for name, command in (
            ("commit", "rev-parse HEAD"),
            ("uncommitted", "status --porcelain --untracked-files=no"),
        ):
            done = subprocess.run(["git", "-C", str(here), *command.split()], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout.strip():
                found[name] = done.stdout.strip() if name == "commit" else "yes"
    return found


def write_samples(path: Path, rows: Iterable[Mapping]) -> None:
    """Write a JSONL file whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_samples(path: Path) -> list[dict]:
    """Rows of a JSONL file. `ValueError` for a file that is missing or a line that is no object; names both."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: run the evaluation again with the same command.")
    rows = []
    # Not `splitlines`: it would also split at U+2028 and its like, which a response may hold.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line:
            rows.append(_parse(line, f"line {number} of {path}"))
    return rows


def read_results(path: str | Path) -> dict:
    """
    Results of a run, with their samples.

    Args:
        path (`str` or `Path`):
            Folder of the run, or its `results.json`.

    Returns:
        `dict`: The JSON, and under `"samples"` the rows of each unit by its name.

    Raises:
        `ValueError`: If there are no results, they cannot be read, or are of another format.
    """
    file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"{path} has no {RESULTS}: give the output_dir of a finished `recipes/evaluate.py`.")
    results = _parse(file.read_bytes(), str(file))
    if results.get("format") != FORMAT:
        raise ValueError(f"{file} has format {results.get('format')!r}, but this version reads {FORMAT}.")
    _check(results, NEEDED, str(file))
    samples = {}
    for place, unit in enumerate(results["units"]):
        _check(unit, OF_UNIT, f"unit {place} of {file}")
        file_of_unit = file.parent / SAMPLES / f"{unit['name']}.jsonl"
        unit |= {name: RENAMED.get(unit[name], unit[name]) for name in ("name", "benchmark", "task")}
        if unit["benchmark"] not in BENCHMARKS:
            raise ValueError(f"{file}: this version knows no benchmark {unit['benchmark']!r}.")
        rows = read_samples(file_of_unit)
        fields = OF_SAMPLE | BENCHMARKS[unit["benchmark"]].of_sample
        for position, row in enumerate(rows):
            row.setdefault("position", position)  # results of earlier versions do not say where a sample stood
            _check(row, fields, f"Sample {position} of {file_of_unit}")
        number, mean = len({row["position"] for row in rows}), mean_score(rows)
        if number != unit["num_samples"] or not _is_rounded(unit["score"], mean):
            raise ValueError(
                f"{file_of_unit} has {number} samples with a mean of {mean}, but {file} says {unit['num_samples']} "
                f"with {unit['score']}: {AGAIN}."
            )
        samples[unit["name"]] = rows
    if unknown := sorted(set(results["scores"]) - set(results["follows"])):
        raise ValueError(f"{file} does not say what its {', '.join(unknown)} follows: {AGAIN}.")
    for name in ("scores", "follows"):
        results[name] = {RENAMED.get(key, key): value for key, value in results[name].items()}
    return results | {"samples": samples}


def _is_rounded(said: float | None, mean: float | None) -> bool:
    """Whether a score is that of the samples, by whichever version's rounding."""
    return said == mean if None in (said, mean) else abs(said - mean) < 0.02


def _check(content: object, fields: Mapping[str, type], where: str) -> None:
    if not isinstance(content, dict) or (missing := [name for name in fields if name not in content]):
        raise ValueError(f"{where} has no {', '.join(missing if isinstance(content, dict) else fields)}: {AGAIN}.")
    for name, kind in fields.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"{where}: {name}={short_repr(content[name])} is nothing that a run writes: {AGAIN}.")


def _parse(content: bytes, what: str) -> dict:
    try:
        parsed = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{what} cannot be read as JSON ({error}). Was it cut off? {AGAIN.capitalize()}.") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} is no JSON object: {AGAIN}.")
    return parsed


def eval_results(path: str | Path) -> list["EvalResult"]:
    """
    Results of a run in the form that a model card's metadata takes.

    Args:
        path (`str` or `Path`):
            Folder of the run, or its `results.json`.

    Returns:
        `list[EvalResult]`: One entry a number of the tables. The name of the metric says which protocol it follows,
        and that a haystack was a stand-in where it was.
    """
    from huggingface_hub import EvalResult

    results = read_results(path)
    stand_ins = {u["benchmark"] for u in results["units"] if "stand-in" in u.get("haystack", "")}
    entries = []
    for benchmark, config, value in _flat(results["scores"]):
        known = BENCHMARKS[benchmark]
        metric = f"{results['protocol']} protocol, {results['follows'][benchmark]}"
        entries.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=known.dataset,
                dataset_name=f"{known.title} {config}" + (" (with stand-in data)" if benchmark in stand_ins else ""),
                dataset_config=config,
                dataset_split="test",
                metric_type=known.metric,
                metric_name=metric,
                metric_value=value,
                metric_args={name: results[name] for name in ("protocol", "temperature", "seed")},
            )
        )
    return entries


def _flat(scores: Mapping) -> Iterable[tuple[str, str, float]]:
    for benchmark, values in scores.items():
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from ((benchmark, f"{key} {task}", v) for task, v in value.items() if v is not None)
            elif value is not None and not math.isnan(value):
                column = BENCHMARKS[benchmark].columns(()).get(key)
                yield benchmark, column.title if column else key, value
