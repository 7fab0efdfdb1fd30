"""
What this package uses of a library although the library does not promise it, one line each.

A contract fails with one line that says what was there, what is there now, and what stands on it.
"""

import ast
import inspect
import re
import textwrap
from importlib import import_module
from typing import Any, NamedTuple

from .paths import ROOT, TESTS


class Contract(NamedTuple):
    """
    A private or unexported name.

    `shape` is a signature `(a, b)`, or how one begins `(a, …)`; attributes that the source of a class or function
    sets, `sets .a .b`; names that an object has, `has .a .b`; pieces of its source in this order, `reads a ... b`; or
    its value, `= value`.
    """

    name: str
    shape: str
    use: str

    def check(self) -> None:
        found = shape_of(self.name, self.shape)
        assert found == self.shape, f"{self.name} is {found}, was {self.shape}. On it stands: {self.use}"


def resolve(name: str) -> Any:
    """The object that a dotted name stands for."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def shape_of(name: str, like: str) -> str:
    """What a name is now, told as the contract tells it."""
    try:
        found = resolve(name)
    except (AttributeError, ModuleNotFoundError) as error:
        return f"gone ({error})"
    if like.startswith("="):
        return f"= {found!r}"
    if like.startswith("has "):
        return "has " + " ".join(f".{n}" for n in re.findall(r"\.(\w+)", like) if hasattr(found, n))
    if like.startswith("sets "):
        assigned = {n.attr for n in ast.walk(tree_of(found)) if isinstance(n, ast.Attribute) and is_stored(n)}
        return "sets " + " ".join(f".{n}" for n in re.findall(r"\.(\w+)", like) if n in assigned)
    if like.startswith("reads "):
        source, pieces = inspect.getsource(found), like.removeprefix("reads ").split(" ... ")
        places = [source.find(piece) for piece in pieces]
        return "reads " + " ... ".join(p for _, p in sorted(zip(places, pieces, strict=True)) if p in source)
    signature = signature_of(found)
    if like.endswith(", …)"):  # the first ones, which are passed by position
        return like if (signature[:-1] + ",").startswith(like.removesuffix("…)").rstrip()) else signature
    return signature


def signature_of(found: Any) -> str:
    """Names of the parameters, in order."""
    if hasattr(found, "default") and hasattr(found.default, "_schema"):  # an operator of torch
        return "(" + ", ".join(argument.name for argument in found.default._schema.arguments) + ")"
    return "(" + ", ".join(p for p in inspect.signature(found).parameters if p != "self") + ")"


def tree_of(found: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(found)))


def is_stored(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store)


def all_contracts() -> dict[str, list[Contract]]:
    """Library to its contracts, read from the tests without importing a library."""
    found = {}
    for path in sorted((TESTS / "contracts").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTRACTS":
                calls = [Contract(*map(ast.literal_eval, call.args)) for call in node.value.elts]
                found[path.stem.removeprefix("test_")] = calls
    return found


def table() -> str:
    """The table of CONTRIBUTING.md."""
    rows = ["| library | what is private or unexported | what stands on it |", "|---|---|---|"]
    for library, contracts in all_contracts().items():
        rows += [f"| {library} | `{c.name.removeprefix(library + '.')}` | {c.use} |" for c in contracts]
    return "\n".join(rows)


BEGIN, END = "<!-- contracts: PYTHONPATH=tests python -m helpers.contracts -->\n", "\n<!-- end of contracts -->"


def contributing_with_table() -> str:
    """CONTRIBUTING.md with the table that the contracts make."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    page = contributing_with_table()
    (ROOT / "CONTRIBUTING.md").write_text(page, encoding="utf-8")
