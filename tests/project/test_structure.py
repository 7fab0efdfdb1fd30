"""How the tests themselves are built."""

import ast

import pytest

from helpers.paths import TESTS


FILES = sorted(TESTS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_is_imported(path):
    """Not by another one and not by a helper: what is shared is in tests/helpers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert not module.rpartition(".")[2].startswith(("test_", "conftest")), f"line {node.lineno}: {module}"
