"""What the parts have measured: JSON, Markdown and a picture, made anew from `rows.jsonl` after each part."""

import json
from collections.abc import Mapping
from pathlib import Path


ROWS, JSON, MARKDOWN, PICTURE = "rows.jsonl", "gpu_report.json", "gpu_report.md", "gpu_report.png"
PARTS = {  # seconds that each may take, its start included, beside what those before it left
    "attention": 30,
    "parity": 60,
    "prefix_grid": 100,
    "memory_slope": 45,
    "row_sparsity": 55,
    "plan": 65,
    "masks": 65,
    "windows": 45,
}
SKIPPED = {
    "vLLM": "never part of this script: `python benchmarks/overhead.py --vllm` measures with it",
    "DeepSpeed": "never part of this script: `accelerate launch` with accelerate_configs/zero3.yaml uses it",
}
NO_GPU = "This ran on a CPU, in miniature, to see that the script works. No number here says anything of a GPU."


def read_rows(folder: Path) -> dict:
    """
    All that was written so far.

    Args:
        folder (`Path`):
            Output folder; a line that a kill cut short is left out.

    Returns:
        `dict`: `about`, and by part its `rows` and how it ended, if it did.
    """
    report: dict = {"about": {}, "skipped": SKIPPED, "parts": {}}
    for line in (folder / ROWS).read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "about" in entry:
            report["about"] |= entry["about"]
            continue
        part = report["parts"].setdefault(entry["part"], {"status": "cut short", "rows": []})
        if "row" in entry:
            part["rows"].append(entry["row"])
        else:
            part |= {name: value for name, value in entry.items() if name != "part"}
    return report


def write_report(folder: Path) -> dict:
    """
    Write JSON, Markdown and, where matplotlib is installed, the picture.

    Args:
        folder (`Path`):
            Output folder.

    Returns:
        `dict`: What the JSON holds.
    """
    report = read_rows(folder)
    (folder / JSON).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / MARKDOWN).write_text(markdown(report), encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        return report
    matplotlib.use("Agg")
    from .picture import draw

    draw(report, folder / PICTURE)
    return report


def markdown(report: Mapping) -> str:
    """Tables, one a part, under what it ran on."""
    about = report["about"]
    lines = [f"# {about.get('device', '?')}: measurements of longact-trl", ""]
    if about.get("type") != "cuda":
        lines += [f"**{NO_GPU}**", ""]
    lines += ["; ".join(f"{name} {value}" for name, value in about.items() if name not in ("device", "type")), ""]
    for name, part in report["parts"].items():
        lines += [f"## {part.get('title', name)}", "", part.get("note", ""), "", *_table(part["rows"]), ""]
        if part["status"] != "done":
            lines += [f"*{part['status']}*" + (f": {part['said']}" if part.get("said") else ""), ""]
    lines += [f"- {name}: {why}." for name, why in report["skipped"].items()]
    missing = [name for name in PARTS if name not in report["parts"]]
    return "\n".join([*lines, *([f"- Not run: {', '.join(missing)}."] if missing else []), ""])


def _table(rows: list[Mapping]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body = [[_text(row.get(name, "")) for name in columns] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *body)] if rows else []


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)
