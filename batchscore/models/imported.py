"""Which files user code imports: read from its text, so that no branch has to run for it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

from batchscore.models.modules import Module, Tree, parts_of

_CALLS = ("import_module", "__import__")
# Names are tuples of parts; relative ones start at the base.
_Name = tuple[bool, tuple[str, ...]]


def imported_files(base: str, file: str) -> dict[str, bytes]:
    """Returns a file and all files below the folder that it imports, by their path from there.

    An import counts wherever it is written: in a function, in a branch that does not run, or as
    `importlib.import_module` of a literal. The files of packages on the way count too. A file that
    is missing or lies outside is left out.
    """
    root = Path(base).resolve()
    path = (root / file).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return {}
    entry = path.relative_to(root).as_posix()
    tree = Tree(root, tuple(entry.split("/")[:-1]))
    found: dict[str, bytes] = {}
    waiting = [Module(parts_of(entry), entry, entry.endswith("__init__.py"))]
    waiting += tree.chain((), waiting[0].parts[:-1])
    while waiting:
        module = waiting.pop()
        if module.file is not None and module.file not in found:
            found[module.file] = (root / module.file).read_bytes()
            waiting += _imports(tree, module, found[module.file])
    return dict(sorted(found.items()))


def _imports(tree: Tree, module: Module, source: bytes) -> Iterator[Module]:
    package = module.parts if module.is_package else module.parts[:-1]
    for is_absolute, parts in _names(_parse(source), package):
        top = tree.find_top(parts[0]) if is_absolute and parts else None
        if top is not None:
            yield from tree.chain(top.parts, parts[1:])
        elif not is_absolute:
            yield from tree.chain((), parts)


def _parse(source: bytes) -> ast.AST:
    """Returns the tree of a source; an empty one for what is not Python, as its import will say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module([], [])


def _names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[_Name]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((True, tuple(each.name.split("."))) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(node, package)
        elif isinstance(node, ast.Call) and _called(node.func) in _CALLS:
            yield from _literal(node, package)
    # `from package import *` imports the modules that its `__all__` names.
    if any(isinstance(node, ast.Name) and node.id == "__all__" for node in ast.walk(tree)):
        yield from ((False, (*package, text)) for text in _texts(tree))


def _texts(tree: ast.AST) -> Iterator[str]:
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return (value for value in values if isinstance(value, str))


def _from(node: ast.ImportFrom, package: tuple[str, ...]) -> Iterator[_Name]:
    named = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        named = (*package[: len(package) - node.level + 1], *named)
    yield not node.level, named
    yield from ((not node.level, (*named, each.name)) for each in node.names)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _literal(node: ast.Call, package: tuple[str, ...]) -> Iterator[_Name]:
    """Yields what `import_module("a.b")` names, or `import_module(".b", "a")`."""
    given = [*node.args, *(each.value for each in node.keywords)]
    texts = [each.value if isinstance(each, ast.Constant) else None for each in given]
    if not texts or not isinstance(texts[0], str):
        return
    name = texts[0].lstrip(".")
    level = len(texts[0]) - len(name)
    other = texts[1] if level and len(texts) > 1 and isinstance(texts[1], str) else None
    package = tuple(other.split(".")) if other is not None else package
    outer = package[: len(package) - level + 1] if level else ()
    yield not level or other is not None, (*outer, *name.split("."))
