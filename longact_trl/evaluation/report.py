"""`longact report`: the paper's Tables 1-7 from results: ours with intervals, the paper's figures, and differences."""

from collections.abc import Mapping, Sequence

from ..settings.whole_files import write_whole
from .benchmarks import BENCHMARKS
from .report_picture import write_picture
from .statistics import Interval
from .tables import UNREAD, Evaluation, Row, column_title, compare, load_evaluations, paper_tables, rows_of, tables_for


SIGNIFICANT = 0.05


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """
    The report.

    Args:
        evaluations (`Sequence[Evaluation]`):
            As [`~tables.load_evaluations`] returns them; all others are compared with the first.

    Returns:
        `str`: Markdown.
    """
    parts = ["# Evaluation", _how(evaluations)]
    for number, table in tables_for(evaluations).items():
        rows = rows_of(table, evaluations)
        of_paper = number in paper_tables()
        if not of_paper and not any(row.ours for row in rows):
            continue
        parts.append(f"## {f'Table {number}: ' if of_paper else ''}{table['title']}")
        parts.append(_table(table, rows))
        parts += [f"<sub>{note}</sub>" for note in table.get("notes", ())]
        if table.get("others"):  # the arms of the other tables are in these, too
            by_label = {row.evaluation.label: row for row in rows if row.evaluation}
            baseline, *others = [by_label[e.label] for e in evaluations if e.label in by_label] or [None]
            parts += [_comparisons(table, baseline, others)] if others else []
    return "\n\n".join(parts) + "\n"


def _table(table: Mapping, rows: Sequence[Row]) -> str:
    columns = [column for column in table["columns"] if any(column in row.ours or column in row.paper for row in rows)]
    lines = [["", "", *(column_title(table, column) for column in columns)], ["---"] * (len(columns) + 2)]
    for row in rows:
        parts = {}
        if table.get("clamped"):  # Table 7 prints counts
            parts["ours"] = {c: f"{number.value * row.total:.0f} / {row.total}" for c, number in row.ours.items()}
            parts["paper"] = {
                c: f"{share * table['total'] / 100:.0f} / {table['total']}" for c, share in row.paper.items()
            }
            parts["ours, %"] = {column: _interval(number) for column, number in row.ours.items()}
            parts["paper, %"] = {column: f"{figure:.2f}" for column, figure in row.paper.items()}
        else:
            parts["ours"] = {column: _interval(number) for column, number in row.ours.items()}
            parts["ours, compensated"] = {column: _interval(number) for column, number in row.compensated.items()}
            parts["paper"] = {column: f"{figure:.2f}" for column, figure in row.paper.items()}
        parts["difference"] = _gaps(row.ours, row.paper)
        if not table.get("clamped"):
            parts["difference, compensated"] = _gaps(row.compensated, row.paper)
        name = row.name.replace("*", "\\*")
        for what, cells in parts.items():
            if cells:
                lines.append([name, what, *(cells.get(column, "") for column in columns)])
                name = ""
    return _lines(lines)


def _gaps(ours: Mapping[str, Interval], paper: Mapping[str, float]) -> dict[str, str]:
    return {column: f"{100 * ours[column].value - paper[column]:+.2f}" for column in ours if column in paper}


def _comparisons(table: Mapping, baseline: Row, others: Sequence[Row]) -> str:
    found: list[tuple[str, dict]] = []
    for other in others:
        two_ways = other.compensated and not table.get("clamped")
        for compensated, way in ((False, ""), (True, ", compensated")) if two_ways else ((None, ""),):
            gains = compare(table, baseline.evaluation, other.evaluation, compensated)
            found.append((other.name + way, gains))
    columns = [column for column in table["columns"] if any(column in gains for _, gains in found)]
    lines = [["", *(column_title(table, column) for column in columns)], ["---"] * (len(columns) + 1)]
    for name, gains in found:
        lines.append([name.replace("*", "\\*"), *(_gain(*gains[c]) if c in gains else "" for c in columns)])
    name = baseline.name.replace("*", "\\*")
    title = f"Points more than {name} on the same samples; bold where p < {SIGNIFICANT}, else it may be chance:"
    return f"{title}\n\n{_lines(lines)}"


def _gain(gain: Interval, p: float, total: int) -> str:
    points = f"{100 * gain.value:+.2f}"
    points = f"**{points}**" if p < SIGNIFICANT else points
    return f"{points} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}), p = {p:.2g}, n = {total}"


def _lines(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _how(evaluations: Sequence[Evaluation]) -> str:
    """What each model's numbers were made with, and what to bear in mind."""
    lines = [
        "95 % bootstrap intervals over samples in parentheses; p of paired permutation tests. Compensated: an answer "
        f"to LongBench v2 that cannot be read scores {UNREAD}, as the official script does when asked to. What the "
        "paper's numbers can and cannot say: docs/how_to_read_the_paper.md.",
        "",
    ]
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


def _interval(interval: Interval) -> str:
    return f"{100 * interval.value:.2f} ({100 * interval.low:.2f}–{100 * interval.high:.2f})"


def report_results(paths: Sequence[str], output: str | None) -> None:
    """
    What `longact report` does.

    Args:
        paths (`Sequence[str]`):
            Folders of runs, or their `results.json`; folders of `longact perturb --task longbench_v2`.
        output (`str`, *optional*):
            Write `OUTPUT.md` and `OUTPUT.png`, too.
    """
    evaluations = load_evaluations(paths)
    text = markdown(evaluations)
    print(text)
    if output:
        write_whole(f"{output}.md", text)
        write_picture(evaluations, f"{output}.png")
        print(f"Written: {output}.md, {output}.png")
