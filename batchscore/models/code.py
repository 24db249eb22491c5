"""Loads the user's functions and networks by reference, from a file or an installed module."""

from __future__ import annotations

import hashlib
import importlib
import types
from collections.abc import Mapping
from pathlib import Path

from batchscore.errors import FunctionError
from batchscore.models.explain import attribute, import_failure
from batchscore.models.imported import imported_files
from batchscore.models.importing import Listed, code_of, guarding
from batchscore.models.modules import Tree
from batchscore.models.watching import watch

_INSTALL = "install the module, or put it next to the file"
_INSTALL_OR_FILE = "install the module, or name what a file defines, as file.py:name"


def load_object(
    reference: str, base: str, listed: Listed | None = None, edition: int = 0
) -> object:
    """Return what `reference` names: "file.py:name" below the folder `base`, or "module:name".

    A file imports the modules in its own folder and in `base`, as Python does that is started
    there; no other code finds these. Only `listed` files are imported, from the bytes that were
    hashed: by default the file and what its text imports. Code is compiled from its source, never
    taken from a `__pycache__`, and each version of it is run once a process, or once an edition.
    Raises FunctionError with the file, the line and the remedy.
    """
    module, _, name = reference.partition(":")
    if not module or not name.isidentifier():
        raise FunctionError(
            f"reference {reference!r} must read 'file.py:name' or 'package.module:name'"
        )
    if module.endswith(".py"):
        found = _from_file(module, base, listed, edition)
    else:
        found = _from_package(module)
    return attribute(found, module, name)


def _from_file(file: str, given: str, listed: Listed | None, edition: int) -> types.ModuleType:
    base = Path(given).resolve()
    path = (base / file).resolve()
    if not path.is_relative_to(base):
        raise FunctionError(f"file {file!r} is outside {base}; give a path below that folder")
    if not path.is_file():
        raise FunctionError(f"file {path} cannot be read: no such file; correct the reference")
    if listed is None:
        listed = Listed(hashes(imported_files(str(base), file)))
    folders = path.relative_to(base).parts[:-1]
    code = code_of(Tree(base, folders), listed, edition)
    watch(code, given)
    with guarding(base):
        try:
            return code.load(path.relative_to(base).as_posix())
        except FunctionError:
            raise
        except (Exception, SystemExit) as error:
            raise FunctionError(import_failure(str(path), base, error, _INSTALL)) from error


def hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}


def _from_package(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionError(
            import_failure(f"module {module!r}", None, error, _INSTALL_OR_FILE)
        ) from error
