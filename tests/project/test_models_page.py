"""docs/models.md is what the last run of the matrix found, of every family there is, and a sample is found again."""

import csv
import importlib
import importlib.util

import pytest

from helpers.families import FAMILIES
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    with (ROOT / "docs" / "models.tsv").open() as file:
        return {row["family"]: row for row in csv.DictReader(file, delimiter="\t")}


@pytest.fixture
def benchmark(monkeypatch):
    """`benchmarks/families.py`, which sets these for its own processes."""
    for name, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        monkeypatch.setenv(name, value)
    return importlib.import_module("families")


def test_it_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "docs" / "make_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "models.md").read_text() == module.page(), "run `python docs/make_models.py`"


def test_it_has_every_family(rows):
    assert set(FAMILIES) <= rows.keys(), "run `python benchmarks/families.py` with the missing ones"


@pytest.mark.parametrize("family", FAMILIES[::8])
def test_projections_and_sharing_are_what_the_configuration_says(family, rows, benchmark):
    row = rows[family]
    if not row["projections"].startswith("Q in "):
        with pytest.raises(ValueError):
            benchmark.projections(family)
        return
    assert benchmark.projections(family) == row["projections"]
    shared = [row[column] for column in (benchmark.WITHIN, benchmark.ACROSS)]
    assert (shared == ["-", "-"]) == (not benchmark.is_shared(family)), shared


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt2", "mamba2"])
def test_everything_is_found_again(family, rows, benchmark):
    assert benchmark.examine(family) == rows[family]
