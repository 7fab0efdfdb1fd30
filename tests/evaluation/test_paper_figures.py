"""`paper_figures.yaml` against a second transcription of the paper, and against the arithmetic of its own numbers."""

import math
import re
from pathlib import Path

import pytest

from longact_trl.evaluation.tables import paper_tables


DOCS = Path(__file__).parents[2] / "docs"
PARSED = Path(__file__).parents[1] / "fixtures" / "paper_tables.tsv"
LONGBENCH_V2 = (503, 192, 311, 180, 215, 108)  # questions: overall, easy, hard, short, medium, long
QUARTERS = {"qwen3_8b_longact", "qwen3_8b_grpo", "qwen3_8b_clip_cov", "qwen3_8b_kl_cov"}
QUARTERS |= {label.replace("8b", "4b") for label in QUARTERS}
WORDS = {  # of the paper's row to words of ours
    "+ DAPO": "+ DAPO, LongAct",
    "+ GRPO": "+ GRPO, LongAct",
    "+ CLIP-conv": "+ Clip-Cov, LongAct",
    "+ KL-conv": "+ KL-Cov, LongAct",
}


def printed(number: int) -> list[list[str]]:
    """Rows of a table as the script found them: name and numbers."""
    lines = [line.split("\t") for line in PARSED.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [line[1:] for line in lines if line[0] == str(number)]


def transcribed(number: int) -> dict[str, tuple[str, list[float]]]:
    """Rows of ours that have numbers of the paper: label to name and numbers."""
    rows = paper_tables()[number]["rows"]
    return {label: (row["name"], row["paper"]) for label, row in rows.items() if "paper" in row}


@pytest.mark.parametrize(
    "number, rows, columns", [(1, 10, 6), (2, 8, 10), (3, 6, 7), (4, 10, 6), (5, 8, 6), (6, 8, 6)]
)
def test_every_number_is_the_papers(number, rows, columns):
    theirs, ours = printed(number), transcribed(number)
    assert len(theirs) == len(ours) == rows and len(paper_tables()[number]["columns"]) == columns
    model = ""
    for (name, *numbers), (our_name, figures) in zip(theirs, ours.values(), strict=True):
        model = model if name.startswith("+") else name
        name = f"{model} {WORDS.get(name, name)}" if name.startswith("+") else name
        assert our_name.replace(" %", "%") == name
        assert [f"{figure:.2f}" for figure in figures] == numbers


def test_table_7_counts_answers():
    assert printed(7) == [[name, f"{count} / 503"] for name, [count] in transcribed(7).values()]


@pytest.mark.parametrize("number", [1, 4, 5, 6])
def test_longbench_v2_rows_are_counts_of_answers_and_only_longacts_have_quarters(number):
    for label, (_, figures) in transcribed(number).items():
        quarters = [round(figure * total / 25) for figure, total in zip(figures, LONGBENCH_V2, strict=True)]
        for figure, quarter, total in zip(figures, quarters, LONGBENCH_V2, strict=True):
            assert 25 * quarter / total == pytest.approx(figure, abs=0.0051), label
        overall, easy, hard, *lengths = quarters
        assert overall == easy + hard == sum(lengths)
        assert any(quarter % 4 for quarter in quarters) == (label in QUARTERS)


def test_averages_are_plain_means():
    for _, figures in transcribed(2).values():
        for *parts, average in (figures[:5], figures[5:]):
            assert sum(parts) / 4 == pytest.approx(average, abs=0.0051)
    for _, (*parts, average) in transcribed(3).values():
        assert sum(parts) / 6 == pytest.approx(average, abs=0.0051)


def test_infinitebench_shares_are_counts_but_for_the_misprint():
    misprints = []
    for label, (_, figures) in transcribed(3).items():
        for column, total in ((0, 590), (1, 590), (5, 229)):
            if round(100 * round(figures[column] * total / 100) / total, 2) != figures[column]:
                misprints.append((label, figures[column]))
    assert misprints == [("sft_qwen3_4b", 83.44)]


def test_the_misprints_are_in_the_notes():
    tables = paper_tables()
    for number in (5, 6):
        rows = transcribed(number)
        assert rows["sft_qwen3_4b"][1] == rows["sft_qwen3_8b"][1] != transcribed(1)["sft_qwen3_4b"][1]
        assert any("repeats that of Qwen3-8B-SFT" in note for note in tables[number]["notes"])
    assert "83.44" in tables[3]["notes"][0]
    for number in (1, 4, 5, 6):
        assert any("184.75" in note for note in tables[number]["notes"])


def test_the_intervals_of_how_to_read_the_paper():
    """Two models with independent answers, from the scores and the numbers of questions that stand in each line."""
    page = (DOCS / "how_to_read_the_paper.md").read_text("utf-8")
    lines = re.findall(r"\((\d+\.\d+) − (\d+\.\d+)\) \| (\d+) \| (.*?) \|", page)
    assert len(lines) == 9
    for first, second, questions, printed in lines:
        a, b = float(first) / 100, float(second) / 100
        half = 196 * math.sqrt((a * (1 - a) + b * (1 - b)) / int(questions))
        gain = 100 * (a - b)
        expected = f"{gain:+.2f} ({gain - half:+.1f} to {gain + half:+.1f})"
        assert printed.replace("−", "-") == expected
