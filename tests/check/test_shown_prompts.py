"""What longact check shows of the data."""

import io

from rich.console import Console

from helpers.data import write_jsonl
from longact_trl.check.command import check_run
from longact_trl.check.shown_prompts import HEAD, TAIL, earnings, rendered, shortened
from longact_trl.check.subject import read_subject


def test_prompts_and_what_completions_earn(write):
    subject = read_subject(write())
    row = subject.dataset[0]
    text = rendered(subject, row["prompt"])
    assert row["prompt"][0]["content"] in text and len(text) > len(row["prompt"][0]["content"])
    found = earnings(subject, row)
    assert found["right"].endswith("earns format_reward 1, answer_reward 1") and row["answer"][0] in found["right"]
    assert found["wrong"].endswith("earns format_reward 1, answer_reward 0")


def test_the_report_shows_the_shortest_the_middle_and_the_longest(write):
    console = Console(file=io.StringIO(), width=200)
    assert check_run(write(), console=console) == 0
    shown = console.file.getvalue()
    lengths = [int(line.split(", ")[2].split()[0]) for line in shown.splitlines() if line.startswith("row ")]
    assert len(lengths) == 3 and lengths == sorted(lengths)
    assert shown.count("earns format_reward 1, answer_reward 1") == 3


def test_an_unusable_gold_answer_is_left_to_its_verdict(write, tmp_path):
    prompt = [{"role": "user", "content": "How many?"}]
    rows = [{"prompt": prompt, "answer": ["seven or so"], "answer_kind": "number"} for _ in range(4)]
    console = Console(file=io.StringIO(), width=200)
    own = {"mixture": None, "dataset_name": write_jsonl(tmp_path / "rows.jsonl", rows)}
    assert check_run(write(**own), console=console) == 1
    assert "could never earn the answer reward" in console.file.getvalue()


def test_a_long_text_is_shortened():
    text = "a" * HEAD + "b" * 1000 + "c" * TAIL
    assert shortened(text) == f"{'a' * HEAD}\n    … 1,000 characters …\n{'c' * TAIL}"
    assert shortened("short") == "short"
