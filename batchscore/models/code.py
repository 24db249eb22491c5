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
import traceback
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from batchscore.errors import FunctionError

_importing = threading.RLock()


def load_object(reference: str, base: str, only: Sequence[str] | None = None) -> object:
    """Return what `reference` names: "file.py:name" below the folder `base`, or "module:name".

    A file may import the files beside it, while it is being imported; `only` limits both to those
    file names (a model folder's verified ones). Code is always compiled from its source, never
    taken from a `__pycache__`, and each version of a file is run once a process. Raises
    FunctionError with the file, the line and the remedy.
    """
    module, _, name = reference.partition(":")
    if not module or not name.isidentifier():
        raise FunctionError(
            f"reference {reference!r} must read 'file.py:name' or 'package.module:name'"
        )
    if module.endswith(".py"):
        found = _from_file(module, Path(base).resolve(), None if only is None else frozenset(only))
    else:
        found = _from_package(module)
    if not hasattr(found, name):
        public = ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))[:20])
        raise FunctionError(
            f"{module} defines no {name!r}; define it or name one of: {public or 'it is empty'}"
        )
    return getattr(found, name)


def _from_file(file: str, base: Path, only: frozenset[str] | None) -> types.ModuleType:
    path = (base / file).resolve()
    if not path.is_relative_to(base):
        raise FunctionError(f"file {file!r} lies outside {base}; give a path below that folder")
    if only is not None and file not in only:
        raise FunctionError(
            f"file {file!r} is not one of the verified files {sorted(only)}; list it in model.yaml"
        )
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FunctionError(
            f"file {path} cannot be read: {error.strerror}; correct the reference"
        ) from error
    with _importing:
        return _run(path, source, only)


@functools.cache
def _run(path: Path, source: bytes, only: frozenset[str] | None) -> types.ModuleType:
    """Run one version of a file as a module of its own name, its siblings importable meanwhile."""
    digest = hashlib.sha256(f"{path}\0".encode() + source).hexdigest()
    module = types.ModuleType(f"batchscore_user_{digest[:16]}")
    module.__file__ = str(path)
    # Dataclasses and pickling look their module up by its name.
    sys.modules[module.__name__] = module
    try:
        with _siblings(path.parent, only):
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise FunctionError(_failure(str(path), path.parent, error)) from error
    return module


def _from_package(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionError(_failure(f"module {module!r}", None, error)) from error


def _failure(what: str, folder: Path | None, error: BaseException) -> str:
    """Say where in the user's own code an import failed, and what to do."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
        return f"{what} is not valid Python: {error.msg} ({place}); correct it"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder is not None and Path(frame.filename).parent == folder
    ]
    place = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    remedy = (
        "install the module, or put it beside the file"
        if isinstance(error, ImportError)
        else "correct it"
    )
    return f"{what} cannot be imported{place}: {type(error).__name__}: {error}; {remedy}"


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: byte code lying in the folder was verified by nobody."""

    def get_code(self, fullname: str) -> types.CodeType:
        """Return the code of the module's own source file."""
        return self.source_to_code(self.get_data(self.path), self.path)


class _Siblings(importlib.abc.MetaPathFinder):
    """Finds `import name` as folder/name.py."""

    def __init__(self, folder: Path, only: frozenset[str] | None) -> None:
        self.folder = folder
        self.only = only
        self.found: set[str] = set()

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a sibling file, or None where there is none."""
        file = self.folder / f"{fullname}.py"
        allowed = self.only is None or file.name in self.only
        if path is not None or not allowed or not file.is_file():
            return None
        self.found.add(fullname)
        loader = _FromSource(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


@contextmanager
def _siblings(folder: Path, only: frozenset[str] | None) -> Iterator[None]:
    finder = _Siblings(folder, only)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Another folder's sibling of the same name must not be taken for this one.
        for name in finder.found:
            sys.modules.pop(name, None)
