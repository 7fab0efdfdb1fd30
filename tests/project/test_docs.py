"""Pages made from the code are up to date, links lead somewhere, and messages quoted in the docs exist."""

import importlib.util
import re

import huggingface_hub.constants
import pytest

from helpers.paths import ROOT


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def make_reference():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration.md", "paper_index.md", "memory_guide.md", "runs_checked.md"])
def test_pages_made_from_the_code_are_up_to_date(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the shipped copies of Qwen3's config
    page = make_reference().PAGES[name]()
    assert (ROOT / "docs" / name).read_text() == page, "run `python docs/make_reference.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_docs_exist(page):
    """`recipes/x.py`, `tests/…` and the like."""
    folders = "recipes|tests|benchmarks|accelerate_configs|longact_trl|docs|notebooks"
    for name in re.findall(rf"[`\s]((?:{folders})/[\w/.-]*\.(?:py|yaml|md|png|ipynb|sbatch))\b", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_messages_in_troubleshooting_are_ours():
    """Each heading quotes a part of a message; the code must still say it, whatever values it fills in."""
    source = "".join(p.read_text() for p in sorted((ROOT / "longact_trl").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?r?"', "", source)  # a literal broken over lines
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert headings
    for heading in headings:
        for part in heading.split("…"):
            assert part.strip() in source, part
