"""What longact check shows of the data."""

import io
import re

import pytest
from rich.console import Console

from helpers.data import write_jsonl
from longact_trl.check.command import check_run
from longact_trl.check.shown_prompts import HEAD, TAIL, earnings, rendered, shortened
from longact_trl.check.subject import read_subject
from longact_trl.data.length import apply_length_policy


def test_prompts_and_what_completions_earn(write):
    subject = read_subject(write())
    row = subject.dataset[0]
    text = rendered(subject, row["prompt"])
    assert row["prompt"][0]["content"] in text and len(text) > len(row["prompt"][0]["content"])
    found = earnings(subject, row)
    assert found["right"].endswith("earns format_reward 1, answer_reward 1") and row["answer"][0] in found["right"]
    assert found["wrong"].endswith("earns format_reward 1, answer_reward 0")


@pytest.mark.parametrize(
    ("golds", "kind"),
    [
        (["1,200"], "number"),
        (["Oslo", "Christiania"], "string"),
        (["B"], "choice"),
        (["no"], "yes_no"),
        (["Anna, of the hill", "Bo", "Cy"], "list"),
        ("Oslo", None),
    ],
)
def test_right_and_wrong_of_every_kind(write, golds, kind):
    found = earnings(read_subject(write()), {"prompt": "p", "answer": golds, "answer_kind": kind})
    assert found["right"].endswith("earns format_reward 1, answer_reward 1"), found
    assert found["wrong"].endswith("earns format_reward 1, answer_reward 0"), found


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
    assert "4 of 4 rows are bad" in console.file.getvalue()


@pytest.fixture
def long_rows(tmp_path) -> dict:
    """Settings of a run with prompts of which the last is longer than the model's 4,096 positions."""
    words = [" ".join(f"w{i % 97}\n" if i % 5 == 0 else f"w{i % 97}" for i in range(count)) for count in (9, 60, 5000)]
    rows = [
        {"prompt": [{"role": "user", "content": text}], "answer": ["a"], "answer_kind": "string"} for text in words
    ]
    return {"mixture": None, "dataset_name": write_jsonl(tmp_path / "rows.jsonl", rows * 2)}


def test_where_truncation_cuts_is_shown_token_by_token(write, long_rows):
    file = write(**long_rows, prompt_length_policy="truncate_middle")
    console = Console(file=io.StringIO(), width=400)
    check_run(file, console=console)
    shown = console.file.getvalue()
    subject = read_subject(file)
    index = max(range(6), key=subject.prompt_lengths.__getitem__)
    whole = subject.dataset[index]["prompt"]
    options = {"policy": "truncate_middle", "chat_template_kwargs": subject.args.chat_template_kwargs}
    trained = apply_length_policy(subject.dataset, subject.tokenizer, subject.window, **options)[index]["prompt"]
    assert f"longer than {subject.window:,}, cut in its middle as shown below" in shown
    [(number, start, end)] = re.findall(r"cut: ([\d,]+) tokens, characters ([\d,]+) to ([\d,]+)", shown)
    start, end = (int(text.replace(",", "")) for text in (start, end))
    before, after = whole[0]["content"], trained[0]["content"]
    assert before[:start] + before[end:] == after and len(after) < len(before)  # what is trained on, to the letter
    ids = subject.tokenizer(before[start:end], add_special_tokens=False)["input_ids"]
    assert int(number.replace(",", "")) == pytest.approx(len(ids), abs=2)  # a cut text may be split otherwise
    # This tokenizer's tokens have no space in them.
    sides = [text.replace("|", "") for text in re.findall(r"(\|.*?\|)(?: goes| …| stays|\n)", shown)]
    assert len(sides) == 4 and all(sides)
    joined = ["".join(text.split()) for text in (before[:start], before[start:], before[:end], before[end:])]
    assert joined[0].endswith(sides[0]) and joined[1].startswith(sides[1])
    assert joined[2].endswith(sides[2]) and joined[3].startswith(sides[3])


def test_what_is_dropped_is_said_to_be(write, long_rows):
    console = Console(file=io.StringIO(), width=400)
    check_run(write(**long_rows, prompt_length_policy="filter"), console=console)
    assert "dropped: it is not trained on" in console.file.getvalue()
    assert "cut:" not in console.file.getvalue()


def test_a_long_text_is_shortened():
    text = "a" * HEAD + "b" * 1000 + "c" * TAIL
    assert shortened(text) == f"{'a' * HEAD}\n    … 1,000 characters …\n{'c' * TAIL}"
    assert shortened("short") == "short"
