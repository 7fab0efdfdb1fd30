"""docs/models.md is what the last run of the matrix found, of every family there is."""

import csv
import importlib.util

from helpers.families import FAMILIES
from helpers.paths import ROOT


def test_it_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "docs" / "make_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "models.md").read_text() == module.page(), "run `python docs/make_models.py`"


def test_it_has_every_family():
    with (ROOT / "docs" / "models.tsv").open() as file:
        rows = {row["family"] for row in csv.DictReader(file, delimiter="\t")}
    assert set(FAMILIES) <= rows, "run `python benchmarks/families.py` with the missing ones"
