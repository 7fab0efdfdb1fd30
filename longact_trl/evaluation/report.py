"""The paper's Tables 1-6 from results: ours with intervals, the paper's figures, differences, and which are real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .benchmarks import BENCHMARKS, Part
from .paper_tables import column_name, tables_for
from .results import read_results
from .statistics import Interval, bootstrap_mean, sign_flip_p


SIGNIFICANT = 0.05
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
    """

    label: str
    samples: dict[str, list[dict]] = field(default_factory=dict)
    notes: dict[str, dict] = field(default_factory=dict)

    def groups(self, benchmark: str, column: str) -> Groups:
        """
        The samples behind one number of a table.

        Args:
            benchmark (`str`):
                The table's benchmark.
            column (`str`):
                The number's column.

        Returns:
            `list[dict[str, float]]`: Scores from 0 to 1 by sample, a group for each part of the column
            ([`~benchmarks.Column`]). Empty where one of its parts has no samples.
        """
        units = [unit for unit in self.notes.values() if unit["benchmark"] == benchmark]
        groups = []
        for part in self._parts(benchmark, column):
            group = {}
            for unit in filter(part.holds, units):
                rows = [row for row in self.samples[unit["name"]] if row["score"] is not None and part.keep(row)]
                # An id need not be unique.
                group |= {f"{unit['name']} {row['position']} {row['sample_id']}": row["score"] for row in rows}
            groups.append(group)
        return groups if all(groups) else []

    def weights(self, benchmark: str, column: str) -> list[float]:
        """Share of the number that the mean of each group of [`groups`] makes up."""
        return [part.weight for part in self._parts(benchmark, column)]

    def _parts(self, benchmark: str, column: str) -> tuple[Part, ...]:
        lengths = {unit["length"] for unit in self.notes.values() if unit["length"]}
        known = BENCHMARKS[benchmark].columns(sorted(lengths)).get(column)
        return known.parts if known else ()


def load_evaluations(paths: Sequence[str | Path]) -> list[Evaluation]:
    """
    Read results; those with one label belong to one model.

    Args:
        paths (`Sequence[str | Path]`):
            Folders of runs, or their `results.json`.

    Returns:
        `list[Evaluation]`: In the order of first appearance.

    Raises:
        `ValueError`: If a path has no results, or two runs of one label answer the same task.
    """
    by_label: dict[str, Evaluation] = {}
    for path in paths:
        results = read_results(path)
        evaluation = by_label.setdefault(results["label"], Evaluation(results["label"]))
        for unit in results["units"]:
            if unit["name"] in evaluation.samples:
                raise ValueError(
                    f"{path}: {results['label']!r} has {unit['name']} already. Two models need two names: give "
                    "each its own `--label` when it is evaluated."
                )
            evaluation.samples[unit["name"]] = results["samples"][unit["name"]]
            how = {name: results[name] for name in ("protocol", "temperature", "seed", "backend", "complete")}
            evaluation.notes[unit["name"]] = unit | how
    return list(by_label.values())


@dataclass
class Row:
    """
    One model in one table.

    Args:
        name (`str`):
            What the row is called.
        ours (`dict[str, Interval]`):
            Column to our number, from 0 to 1, with its 95 % interval.
        paper (`dict[str, float]`):
            Column to the paper's figure, in percent.
        evaluation (`Evaluation`, *optional*):
            Where our numbers are from.
    """

    name: str
    ours: dict[str, Interval]
    paper: dict[str, float]
    evaluation: Evaluation | None


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
    by_label = {evaluation.label: evaluation for evaluation in evaluations}
    entries = dict(table["rows"])
    if table.get("others"):
        entries |= {label: {"name": label} for label in by_label if label not in entries}
    rows = []
    for label, entry in entries.items():
        evaluation = by_label.get(label)
        columns = table["columns"] if evaluation else []
        ours = {}
        for column in columns:
            if groups := evaluation.groups(table["benchmark"], column):
                weights = evaluation.weights(table["benchmark"], column)
                ours[column] = bootstrap_mean([list(group.values()) for group in groups], weights)
        row = Row(entry["name"], ours, entry.get("paper", {}), evaluation if ours else None)
        if row.ours or row.paper:
            rows.append(row)
    return rows


