"""Gold answers whose kind, sign or being there is a guess are shown."""

import json
import re

import pytest

from helpers.data import write_jsonl
from longact_trl.check.command import check
from longact_trl.check.golds import describe
from longact_trl.check.verdict import Caution


def test_kinds_are_counted_with_an_example():
    text = describe([["B"], ["5"], ["6"], ["x y"]], ["choice", "number", "number", None])
    assert text == (
        "each of 4 earns 1 under its own reward: 1 choice ('B'), 2 number ('5'), 1 string, since no answer_kind is "
        "given ('x y')"
    )
    assert not isinstance(text, Caution)


@pytest.mark.parametrize(
    "golds, kind, note",
    [
        (["5%"], None, "'5%' of row 1 without answer_kind looks like a number, and is compared as text"),
        (["Yes"], None, "looks like yes or no"),
        (["(B)"], None, "looks like a choice"),
        (["None"], None, "'None' of row 1 may stand for no answer"),
        (["nan"], "string", "may stand for no answer"),
        (["(31.5)"], "number", r"'\(31.5\)' of row 1 is read as negative"),
        (["- 31.5"], "number", "is read as negative"),
        (["-31.5"], "number", None),
        (["5"], "string", None),
        (["Paris"], None, None),
    ],
)
def test_guesses(golds, kind, note):
    text = describe([["x y"], golds], ["string", kind])
    assert isinstance(text, Caution) == (note is not None)
    if note:
        assert re.search(note, text)
        assert "(as in 2 rows)" in describe([golds] * 2, [kind] * 2)


@pytest.mark.parametrize("answer", [lambda i: 2 * i, lambda i: 0.5 * i, lambda i: [i, i + 1], lambda i: i > 7])
def test_answers_that_are_no_text(tmp_path, answer):
    """GSM8K's answers, counts: `longact check` reads them as training does."""
    kind = "yes_no" if answer(0) is False else "number"
    rows = [{"prompt": f"What is {i}?", "answer": answer(i), "answer_kind": kind} for i in range(16)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    overrides = ["--mixture", "", "--dataset_name", source, "--output_dir", str(tmp_path / "out")]
    _, verdicts = check("quickstart.yaml", overrides)
    [gold] = [verdict for verdict in verdicts if verdict.check == "gold answers"]
    assert gold.status == "pass" and f"16 {kind}" in gold.text, json.dumps([v.text for v in verdicts])
