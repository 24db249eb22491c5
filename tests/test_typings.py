"""Test that the type stubs in `typings` say what the installed pyarrow is like."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STUBS = Path(__file__).parents[1] / "typings"
_NOT_THERE = object()


def module_name(path: Path) -> str:
    """The module that a stub file is of."""
    parts = path.relative_to(STUBS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def differences(tree: ast.Module | ast.ClassDef, real: Any, place: str) -> Iterator[str]:
    """Says what of a module or class in a stub is not there, or is another kind of thing."""
    for node in tree.body:
        for name in names(node):
            found = inspect.getattr_static(real, name, _NOT_THERE)
            if found is _NOT_THERE and not is_set_by_constructor(real, name):
                yield f"{place}.{name} is not there"
            elif isinstance(node, ast.ClassDef):
                yield from differences(node, found, f"{place}.{name}")
            elif isinstance(node, ast.FunctionDef):
                yield from parameter_differences(node, found, f"{place}.{name}")


def names(node: ast.stmt) -> list[str]:
    """The names that a statement declares; private ones are the stub's own."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        found = [node.target.id]
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        found = [node.name]
    else:
        found = []
    # pyarrow's buffers have it without its name, which is of Python 3.12.
    return [name for name in found if (is_special(name) or name[0] != "_") and name != "__buffer__"]


def is_set_by_constructor(real: Any, name: str) -> bool:
    """Whether a class written in Python gives its objects an attribute when they are made."""
    code = getattr(getattr(real, "__init__", None), "__code__", None)
    return code is not None and name in code.co_names


def is_special(name: str) -> bool:
    """Whether Python itself calls it."""
    return name.startswith("__") and name.endswith("__")


def parameter_differences(node: ast.FunctionDef, real: Any, place: str) -> Iterator[str]:
    """Says which parameters are not there, and which are in another order."""
    try:
        found = inspect.signature(getattr(real, "__func__", real)).parameters.values()
    except (TypeError, ValueError):  # compiled without its signature
        return
    if is_special(node.name) or any(each.kind is each.VAR_POSITIONAL for each in found):
        return
    rest = any(each.kind is each.VAR_KEYWORD for each in found)
    known = [each.name for each in found]
    listed = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    places = [known.index(name) for name in listed if name in known]
    for name in (*listed, *(each.arg for each in node.args.kwonlyargs)):
        if name not in known and not rest:
            yield f"{place} has no parameter {name}"
    if places != sorted(places):
        yield f"{place} has its parameters in another order"


@pytest.mark.parametrize("path", sorted(STUBS.rglob("*.pyi")), ids=module_name)
def test_the_installed_package_has_every_name_of_its_stubs(path: Path) -> None:
    """Modules, classes, methods and parameters that a stub declares exist in the package."""
    name = module_name(path)
    tree = ast.parse(path.read_text())
    assert list(differences(tree, importlib.import_module(name), name)) == []


def test_what_is_not_there_is_named() -> None:
    """A stub of a name, a method and a parameter that pyarrow lacks is found out."""
    stub = """
class Array:
    def cast(self, target_type, gently=False): ...
    def polish(self): ...
def polish(): ...
"""
    real = importlib.import_module("pyarrow")
    assert list(differences(ast.parse(stub), real, "pyarrow")) == [
        "pyarrow.Array.cast has no parameter gently",
        "pyarrow.Array.polish is not there",
        "pyarrow.polish is not there",
    ]
