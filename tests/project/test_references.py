"""What docstrings and comments refer to is there: [`names`], files, and folders of the package."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "longact_trl"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "recipes").glob("*.py")])
FOLDERS = ("longact_trl", "recipes", "accelerate_configs", "benchmarks", "docs", "tests")
FILES = {file.relative_to(ROOT).as_posix() for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")}
LIBRARIES = ("trl", "transformers", "huggingface_hub", "accelerate", "datasets", "peft")
# Files of the benchmarks' own code, and of a user's run.
NOT_OURS = re.compile(
    r"(src|scripts)/.+|eval_\w+\.py|(pred|result|evaluate|data/construct_synthetic_dataset)\.py|.*NAME.yaml"
)
RESULTS = {"OUTPUT.md", "perturb.md", "study.md"}


def qualified_names() -> set[str]:
    """`room.module.name`, classes' methods included."""
    names = set()
    for file in PACKAGE.rglob("*.py"):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        names.add(module)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and file.name == "__init__.py":  # what a room shows of itself
                names |= {f"{module}.{alias.asname or alias.name}" for alias in node.names}
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names |= {f"{module}.{target.id}" for target in targets if isinstance(target, ast.Name)}
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(f"{module}.{node.name}")
                names |= {f"{module}.{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return names


NAMES = qualified_names()


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_names_in_docstrings_are_defined(source):
    for name in re.findall(r"\[`~?([A-Za-z_.]+)`\]", source.read_text()):
        library, _, path = name.partition(".")
        if library in LIBRARIES:
            found = import_module(library)
            for part in path.split("."):
                found = getattr(found, part)
            continue
        name = name.removeprefix("longact_trl.")
        assert any(f".{known}".endswith(f".{name}") for known in NAMES), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_files_named_in_docstrings_exist(source):
    for name in re.findall(r"`([\w/.-]+\.(?:py|yaml|md))\b", source.read_text()):
        assert NOT_OURS.fullmatch(name) or name in RESULTS or any(f"/{file}".endswith(f"/{name}") for file in FILES), (
            name
        )
