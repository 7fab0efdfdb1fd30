"""The tables that `longact report` fills: the paper's, with its figures, and this project's own."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from .infinitebench import NAMES


if TYPE_CHECKING:
    from .report import Evaluation

FIGURES = Path(__file__).with_name("paper_figures.yaml")
SYNTHETIC = {  # no table of the paper
    "title": "Synthetic retrieval, this project's own",
    "benchmark": "synthetic",
    "columns": ["all", "needle", "multi_key", "hops"],
    "others": True,
    "rows": {},
}


@cache
def paper_tables() -> dict[int, dict]:
    """What `paper_figures.yaml` holds, by the number of the table."""
    return yaml.safe_load(FIGURES.read_text(encoding="utf-8"))["tables"]


def tables_for(evaluations: Sequence["Evaluation"]) -> dict[int | None, dict]:
    """The paper's tables and this project's own (`None`), with a column for every length of RULER that was run."""
    units = [unit for evaluation in evaluations for unit in evaluation.notes.values()]
    lengths = {str(unit["length"]) for unit in units if unit["benchmark"] == "ruler"}
    tables = {}
    for number, table in {**paper_tables(), None: SYNTHETIC}.items():
        more = lengths if table["benchmark"] == "ruler" else set()
        columns = sorted({*table["columns"], *more}, key=int) if more else table["columns"]
        tables[number] = {**table, "columns": columns}
    return tables


def column_name(column: str) -> str:
    """What a column is called: `4096` is 4k, `passkey` is Retrieve.PassKey."""
    if column.isdigit():
        return f"{int(column) // 1024}k"
    return NAMES.get(column, column.replace("_", " "))
