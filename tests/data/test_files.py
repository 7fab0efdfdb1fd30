"""Which files are a split."""

import pytest
from datasets import Dataset, DatasetDict

from helpers.data import FIXTURES, write_jsonl
from helpers.marked_rows import LOADERS, memagent, own
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


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_has_the_splits_that_datasets_finds(tmp_path, layout):
    folder = lay_out(tmp_path / "rows", layout, own)
    splits = {split for split in layout.values() if split != README}
    for split in splits:
        prompts = read_source(folder, split)["prompt"][:]
        assert prompts == [split] * list(layout.values()).count(split)
    with pytest.raises(ValueError, match="has no split 'nowhere' but '.*choose one of them"):
        read_source(folder, "nowhere")


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


def test_the_fixtures_are_one_split_each():
    assert find_files(str(FIXTURES / "docqa.jsonl"), "anything") == [str(FIXTURES / "docqa.jsonl")]
    assert find_files("someone/on-the-hub", "train") is None


def test_what_cannot_be_opened_is_named(tmp_path):
    folder = tmp_path / "rows"
    source = lay_out(folder, {"a.jsonl": "?"}, own)
    (folder / "b.jsonl").mkdir()  # of no concern
    assert find_files(source, "train") == [f"{folder}/a.jsonl"]
    (folder / "c.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(ValueError, match="c.jsonl' cannot be read as .jsonl: .*No such file"):
        read_prompts(str(folder), "train")
    Dataset.from_list([own("train")]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="saved' cannot be read as what save_to_disk writes: "):
        read_prompts(str(tmp_path / "saved"), "train")
