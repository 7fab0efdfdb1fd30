"""The tables of a report, filled from results: the paper's Tables 1-7, and this project's own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from .benchmarks import BENCHMARKS, Part
from .results import read_results
from .statistics import Interval, bootstrap_mean, sign_flip_p, wilson_interval


FIGURES = Path(__file__).with_name("paper_figures.yaml")
CLAMPED = "perturb.json"
"""What `longact perturb` writes: with `--task longbench_v2`, the answers behind Table 7."""
UNREAD = 0.25
"""What the official `compensated` scoring of LongBench v2 gives for an answer that cannot be read."""
Groups = list[dict[str, float]]


@dataclass
class Evaluation:
    """
    All results of one model.

    Args:
        label (`str`):
            Its name in the tables.
        samples (`dict[str, list[dict]]`):
            Name of a unit to its samples.
        notes (`dict[str, dict]`):
            Name of a unit to its numbers and to what it was run with.
        clamped (`bool`, *optional*, defaults to `False`):
            Whether `longact perturb` asked the model, under one of its conditions.
    """

    label: str
    samples: dict[str, list[dict]] = field(default_factory=dict)
    notes: dict[str, dict] = field(default_factory=dict)
    clamped: bool = False
    _numbers: dict[tuple, Interval | None] = field(default_factory=dict, repr=False)

    def groups(self, benchmark: str, column: str, compensated: bool | None = None) -> Groups:
        """
        The samples behind one number of a table.

        Args:
            benchmark (`str`):
                The table's benchmark.
            column (`str`):
                The number's column.
            compensated (`bool`, *optional*):
                LongBench v2: what an answer that cannot be read scores, `UNREAD` or 0; default as it was scored.

        Returns:
            `list[dict[str, float]]`: Scores from 0 to 1 by sample, a group for each part of the column
            ([`~benchmarks.Column`]). Empty where one of its parts has no samples.
        """
        units = [unit for unit in self.notes.values() if unit["benchmark"] == benchmark]
        groups = []
        for part in self._parts(benchmark, column):
            group = {}
            for unit in filter(part.holds, units):
                for row in self.samples[unit["name"]]:
                    if row["score"] is not None and part.keep(row):
                        unread = compensated is not None and row["prediction"] is None
                        # An id need not be unique.
                        key = f"{unit['name']} {row['position']} {row['sample_id']}"
                        group[key] = UNREAD * compensated if unread else row["score"]
            groups.append(group)
        return groups if all(groups) else []

    def number(self, benchmark: str, column: str, compensated: bool | None = None) -> Interval | None:
        """
        One number of a table; arguments as of [`groups`].

        Returns:
            `Interval` or `None`: From 0 to 1, with a bootstrap interval; with Wilson's for the counts of `longact
            perturb`, some of which are 0. `None` where there is no such number.
        """
        key = benchmark, column, compensated  # four of the paper's tables ask for the same ones
        if key not in self._numbers:
            scores = [list(group.values()) for group in self.groups(*key)]
            if self.clamped and scores:
                self._numbers[key] = wilson_interval(sum(scores[0]), len(scores[0]))
            else:
                self._numbers[key] = bootstrap_mean(scores, self.weights(benchmark, column)) if scores else None
        return self._numbers[key]

    def weights(self, benchmark: str, column: str) -> list[float]:
        """Share of the number that the mean of each group of [`groups`] makes up."""
        return [part.weight for part in self._parts(benchmark, column)]

    def _parts(self, benchmark: str, column: str) -> tuple[Part, ...]:
        known = BENCHMARKS[benchmark].columns(lengths_of([self])).get(column)
        return known.parts if known else ()


def lengths_of(evaluations: Sequence[Evaluation]) -> list[int]:
    """The lengths at which anything was run, ascending."""
    return sorted({unit["length"] for e in evaluations for unit in e.notes.values() if unit["length"]})


def load_evaluations(paths: Sequence[str | Path]) -> list[Evaluation]:
    """
    Read results; those with one label belong to one model.

    Args:
        paths (`Sequence[str | Path]`):
            Folders of runs, or their `results.json`; folders of `longact perturb --task longbench_v2`.

    Returns:
        `list[Evaluation]`: In the order of first appearance.

    Raises:
        `ValueError`: If a path has no results, or two runs of one label answer the same task.
    """
    by_label: dict[str, Evaluation] = {}
    for path in paths:
        clamped = Path(path, CLAMPED) if Path(path).is_dir() else Path(path)
        found = _read_clamped(clamped) if clamped.name == CLAMPED and clamped.is_file() else [_read(path)]
        for new in found:
            evaluation = by_label.setdefault(new.label, Evaluation(new.label, clamped=new.clamped))
            if twice := new.samples.keys() & evaluation.samples:
                two = (
                    "Two studies of one model need two reports"
                    if new.clamped
                    else ("Two models need two names: give each its own `--label` when it is evaluated")
                )
                raise ValueError(f"{path}: {new.label!r} has {min(twice)} already. {two}.")
            evaluation.samples |= new.samples
            evaluation.notes |= new.notes
    return list(by_label.values())


def _read(path: str | Path) -> Evaluation:
    results = read_results(path)
    how = {name: results[name] for name in ("protocol", "temperature", "seed", "backend", "complete")}
    notes = {unit["name"]: unit | how for unit in results["units"]}
    return Evaluation(results["label"], results["samples"], notes)


def _read_clamped(file: Path) -> list[Evaluation]:
    """A model under each condition of `longact perturb`."""
    try:
        study = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON, it may be cut off: run `longact perturb` again. ({error})") from error
    try:
        return _under_each_condition(file, study)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is nothing that `longact perturb` writes: run it again. ({what})") from error


def _under_each_condition(file: Path, study: dict) -> list[Evaluation]:
    settings, questions, name = study["settings"], study["questions"], "longbench_v2-answer"
    if settings["task"] != "longbench_v2":
        raise ValueError(f"{file} has answers to {settings['task']!r}: Table 7 needs `--task longbench_v2`.")
    note = {"name": name, "benchmark": "longbench_v2", "task": "answer", "length": None, "complete": True}
    note |= {"protocol": "reasoning" if settings["reasoning_tokens"] else "official", "seed": 0, "skipped": 0}
    note |= {"temperature": settings["temperature"], "num_samples": len(questions)}
    note |= {"backend": f"{settings['engine']}, λ = {settings['sparsity_ratio']:g}, --clamp {settings['clamp']}"}
    note |= {"truncated": sum(q["truncated"] for q in questions), "unfinished": 0}
    evaluations = []
    for condition, answers in study["answers"].items():
        if len(answers["scores"]) != len(questions):
            raise ValueError(f"{file} has other questions than answers: run `longact perturb` again.")
        rows = [
            {"position": i, "sample_id": q["name"], "score": score or 0.0, "prediction": None if score is None else ""}
            for i, (q, score) in enumerate(zip(questions, answers["scores"], strict=True))
        ]
        label = f"{Path(settings['model']).name}, {condition} clamped"
        evaluations.append(Evaluation(label, {name: rows}, {name: note}, clamped=True))
    return evaluations


@dataclass
class Row:
    """
    One model in one table.

    Args:
        name (`str`):
            What the row is called.
        ours (`dict[str, Interval]`):
            Column to our number, from 0 to 1, with its 95 % interval.
        compensated (`dict[str, Interval]`):
            The same with the official `compensated` scoring; LongBench v2 only.
        paper (`dict[str, float]`):
            Column to the paper's figure, in percent.
        evaluation (`Evaluation`, *optional*):
            Where our numbers are from.
        total (`int`):
            Samples behind our first number.
    """

    name: str
    ours: dict[str, Interval]
    compensated: dict[str, Interval]
    paper: dict[str, float]
    evaluation: Evaluation | None
    total: int = 0


def rows_of(table: Mapping, evaluations: Sequence[Evaluation]) -> list[Row]:
    """
    The rows of a table for which there is anything to print.

    Args:
        table (`Mapping`):
            As in `paper_figures.yaml`.
        evaluations (`Sequence[Evaluation]`):
            As [`load_evaluations`] returns them.

    Returns:
        `list[Row]`
    """
    benchmark, clamped = table["benchmark"], table.get("clamped", False)
    by_label = {e.label: e for e in evaluations if e.clamped == clamped}
    entries = dict(table["rows"])
    if table.get("others"):
        entries |= {label: {"name": label} for label in by_label if label not in entries}
    rows = []
    for label, entry in entries.items():
        evaluation, numbers = by_label.get(label), {}
        for compensated in (False, True) if benchmark == "longbench_v2" else (None,):
            found = {c: evaluation.number(benchmark, c, compensated) for c in table["columns"]} if evaluation else {}
            numbers[compensated] = {column: number for column, number in found.items() if number is not None}
        ours = numbers.get(False, numbers.get(None))
        figures = dict(zip(table["columns"], entry.get("paper", ()), strict=False))
        paper = {column: 100 * figure / table["total"] for column, figure in figures.items()} if clamped else figures
        total = sum(map(len, evaluation.groups(benchmark, next(iter(ours))))) if ours else 0
        row = Row(entry["name"], ours, numbers.get(True, {}), paper, evaluation if ours else None, total)
        if row.ours or row.paper:
            rows.append(row)
    return rows


def compare(
    table: Mapping, baseline: Evaluation, other: Evaluation, compensated: bool | None = None
) -> dict[str, tuple[Interval, float, int]]:
    """
    How much better one model is than another, on the samples that both have.

    Args:
        table (`Mapping`):
            As in `paper_figures.yaml`.
        baseline, other (`Evaluation`):
            The two models.
        compensated (`bool`, *optional*):
            As in [`Evaluation.groups`].

    Returns:
        `dict[str, tuple[Interval, float, int]]`: Column to the difference (other minus baseline, of shares) with its
        bootstrap interval, the p-value of a paired permutation test, and the number of samples.
    """
    compared = {}
    for column in table["columns"]:
        before = baseline.groups(table["benchmark"], column, compensated)
        theirs = {key: score for group in before for key, score in group.items()}
        groups = []
        for group in other.groups(table["benchmark"], column, compensated):
            groups.append([score - theirs[key] for key, score in group.items() if key in theirs])
        if groups and all(groups):
            weights = other.weights(table["benchmark"], column)
            compared[column] = bootstrap_mean(groups, weights), sign_flip_p(groups, weights), sum(map(len, groups))
    return compared


@cache
def paper_tables() -> dict[int, dict]:
    """What `paper_figures.yaml` holds, by the number of the table."""
    return yaml.safe_load(FIGURES.read_text(encoding="utf-8"))["tables"]


def tables_for(evaluations: Sequence[Evaluation]) -> dict[int | str, dict]:
    """The paper's tables by number; then what none of them shows, by name: RULER by length, other benchmarks."""
    tables: dict[int | str, dict] = dict(paper_tables())
    printed = {(table["benchmark"], column) for table in tables.values() for column in table["columns"]}
    for name, benchmark in BENCHMARKS.items():
        for length in lengths_of(evaluations) if benchmark.fills_length else [None]:
            columns = [c for c in benchmark.columns([length] if length else []) if (name, c) not in printed]
            title = benchmark.title + (f" at {length} tokens" if length else "")
            own = {"title": title, "benchmark": name, "columns": columns, "others": True, "rows": {}}
            tables |= {title: own} if columns else {}
    return tables


def column_title(table: Mapping, column: str) -> str:
    """What a column of a table is called: `131072 niah_sub` is 128k NIAH-sub, `passkey` is Retrieve.PassKey."""
    lengths = [int(name.split()[0]) for name in table["columns"] if name.split()[0].isdigit()]
    return BENCHMARKS[table["benchmark"]].columns(lengths)[column].title
