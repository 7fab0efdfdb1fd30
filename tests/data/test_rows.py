import shutil
import subprocess
import sys

import pytest

from helpers.data import read_fixture, write_jsonl
from helpers.paths import FIXTURES
from longact_trl.data import rows as rows_module
from longact_trl.data import source as source_module
from longact_trl.data.memagent import load_memagent
from longact_trl.data.rows import InvalidRow, rl_row, sft_row
from longact_trl.data.source import read_source


USER = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize("source", ["./missing.jsonl", "missing.parquet", "/nowhere/at/all", "~/nothing_here_at_all"])
def test_a_path_with_nothing_there_is_no_hub_id(source):
    with pytest.raises(ValueError, match=f"source '{source}' is no .jsonl, .json, .parquet file and no folder"):
        read_source(source, "train")


def test_a_folder_must_hold_files_of_one_kind(tmp_path):
    with pytest.raises(ValueError, match="finds none: name the files in data_files"):
        read_source(str(tmp_path), "train")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "b.parquet").write_text("")
    with pytest.raises(ValueError, match=r"finds \['.jsonl', '.parquet'\]"):
        read_source(str(tmp_path), "train")
    assert read_source(str(tmp_path), "train", data_files="*.jsonl")["a"][:] == [1]


def test_named_files_of_the_hub_are_one_split(monkeypatch):
    asked = []
    monkeypatch.setattr(source_module, "load_dataset", lambda name, **options: asked.append((name, options["split"])))
    read_source("someone/rows", "test")
    read_source("someone/rows", "test", data_files="test.parquet")
    assert asked == [("someone/rows", "test"), ("someone/rows", "train")]


@pytest.mark.parametrize(
    "golds, kind, reason",
    [
        ([], "string", "no gold answer"),
        (["a", " "], "string", "no gold answer"),
        (["a", None], "string", "no gold answer"),
        (["many"], "number", "unusable gold answer: the gold answer 'many' is no number"),
        (["a</answer>"], "string", "gold answer that its own reward does not accept"),
        (["a", "b\nc"], "list", "unusable gold answer: .*one line"),
    ],
)
def test_a_gold_that_its_reward_cannot_score_is_no_row(golds, kind, reason):
    with pytest.raises(InvalidRow, match=reason):
        rl_row(USER, golds, kind, "t")


def test_an_empty_prompt_is_no_row():
    for prompt in ([], [{"role": "user", "content": " "}]):
        with pytest.raises(InvalidRow, match="prompt is empty"):
            rl_row(prompt, ["a"], "string", "t")
        with pytest.raises(InvalidRow, match="prompt is empty"):
            sft_row(prompt, "<think></think><answer>a</answer>", "t")


@pytest.mark.parametrize("share", [-0.1, 1.5, 5])
def test_max_bad_share_is_a_share(share):
    with pytest.raises(ValueError, match=f"from 0 to 1 .* but is {share}"):
        load_memagent(str(FIXTURES / "memagent.jsonl"), max_bad_share=share)


def test_a_file_of_bad_rows_alone_stops_even_if_all_may_be_bad(tmp_path):
    source = write_jsonl(tmp_path / "bad.jsonl", read_fixture("memagent.jsonl")[6:7])
    with pytest.raises(ValueError, match="has no usable row"):
        load_memagent(source, max_bad_share=1.0)


def test_rows_are_converted_once_and_again_when_the_code_has_changed(monkeypatch, tmp_path):
    source = write_jsonl(tmp_path / "some.jsonl", read_fixture("memagent.jsonl")[:6])
    calls = tmp_path / "calls"
    real = rows_module.rl_row

    def count(*args):
        with calls.open("a") as file:
            file.write("x")
        return real(*args)

    monkeypatch.setattr("longact_trl.data.memagent.rl_row", count)
    for _ in range(2):
        load_memagent(source)
    assert len(calls.read_text()) == 6
    monkeypatch.setattr(rows_module, "code_hash", lambda function: "other code")
    load_memagent(source)
    assert len(calls.read_text()) == 12


MEASURE = """
import sys
import tracemalloc
import datasets
import pyarrow
from helpers.data import word_tokenizer
from longact_trl.data.length import apply_length_policy
from longact_trl.data.memagent import load_memagent

datasets.config.HF_DATASETS_CACHE = sys.argv[2]
datasets.disable_progress_bars()
tracemalloc.start()
rows = load_memagent(sys.argv[1])
rows = apply_length_policy(rows, word_tokenizer(), 120, policy="truncate_middle", num_proc=1)
assert len(rows[0]["prompt"]) == 1
# What Python and Arrow hold at most. Files mapped from disk do not count: the kernel may drop their pages.
peaks = tracemalloc.get_traced_memory()[1], pyarrow.default_memory_pool().max_memory()
print(len(rows), *(peak // 2**20 for peak in peaks))
"""


def test_memory_does_not_grow_with_rows(tmp_path):
    row = read_fixture("memagent.jsonl")[0]
    contexts = [
        "Document 1:\nTitle\n" + words for words in ("Word" * 2000, f"{'Word' * 25} " * 80)
    ]  # 8 kB, few tokens
    peaks = {}
    for count in (1_500, 3_500):
        rows = ({**row, "context": contexts[i % 10 == 0], "extra_info": {"index": i}} for i in range(count))
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        command = [sys.executable, "-c", MEASURE, path, str(tmp_path / "cache")]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        length, *peaks[count] = map(int, output.split())
        assert length == count
        shutil.rmtree(tmp_path / "cache")
    # 12 MB and 28 MB of rows: were they held, a peak would grow by 16 MB. Both are more than the reader's blocks of
    # 10 MB. Measured: 9 MB in Python and 1 MB in Arrow for either.
    python, arrow = (large - small for small, large in zip(peaks[1_500], peaks[3_500], strict=True))
    assert python < 8 and arrow < 8, peaks
