"""Which files are a split, and rows that do not agree on what nobody reads."""

import json
from functools import partial

import pytest
from datasets import Dataset, DatasetDict

from helpers.data import FIXTURES, read_fixture, write_jsonl
from longact_trl.data.am_deepseek import load_am_deepseek
from longact_trl.data.docqa import load_docqa
from longact_trl.data.files import find_files
from longact_trl.data.memagent import load_memagent
from longact_trl.data.rows import read_prompts
from longact_trl.data.source import read_source


README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: a.jsonl
  - split: test
    path: b.jsonl
---
"""
LAYOUTS = {
    "names": {"train.jsonl": "train", "test.jsonl": "test"},
    "json": {"train.json": "train", "test.json": "test"},
    "parquet": {"train.parquet": "train", "test.parquet": "test"},
    "shards": {"data/train-00000-of-00002.parquet": "train", "data/train-00001-of-00002.parquet": "train"}
    | {"data/test-00000-of-00001.parquet": "test"},
    "folders": {"train/a.jsonl": "train", "train/b.jsonl": "train", "test/a.jsonl": "test"},
    "words": {"docqa_train_32k.parquet": "train", "docqa-eval.parquet": "test"},
    "nested": {"en/train.jsonl": "train", "en/test.jsonl": "test"},
    "training": {"training.jsonl": "train", "testing.jsonl": "test"},
    "own": {"data/train-00000-of-00001.jsonl": "train", "data/hard-00000-of-00001.jsonl": "hard"},
    "readme": {"a.jsonl": "train", "b.jsonl": "test", "README.md": README},
    "validation": {"train.jsonl": "train", "dev.jsonl": "validation"},
}


def lay_out(folder, layout, row):
    """One row in each file, marked with its split."""
    for name, split in layout.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "README.md":
            path.write_text(split)
        elif path.suffix == ".parquet":
            Dataset.from_list([row(split)]).to_parquet(path)
        else:
            write_jsonl(path, [row(split)])
    return str(folder)


def own(split):
    return {"prompt": split, "answer": "a"}


def docqa(split):
    row = json.loads(json.dumps(read_fixture("docqa.jsonl")[0]))
    return {**row, "prompt": [{"role": "user", "content": split}]}


def memagent(split):
    row = read_fixture("memagent.jsonl")[0]
    return {**row, "prompt": [{"role": "user", "content": split}]}


def am_deepseek(split):
    return {**read_fixture("am_deepseek.jsonl")[0], "system": split}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_has_the_splits_that_datasets_finds(tmp_path, layout):
    folder = lay_out(tmp_path / "rows", layout, own)
    splits = {split for split in layout.values() if split != README}
    for split in splits:
        prompts = read_source(folder, split)["prompt"][:]
        assert prompts == [split] * list(layout.values()).count(split)
    with pytest.raises(ValueError, match="has no split 'nowhere' but '.*choose one of them"):
        read_source(folder, "nowhere")


LOADERS = {"own": (read_prompts, own), "docqa": (load_docqa, docqa), "memagent": (load_memagent, memagent)}
LOADERS["am_deepseek"] = (partial(load_am_deepseek, category="all"), am_deepseek)


@pytest.mark.parametrize("name", LOADERS)
def test_no_loader_trains_on_the_test_rows(tmp_path, name):
    load, row = LOADERS[name]
    folder = lay_out(tmp_path / "rows", LAYOUTS["names"], row)
    for split, other in (("train", "test"), ("test", "train")):
        prompts = str(load(folder, split=split)["prompt"][:])
        assert split in prompts and other not in prompts
    with pytest.raises(ValueError, match="has no split 'validation' but 'train', 'test'"):
        load(folder, split="validation")
    assert len(load(f"{folder}/test.jsonl", split="train")) == 1  # a file is what it is


def test_a_copy_of_memagents_repository(tmp_path):
    layout = {"hotpotqa_train_32k.parquet": "train", "hotpotqa_dev.parquet": "validation", "eval_50.json": "test"}
    folder = lay_out(tmp_path / "hotpotqa", layout, memagent)
    for split in ("train", "validation"):
        [row] = load_memagent(folder, split=split)
        assert f"Question: {split}" in row["prompt"][0]["content"]


def test_files_without_a_split_are_one(tmp_path):
    folder = lay_out(tmp_path / "rows", {"math.jsonl": "a", "code.jsonl": "b", "sub/more.jsonl": "c"}, own)
    for split in ("train", "test"):
        assert sorted(read_source(folder, split)["prompt"]) == ["a", "b"]
    nested = lay_out(tmp_path / "nested", {"x/math.jsonl": "a", "x/code.jsonl": "b"}, own)
    (tmp_path / "link").symlink_to(nested)
    for source in (nested, str(tmp_path / "link")):
        assert sorted(read_source(source, "train")["prompt"]) == ["a", "b"]


@pytest.mark.parametrize(
    "names",
    [("trainset.jsonl", "testset.jsonl"), ("TRAIN.jsonl", "TEST.jsonl"), ("rows.jsonl", "rows_holdout.jsonl")]
    + [("myTrain.jsonl", "myTest.jsonl"), ("qatrain.jsonl", "qatest.jsonl"), ("rows.jsonl", "held_out.jsonl")]
    + [("x/hotpottrain.jsonl", "x/hotpotdev.jsonl"), ("训练.jsonl", "测试.jsonl"), ("rows.jsonl", "unseen.jsonl")],
)
def test_files_that_may_be_splits_are_not_mixed(tmp_path, names):
    folder = lay_out(tmp_path / "rows", dict.fromkeys(names, "?"), own)
    with pytest.raises(ValueError, match="names sound held out"):
        read_source(folder, "train")


@pytest.mark.parametrize("names", [("contest.jsonl", "rows.jsonl"), ("medieval.jsonl", "latest.jsonl")])
def test_names_that_only_hold_such_a_word_are_one_split(tmp_path, names):
    assert len(find_files(lay_out(tmp_path / "rows", dict.fromkeys(names, "?"), own), "train")) == 2


def test_a_file_of_two_splits_is_not_trained_on(tmp_path):
    folder = lay_out(tmp_path / "rows", dict.fromkeys(("train.jsonl", "train_val.jsonl"), "?"), own)
    with pytest.raises(ValueError, match="takes for a part of two splits, 'train_val.jsonl'"):
        find_files(folder, "train")


def test_one_kind_of_file_for_each_split(tmp_path):
    folder = lay_out(tmp_path / "rows", {"train.jsonl": "train", "test.parquet": "test"}, own)
    with pytest.raises(ValueError, match="splits of the folder .* cannot be told apart(.|\n)*Give one file"):
        read_source(folder, "train")
    assert find_files(folder, "train", data_files="train.jsonl") == [f"{folder}/train.jsonl"]


def test_a_folder_of_save_to_disk(tmp_path):
    train, test = (Dataset.from_list([own(split)]) for split in ("train", "test"))
    DatasetDict(train=train, test=test).save_to_disk(tmp_path / "both")
    train.save_to_disk(tmp_path / "one")
    assert [read_prompts(str(tmp_path / "both"), split)["prompt"][:] for split in ("train", "test")] == [
        ["train"],
        ["test"],
    ]
    assert read_prompts(str(tmp_path / "one"), "train")["prompt"][:] == ["train"]
    with pytest.raises(ValueError, match="has no split 'dev' but 'train', 'test'"):
        read_prompts(str(tmp_path / "both"), "dev")


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
    for text in ("first", "second"):
        source = write_jsonl(tmp_path / "rows.jsonl", [{**own("train"), "prompt": text}])
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


def test_the_fixtures_are_one_split_each():
    assert find_files(str(FIXTURES / "docqa.jsonl"), "anything") == [str(FIXTURES / "docqa.jsonl")]
    assert find_files("someone/on-the-hub", "train") is None
