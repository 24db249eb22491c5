"""Imports the user's functions and networks by reference, from a file or an installed module."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchscore.errors import FunctionError
from batchscore.models.explain import attribute, import_failure

_INSTALL = "install the module, or put it beside the file"
_importing = threading.RLock()


def load_object(reference: str, base: str, sha256: str | None = None, edition: int = 0) -> object:
    """Return what `reference` names: "file.py:name" below the folder `base`, or "module:name".

    A file may import the files beside it, while it is being imported. Code is always compiled from
    its source, never taken from a `__pycache__`, and each version of a file is run once a process,
    or once an edition. The bytes that are run are those that are compared with `sha256`. Raises
    FunctionError with the file, the line and the remedy.
    """
    module, _, name = reference.partition(":")
    if not module or not name.isidentifier():
        raise FunctionError(
            f"reference {reference!r} must read 'file.py:name' or 'package.module:name'"
        )
    if module.endswith(".py"):
        found = _from_file(module, Path(base).resolve(), sha256, edition)
    else:
        found = _from_package(module)
    return attribute(found, module, name)


def _from_file(file: str, base: Path, sha256: str | None, edition: int) -> types.ModuleType:
    path = (base / file).resolve()
    if not path.is_relative_to(base):
        raise FunctionError(f"file {file!r} lies outside {base}; give a path below that folder")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FunctionError(
            f"file {path} cannot be read: {error.strerror}; correct the reference"
        ) from error
    if sha256 is not None and hashlib.sha256(source).hexdigest() != sha256:
        raise FunctionError(f"file {path} was changed since its SHA-256 was taken; run again")
    with _importing:
        return _run(path, source, edition)


@functools.cache
def _run(path: Path, source: bytes, edition: int) -> types.ModuleType:
    """Run one version of a file as a module of its own name, its siblings importable meanwhile."""
    digest = hashlib.sha256(f"{path}\0{edition}\0".encode() + source).hexdigest()
    module = types.ModuleType(f"batchscore_user_{digest[:16]}")
    module.__file__ = str(path)
    # Dataclasses and pickling look their module up by its name.
    sys.modules[module.__name__] = module
    try:
        with _siblings(path.parent):
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise FunctionError(import_failure(str(path), path.parent, error, _INSTALL)) from error
    return module


def _from_package(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionError(import_failure(f"module {module!r}", None, error, _INSTALL)) from error


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: byte code lying in the folder was verified by nobody."""

    def get_code(self, fullname: str) -> types.CodeType:
        """Return the code of the module's own source file."""
        return self.source_to_code(self.get_data(self.path), self.path)


class _Siblings(importlib.abc.MetaPathFinder):
    """Finds `import name` as folder/name.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: set[str] = set()

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a sibling file, or None where there is none."""
        file = self.folder / f"{fullname}.py"
        if path is not None or not file.is_file():
            return None
        self.found.add(fullname)
        loader = _FromSource(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    finder = _Siblings(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Another folder's sibling of the same name must not be taken for this one.
        for name in finder.found:
            sys.modules.pop(name, None)