def compare(table: Mapping, baseline: Evaluation, other: Evaluation) -> dict[str, tuple[Interval, float, int]]:
    """
    How much better one model is than another, on the samples that both have.

    Args:
        table (`Mapping`):
            As in `paper_figures.yaml`.
        baseline, other (`Evaluation`):
            The two models.

    Returns:
        `dict[str, tuple[Interval, float, int]]`: Column to the difference (other minus baseline, of shares) with its
        bootstrap interval, the p-value of a paired permutation test, and the number of samples.
    """
    compared = {}
    for column in table["columns"]:
        theirs = {key: score for group in baseline.groups(table["benchmark"], column) for key, score in group.items()}
        groups = []
        for group in other.groups(table["benchmark"], column):
            groups.append([score - theirs[key] for key, score in group.items() if key in theirs])
        if groups and all(groups):
            weights = other.weights(table["benchmark"], column)
            compared[column] = bootstrap_mean(groups, weights), sign_flip_p(groups, weights), sum(map(len, groups))
    return compared


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """
    The report.

    Args:
        evaluations (`Sequence[Evaluation]`):
            As [`load_evaluations`] returns them; all others are compared with the first.

    Returns:
        `str`: Markdown.
    """
    parts = ["# Evaluation", _how(evaluations)]
    for number, table in tables_for(evaluations).items():
        rows = rows_of(table, evaluations)
        if not any(row.ours for row in rows) and not isinstance(number, int):
            continue
        parts.append(f"## {f'Table {number}: ' if isinstance(number, int) else ''}{table['title']}")
        parts.append(_table(table, rows) if rows else "No results and no figures of the paper.")
        if table.get("others"):  # the arms of the other tables are in these, too
            by_label = {row.evaluation.label: row for row in rows if row.evaluation}
            baseline, *others = [by_label[e.label] for e in evaluations if e.label in by_label] or [None]
            parts += [_comparison(table, baseline, other) for other in others]
    missing = "Figures of the paper that are not shown are not known to this project: see `paper_figures.yaml`."
    return "\n\n".join([*parts, missing]) + "\n"


def _table(table: Mapping, rows: Sequence[Row]) -> str:
    columns = [column for column in table["columns"] if any(column in row.ours or column in row.paper for row in rows)]
    lines = [["", "", *(column_name(column) for column in columns)], ["---"] * (len(columns) + 2)]
    for row in rows:
        name = row.name
        if row.ours:
            lines.append([name, "ours", *(_interval(row.ours.get(column)) for column in columns)])
            name = ""
        if row.paper:
            lines.append([name, "paper", *(f"{row.paper[c]:.1f}" if c in row.paper else "" for c in columns)])
        if both := row.ours.keys() & row.paper:
            gap = {column: f"{100 * row.ours[column].value - row.paper[column]:+.1f}" for column in both}
            lines.append(["", "difference", *(gap.get(column, "") for column in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _comparison(table: Mapping, baseline: Row, other: Row) -> str:
    lines = [f"{other.name} against {baseline.name}, on the same samples:", ""]
    for column, (gain, p, total) in compare(table, baseline.evaluation, other.evaluation).items():
        points = f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        chance = "" if p < SIGNIFICANT else ", may be chance"
        lines.append(f"- {column_name(column)}: {points}, p = {p:.2g}, {total} samples{chance}")
    return "\n".join(lines)


def _how(evaluations: Sequence[Evaluation]) -> str:
    """What each model's numbers were made with, and what to bear in mind."""
    lines = ["95 % bootstrap intervals over samples in parentheses; p of paired permutation tests.", ""]
    for evaluation in evaluations:
        units = evaluation.notes.values()
        how = {(u["protocol"], u["temperature"], u["seed"], u["backend"]) for u in units}
        ways = "; ".join(f"{p} protocol, temperature {t:g}, seed {s}, {b}" for p, t, s, b in sorted(how, key=str))
        line = f"- {evaluation.label}: {ways}; {sum(u['num_samples'] for u in units)} samples"
        for name, what in (
            ("truncated", "prompts truncated"),
            ("unfinished", "still thinking when the budget ended"),
            ("skipped", "empty and left out"),
        ):
            if count := sum(unit[name] for unit in units):
                line += f"; **{count} {what}**"
        for name, benchmark in BENCHMARKS.items():
            tasks = {unit["task"] for unit in units if unit["benchmark"] == name}
            if 0 < len(tasks) < len(benchmark.tasks):
                line += f"; **only {len(tasks)} of {benchmark.title}'s {len(benchmark.tasks)} tasks**"
        if haystacks := sorted({u["haystack"] for u in units if "stand-in" in u.get("haystack", "")}):
            line += f"; **stand-in data, no official score: {', '.join(haystacks)}**"
        if not all(unit["complete"] for unit in units):
            line += "; **the run is not finished**"
        lines.append(line)
    return "\n".join(lines)


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def report_results(paths: Sequence[str], output: str | None) -> None:
    """
    What `longact report` does.

    Args:
        paths (`Sequence[str]`):
            Folders of runs, or their `results.json`.
        output (`str`, *optional*):
            Write `OUTPUT.md` and `OUTPUT.png`, too.
    """
    from .report_picture import write_picture

    evaluations = load_evaluations(paths)
    text = markdown(evaluations)
    print(text)
    if output:
        Path(f"{output}.md").write_text(text, encoding="utf-8")
        write_picture(evaluations, f"{output}.png")
        print(f"Written: {output}.md, {output}.png")
