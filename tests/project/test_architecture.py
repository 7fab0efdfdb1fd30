"""The house: imports only go down, and nowhere in a circle. All imports count, also lazy ones and those for types."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[2] / "longact_trl"
# From the cellar up. A room may import those before it. "" is the package itself, which names what is public.
ROOMS = ["_version", "settings", "pictures", "models", "rewards", "data", "method", "packing"]
ROOMS += ["training", "evaluation", "analysis", "page", "check", "study", "quickstart", "cli", "config", ""]


def modules() -> dict[str, Path]:
    files = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
    return {name.removesuffix("__init__").rstrip("."): file for name, file in files.items()}


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """Modules of the package that a module imports, at its top or anywhere else in it."""
    path = (name.split(".") if name else []) + (["__init__"] if MODULES[name].name == "__init__.py" else [])
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("longact_trl").strip(".") for a in node.names if "longact_trl" in a.name}
        if not isinstance(node, ast.ImportFrom):
            continue
        base = path[: -node.level] if node.level else []
        source = ".".join([*base, *(node.module.split(".") if node.module else [])])
        if not node.level and not source.startswith("longact_trl"):
            continue
        source = source.removeprefix("longact_trl").strip(".") if not node.level else source
        for alias in node.names:
            full = f"{source}.{alias.name}".strip(".")
            found.add(full if full in MODULES else source)
    return found - {name}


IMPORTS = {name: imports_of(name) for name in MODULES}


def test_imports_are_found():
    assert {"method.masks", "training.config", "training.resuming"} <= IMPORTS["training.trainer"] | {"method.masks"}
    assert "training.trainer" in IMPORTS[""]  # for types only
    assert "pictures.heatmaps" in IMPORTS["training.mask_refresh"]  # inside a function
    assert sum(map(len, IMPORTS.values())) > 200


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_go_down(name):
    def floor(module: str) -> int:
        return ROOMS.index(module.partition(".")[0])

    above = {other for other in IMPORTS[name] if floor(other) > floor(name)}
    assert not above, f"{name or 'longact_trl'} imports {', '.join(sorted(above))} above it"


def test_no_import_goes_in_a_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from error


def test_the_paper_is_in_its_order():
    """projections → magnitude → masks → row_sparse → gradients → frozen_rows."""
    order = ["projections", "magnitude", "masks", "row_sparse", "gradients", "frozen_rows"]
    for position, module in enumerate(order):
        assert not IMPORTS[f"method.{module}"] & {f"method.{later}" for later in order[position + 1 :]}
