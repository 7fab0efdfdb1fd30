"""Every private name that the package uses has a contract, and CONTRIBUTING.md says which there are."""

import ast

from helpers.contracts import all_contracts, contributing_with_table
from helpers.paths import ROOT


LIBRARIES = set(all_contracts()) | {"huggingface_hub"}
DOCUMENTED = {  # modules below a library's top that its documentation tells users to import
    *("accelerate.utils", "datasets.exceptions", "datasets.utils.logging", "huggingface_hub.errors"),
    *("huggingface_hub.utils", "lm_eval.api.task", "lm_eval.tasks", "torch.distributed", "torch.distributed.tensor"),
    *("torch.nn", "torch.nn.utils.rnn", "torch.utils.data", "transformers.utils", "trl.rewards", "vllm.lora.request"),
}
OF_PYTHON = {"_asdict", "_replace", "_fields", "_exit"}


def sources() -> list[tuple[str, ast.AST]]:
    files = [*(ROOT / "longact_trl").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
    return [(file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def names_in_contracts() -> set[str]:
    """Names, and the attributes that a shape lists."""
    found = set()
    for contract in (c for contracts in all_contracts().values() for c in contracts):
        owner, _, last = contract.name.rpartition(".")
        found |= {contract.name, owner, last}
        if contract.shape.startswith(("sets ", "has ")):
            found |= {part.strip() for part in contract.shape.split(".")[1:]}
    return found


def test_every_unexported_import_has_a_contract():
    missing, named = set(), names_in_contracts()
    for file, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] in LIBRARIES:
                private = "." in node.module and node.module not in DOCUMENTED
                names = [f"{node.module}.{alias.name}" for alias in node.names if private or alias.name[0] == "_"]
                missing |= {(file, name) for name in names if name not in named and name.split(".")[-1] not in named}
    assert not missing


def test_every_private_attribute_of_others_has_a_contract():
    ours, used, named = set(), set(), names_in_contracts()
    for file, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                of_super = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
                used.add((file, node.attr, of_super))
                if isinstance(node.ctx, ast.Store):
                    ours.add(node.attr)
            elif isinstance(node, ast.AnnAssign):  # of an object, or a field of a dataclass
                ours.add(node.target.attr if isinstance(node.target, ast.Attribute) else ast.unparse(node.target))
    missing = {(f, name) for f, name, of_super in used if (of_super or name not in ours) and name not in named}
    assert not {(file, name) for file, name in missing if name not in OF_PYTHON}


def test_contributing_has_the_table():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert page == contributing_with_table(), "run `PYTHONPATH=tests python -m helpers.contracts`"
