"""Imports a model folder's code from bytes whose SHA-256 was compared, never from disk."""

from __future__ import annotations

import builtins
import functools
import hashlib
import linecache
import sys
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscore.errors import FunctionError
from batchscore.models.explain import attribute, import_failure

_PREFIX = "batchscore_model_"
_INSTALL = "install the module, or add it to the model folder and list it in model.yaml"
_importing = threading.RLock()


def load_verified(
    reference: str, folder: Path, sources: Mapping[str, bytes], edition: int = 0
) -> object:
    """Returns what `reference` names, "file.py:name", in one of the files that were verified.

    A file imports the others by name, as in plain Python, at any time. Nobody else finds them, and
    no other file of the folder is imported. Each version of the files is run once a process.

    Args:
        folder: Where the files lie, for messages and tracebacks.
        sources: The files' names and bytes.
        edition: Another number gives modules of their own, without what the first ones keep.

    Raises:
        FunctionError: The code cannot be imported, or does not define the name.
    """
    file, _, name = reference.partition(":")
    if file not in sources:
        raise FunctionError(
            f"file {file!r} is not one of the verified files {sorted(sources)}; list it in "
            "model.yaml"
        )
    try:
        found = _verified_code(folder, frozenset(sources.items()), edition).load(file)
    except (Exception, SystemExit) as error:
        raise FunctionError(import_failure(f"{folder}/{file}", folder, error, _INSTALL)) from error
    return attribute(found, file, name)


def is_verified(module: str) -> bool:
    """Tells whether a module's name is that of verified code."""
    return module.startswith(_PREFIX)


@functools.cache
def _verified_code(folder: Path, sources: frozenset[tuple[str, bytes]], edition: int) -> _Modules:
    return _Modules(folder, dict(sources), edition)


class _Modules:
    """The modules of one set of verified files."""

    def __init__(self, folder: Path, sources: Mapping[str, bytes], edition: int) -> None:
        self._folder, self._sources = folder, sources
        digest = hashlib.sha256(f"{folder}\0{edition}".encode())
        for name, source in sorted(sources.items()):
            digest.update(f"\0{name}\0{hashlib.sha256(source).hexdigest()}".encode())
        self._prefix = f"{_PREFIX}{digest.hexdigest()[:16]}_"
        # Each module gets the interpreter's own builtins, but for how it imports.
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, file: str) -> types.ModuleType:
        """Returns the module of a file, run once."""
        with _importing:
            # A module that imports itself in a circle finds itself half made, as in plain Python.
            return sys.modules.get(self._name(file)) or self._run(file)

    def _name(self, file: str) -> str:
        return self._prefix + file.removesuffix(".py")

    def _run(self, file: str) -> types.ModuleType:
        path, source = str(self._folder / file), self._sources[file]
        module = types.ModuleType(self._name(file))
        module.__file__ = path
        vars(module)["__builtins__"] = self._builtins
        # Dataclasses and pickling look their module up by its name.
        sys.modules[module.__name__] = module
        try:
            code = compile(source, path, "exec", dont_inherit=True)
            _remember_lines(path, source)
            exec(code, vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level == 0 and f"{name}.py" in self._sources:
            return self.load(f"{name}.py")
        return builtins.__import__(name, globals, locals, fromlist, level)


def _remember_lines(path: str, source: bytes) -> None:
    """Tracebacks, and torch.jit.script, which compiles what it finds, get the verified lines."""
    text = source.decode(errors="replace")
    linecache.cache[path] = (len(source), None, text.splitlines(keepends=True), path)
