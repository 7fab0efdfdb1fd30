"""Rows that do not agree on types, on what they have, or on being rows."""

import json
import os
from functools import partial

import pytest
from datasets import Dataset

from helpers.data import write_jsonl
from helpers.marked_rows import LOADERS, docqa, memagent, own
from longact_trl.data.docqa import load_docqa
from longact_trl.data.memagent import load_memagent
from longact_trl.data.rows import read_prompts


VALUES = [None, "text", 1, 1.5, True, [1], ["a"], {"a": 1}, {"a": [None]}, [], "2020-05-01"]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", ["docqa", "memagent", "am_deepseek"])
def test_a_field_that_nobody_reads_may_change_its_type(tmp_path, name, suffix):
    """Between files, and in JSON between rows."""
    load, make = LOADERS[name]
    folder, rows = tmp_path / "rows", []
    folder.mkdir()
    for number, value in enumerate(VALUES):
        row = {**make(f"row {number}"), "extra_info": value, "unread": {"deep": value}}
        if name == "am_deepseek":
            row = json.loads(json.dumps(row))
            row["conversations"][-1]["info"]["test_case"] = value
        rows.append(row)
    if suffix == "parquet":
        for number, row in enumerate(rows):
            Dataset.from_list([row]).to_parquet(folder / f"{number}.parquet")
    elif suffix == "json":
        (folder / "rows.json").write_text(json.dumps(rows))
    else:
        write_jsonl(folder / "1.jsonl", rows[:6])
        write_jsonl(folder / "2.jsonl", rows[6:])
    assert len(load(str(folder))) == len(VALUES)


AS_TEXTS = [
    None,
    ["text"],
    ["1"],
    ["1.5"],
    ["true"],
    ["1"],
    ["a"],
    ['{"a": 1}'],
    ['{"a": [null]}'],
    [],
    ["2020-05-01"],
]
AS_TEXTS += [None]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_column_of_ones_own_may_change_its_type(tmp_path, suffix):
    """Between files, and in JSON between rows; a column may also be missing. It becomes text."""
    rows = [{**own(f"row {number}"), "extra": value} for number, value in enumerate(VALUES)] + [own("without")]
    for number, row in enumerate(rows):
        file = tmp_path / f"{number:02}.{suffix}"
        if suffix == "parquet":
            Dataset.from_list([row]).to_parquet(file)
        else:
            file.write_text(json.dumps([row] if suffix == "json" else row))
    read = read_prompts(str(tmp_path), "train")
    assert sorted(read["prompt"]) == sorted(row["prompt"] for row in rows)
    assert read["extra"][:] == AS_TEXTS
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_prompts(str(tmp_path / "rows.jsonl"), "train")["extra"][:] == AS_TEXTS


@pytest.mark.parametrize("gold", ["2020-05-01", "2020-05-01 10:00", "2020-05-01T10:00:00Z", ["2020-05-01"]])
def test_a_gold_of_ones_own_that_looks_like_a_date_stays_text(tmp_path, gold):
    source = write_jsonl(tmp_path / "rows.jsonl", [{**own("train"), "answer": gold}] * 2)
    assert read_prompts(source, "train")["answer"][:] == [gold] * 2


@pytest.mark.parametrize(
    "golds, read",
    [
        ([1, "t", 1.5], ["1", "t", "1.5"]),
        ([3, 2.5], ["3", "2.5"]),
        ([3, float("nan")], ["3"]),
        ([1, ["a", 2], True], [["1"], ["a", "2"], ["yes"]]),
        (["1", "null", "[1]", '"q"'], ["1", "null", "[1]", '"q"']),
        ([10**29, 1], [str(10**29), "1"]),
        (["t", None, {"a": 1}, [["b"]], "\ud800"], ["t"]),
    ],
)
def test_golds_of_ones_own_may_be_of_several_types(tmp_path, golds, read):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({**own("?"), "answer": gold}) + "\n" for gold in golds))
    assert read_prompts(str(tmp_path / "rows.jsonl"), "train", max_bad_share=0.9)["answer"][:] == read


@pytest.mark.parametrize(
    "bad, reason",
    [
        ({"prompt": None}, "neither text nor messages"),
        ({"prompt": 5}, "neither text nor messages"),
        ({"prompt": {"role": "user", "content": "?"}}, "neither text nor messages"),
        ({"prompt": "\ud800"}, "half a surrogate pair"),
        ({"answer_kind": "nubmer"}, "unusable gold answer"),
        ({"answer_kind": 3}, "answer_kind that is no text"),
        ({"answer": "many", "answer_kind": "number"}, "unusable gold answer"),
    ],
)
def test_a_bad_row_of_ones_own_is_named_and_changes_no_other(tmp_path, bad, reason):
    row = {**own("?"), "answer": "a", "answer_kind": "string"}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps({**row, **bad})}\n")
    with pytest.raises(ValueError, match=rf"1 of 2 rows are bad(.|\n)*{reason}(.|\n)*rows 1"):
        read_prompts(str(tmp_path / "rows.jsonl"), "train")
    [kept] = read_prompts(str(tmp_path / "rows.jsonl"), "train", max_bad_share=0.5)
    assert kept == row


def test_what_some_rows_do_not_have(tmp_path):
    row = {**own("?"), "answer": "a"}
    for name, reason in (("prompt", "no prompt"), ("answer", "no gold answer")):
        write_jsonl(tmp_path / "rows.jsonl", [row, {key: value for key, value in row.items() if key != name}])
        with pytest.raises(ValueError, match=rf"1 of 2 rows are bad(.|\n)*{reason} \(rows 1"):
            read_prompts(str(tmp_path / "rows.jsonl"), "train")
    write_jsonl(tmp_path / "rows.jsonl", [row, {**row, "prompt": [{"role": "user", "content": "?"}]}])
    with pytest.raises(ValueError, match="prompts that are text and others that are messages"):
        read_prompts(str(tmp_path / "rows.jsonl"), "train")
    write_jsonl(tmp_path / "rows.jsonl", [{"task": "route"}])  # of an agent's environment
    assert list(read_prompts(str(tmp_path / "rows.jsonl"), "train")) == [{"task": "route"}]


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
@pytest.mark.parametrize("load", [load_docqa, partial(read_prompts, split="train")], ids=["docqa", "own"])
def test_a_file_without_a_row(tmp_path, content, load):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ValueError, match="there is no row in .*rows.json'"):
        load(str(tmp_path / "rows.json"))


def test_an_edited_file_of_ones_own_is_read_again(tmp_path):
    """Of the same size and time of change, too: what an archive or `cp --preserve` leaves of another file."""
    for text in ("first", "other"):
        source = write_jsonl(tmp_path / "rows.jsonl", [{**own("train"), "prompt": text}])
        os.utime(source, (1e9, 1e9))
        assert read_prompts(source, "train")["prompt"][:] == [text]


def test_an_unreadable_line_is_named(tmp_path):
    good = json.dumps(docqa("x"))
    for number, line in enumerate(['{"cut": ', "5", "[1]", "nonsense", "[" * 100_000]):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(f"{good}\n\n{line}\n")
        for load in (load_docqa, partial(read_prompts, split="train")):
            with pytest.raises(ValueError, match=rf"{number}.jsonl' cannot be read as .jsonl: ValueError: line 3"):
                load(str(path))


def test_a_gold_that_looks_like_a_date_stays_text(tmp_path):
    row = {**memagent("When?"), "reward_model": {"style": "rule", "ground_truth": ["2020-05-01"]}}
    assert load_memagent(write_jsonl(tmp_path / "rows.jsonl", [row]))["answer"][:] == [["2020-05-01"]]
