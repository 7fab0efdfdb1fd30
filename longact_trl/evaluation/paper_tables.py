"""The tables that `longact report` fills: the paper's, with its figures, and this project's own."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from .benchmarks import BENCHMARKS


if TYPE_CHECKING:
    from .report import Evaluation

FIGURES = Path(__file__).with_name("paper_figures.yaml")


@cache
def paper_tables() -> dict[int, dict]:
    """What `paper_figures.yaml` holds, by the number of the table."""
    return yaml.safe_load(FIGURES.read_text(encoding="utf-8"))["tables"]


def tables_for(evaluations: Sequence["Evaluation"]) -> dict[int | str, dict]:
    """The paper's tables, with a column for every length of RULER that was run, and one for each other benchmark."""
    units = [unit for evaluation in evaluations for unit in evaluation.notes.values()]
    lengths = {str(unit["length"]) for unit in units if unit["length"]}
    tables: dict[int | str, dict] = {}
    for number, table in paper_tables().items():
        more = lengths if BENCHMARKS[table["benchmark"]].fills_length else set()
        columns = sorted({*table["columns"], *more}, key=int) if more else table["columns"]
        tables[number] = {**table, "columns": columns}
    of_paper = {table["benchmark"] for table in tables.values()}
    for name in (name for name in BENCHMARKS if name not in of_paper):
        columns = list(BENCHMARKS[name].columns(sorted(map(int, lengths))))
        table = {"title": BENCHMARKS[name].title, "benchmark": name, "columns": columns, "others": True, "rows": {}}
        tables[name] = table
    return tables


def column_name(column: str) -> str:
    """What a column is called: `4096` is 4k, `passkey` is Retrieve.PassKey."""
    if column.isdigit():
        return f"{int(column) // 1024}k"
    titles = {name: known.title for benchmark in BENCHMARKS.values() for name, known in benchmark.columns(()).items()}
    return titles.get(column, column.replace("_", " "))
