"""
A library's argument class as its source declares it: names, types and defaults of the fields, without importing it.

Importing TRL's `GRPOConfig` takes torch and transformers along, many seconds before a typo could be told.
"""

import ast
import warnings
from dataclasses import MISSING, field, make_dataclass
from enum import Enum
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Any, Literal


HOMES = {
    ("transformers", "TrainingArguments"): "transformers.training_args",
    ("trl", "GRPOConfig"): "trl.trainer.grpo_config",
    ("trl", "SFTConfig"): "trl.trainer.sft_config",
    ("trl", "ScriptArguments"): "trl.scripts.utils",
}
"""Modules of classes that are imported from a package which only passes them on."""
PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list, "tuple": tuple, "Any": Any}


@cache
def declared_class(module: str, name: str) -> type:
    """
    A dataclass with the fields of a class, its bases' included, and nothing else of it.

    Args:
        module (`str`):
            Module that defines or imports the class, e.g. `"trl"`.
        name (`str`):
            Its name, e.g. `"GRPOConfig"`.

    Returns:
        `type`: Dataclass of the same name. A default that is computed is `None`, a type that is not plain `Any`.

    Raises:
        `LookupError`: If the source is not where it was, or not of the form that is read.
    """
    try:
        return make_dataclass(name, [(key, *rest) for key, rest in _fields_of(module, name).items()])
    except (OSError, SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise LookupError(f"The fields of {module}.{name} cannot be read from its source: {error}") from error


@cache
def declared_parameters(module: str, name: str) -> dict[str, Any]:
    """
    Names and types of what a function of this package takes; arguments as in [`declared_class`].

    Returns:
        `dict[str, Any]`: A type that is not plain is `Any`.
    """
    [function] = (line for line in _tree(module).body if isinstance(line, ast.FunctionDef) and line.name == name)
    return {argument.arg: _type_of(argument.annotation, module) for argument in function.args.args}


def declared_names(module: str, name: str) -> set[str]:
    """
    What a class is told: its own fields and what its `__init__` takes; arguments as in [`declared_class`].

    Returns:
        `set[str]`: Nothing where the source is not where it was.
    """
    try:
        body = _definition(module, name)[1].body
    except (OSError, SyntaxError, AttributeError, TypeError, LookupError):
        return set()
    fields = {line.target.id for line in body if isinstance(line, ast.AnnAssign)}
    functions = [line for line in body if isinstance(line, ast.FunctionDef) and line.name == "__init__"]
    return fields.union(*({argument.arg for argument in part.args.args} for part in functions)) - {"self"}


def assigned(module: str, name: str) -> ast.expr:
    """
    What a module of a library assigns to a name; arguments as in [`declared_class`].

    Raises:
        `LookupError`: If the source is not where it was, or assigns nothing to it.
    """
    try:
        body = _tree(module).body
    except (OSError, SyntaxError, AttributeError, TypeError) as error:
        raise LookupError(f"{module} cannot be read: {error}") from error
    for line in body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return line.value
    raise LookupError(f"{module} assigns nothing to {name}.")


def run_own_checks(module: str, name: str, args: Any) -> None:
    """
    Run what a class checks when it is made, without what its bases check: `__post_init__` as its source has it.

    The source is that of the installed library, found as an import finds it; no file of a user is run.

    Args:
        module, name (`str`):
            As in [`declared_class`].
        args (`Any`):
            Object with the fields of the class, which are filled in as the class does.

    Raises:
        `LookupError`: If it cannot be run on the fields alone. The class itself finds out later.
        `ValueError`: What the class says of a mistake.
    """
    _, found = _definition(module, name)
    for function in found.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__post_init__":
            body = [line for line in function.body if "super()" not in ast.unparse(line)]
            source = ast.Module([ast.FunctionDef(function.name, function.args, body, [])], [])
            names = {"warnings": warnings}
            exec(compile(ast.fix_missing_locations(source), module, "exec"), names)
            try:
                with warnings.catch_warnings(action="ignore"):  # they come again
                    names[function.name](args)
            except ValueError as error:  # the message is the library's, the mistake the user's
                raise ValueError(str(error)) from error
            except Exception as error:
                raise LookupError(f"The checks of {module}.{name} need more than its fields: {error}") from error


def _fields_of(module: str, name: str) -> dict[str, tuple]:
    module, found = _definition(module, name)
    fields: dict[str, tuple] = {}
    for base in found.bases:
        fields |= _fields_of(module, base.id)
    for line in found.body:
        if isinstance(line, ast.AnnAssign) and not line.target.id.startswith("_"):
            fields[line.target.id] = (_type_of(line.annotation, module), _default_of(line.value))
    return fields


def _definition(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """The class as it is defined, and in which module."""
    module = HOMES.get((module, name), module)
    for line in _tree(module).body:
        if isinstance(line, ast.ClassDef) and line.name == name:
            return module, line
        if isinstance(line, ast.ImportFrom) and name in (alias.name for alias in line.names):
            package = module.split(".")[: -line.level] if line.level else []
            return _definition(".".join([*package, *filter(None, [line.module])]), name)
    raise LookupError(f"{module} has no class {name}.")


@cache
def _tree(module: str) -> ast.Module:
    package, *path = module.split(".")
    file = Path(find_spec(package).submodule_search_locations[0], *path)
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _type_of(annotation: ast.expr, module: str) -> Any:
    match annotation:
        case ast.Constant(value=None):
            return type(None)
        case ast.BinOp(op=ast.BitOr()):
            return _type_of(annotation.left, module) | _type_of(annotation.right, module)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return Literal[ast.literal_eval(annotation.slice)]
        case ast.Subscript(value=ast.Name(id="Optional")):
            return _type_of(annotation.slice, module) | None
        case ast.Subscript(value=ast.Name(id="Union")):
            return reduce(or_, (_type_of(part, module) for part in annotation.slice.elts))
        case ast.Subscript(value=ast.Name(id="list" | "dict" | "tuple" as outer)):
            inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            return PLAIN[outer][tuple(_type_of(part, module) for part in inner)]
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Name(id=name):
            return _enum(module, name)
    return Any


def _enum(module: str, name: str) -> Any:
    try:
        _, found = _definition(module, name)
    except (LookupError, OSError, AttributeError):
        return Any
    if not any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in found.bases):
        return Any
    members = {line.targets[0].id: line.value.value for line in found.body if isinstance(line, ast.Assign)}
    return Enum(name, members)


def _default_of(value: ast.expr | None) -> Any:
    """What `dataclasses.field` makes the same default of; the help, where it is a plain text, stays."""
    if value is None:
        return field()
    if not isinstance(value, ast.Call):
        return field(default=_literal(value))
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    metadata = _literal(given["metadata"]) if "metadata" in given else None
    metadata = metadata if isinstance(metadata, dict) else {}
    if "default" in given:
        return field(default=_literal(given["default"]), metadata=metadata)
    if "default_factory" in given:
        return field(default=None, metadata=metadata)
    return field(default=MISSING, metadata=metadata)


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None
