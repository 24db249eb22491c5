"""Watches what user code reads in its folder: a file that nobody lists may decide scores unseen.

Python raises an audit event where it opens a file. Readers written in C++ or Rust, as those of
Arrow, Polars, DuckDB and safetensors, raise none: what they open is not seen.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from batchscore.models.importing import Code, calling_frame, code_of_frame

_EVENTS = frozenset(("open", "sqlite3.connect", "ctypes.dlopen"))
_NO_READ = os.O_WRONLY | os.O_TRUNC | os.O_EXCL
# Caches, and what is installed below a job's folder.
_FOREIGN = {"__pycache__", "site-packages", "dist-packages"}
_INSTALLED = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
_URI = re.compile(r"^file:(//)?|\?.*$")

_folders: dict[str, None] = {}
_prefixes: tuple[str, ...] = ()


def watch(code: Code, base: str) -> None:
    """Sees from now on what code reads below its folder, by whichever of its paths."""
    global _prefixes
    if not _prefixes:
        sys.addaudithook(look)
    for folder in (str(code.tree.base), os.path.abspath(base)):
        _folders[f"{folder.rstrip('/')}/"] = None
    _prefixes = tuple(_folders)


def look(event: str, args: tuple[Any, ...]) -> None:
    """Raises FunctionError where user code opens a file below its folder that is not listed.

    It is called for each audit event of the process, most of which are no concern of it.
    """
    if event not in _EVENTS:
        return
    path = args[0]
    if isinstance(path, int) or path is None:
        return
    name = os.fsdecode(path)
    if event == "sqlite3.connect":
        name = _URI.sub("", name)
    name = os.path.abspath(name)
    if name.startswith(_prefixes):
        reads = event != "open" or not args[2] & _NO_READ
        code = code_of_frame(calling_frame())
        if code is not None:
            _judge(code, name, reads)


def _judge(code: Code, name: str, reads: bool) -> None:
    file = _below(code, name)
    if file is None:
        return
    if not reads:  # what it wrote itself it may read
        code.written.add(file)
    elif not _may_read(code, file):
        code.refuse(file, "reads")


def _below(code: Code, name: str) -> str | None:
    base = str(code.tree.base)
    folders = [folder for folder in _folders if os.path.realpath(folder) == base]
    return next((name[len(each) :] for each in folders if name.startswith(each)), None)


def _may_read(code: Code, file: str) -> bool:
    if file in code.listed.sha256 or file in code.listed.readable or file in code.written:
        return True
    parts = file.split("/")
    if any(part.startswith(".") or part in _FOREIGN for part in parts):
        return True
    path = code.tree.base / file
    return any(path.is_relative_to(each) for each in _inside(code.tree.base)) or not path.is_file()


def _inside(base: Path) -> list[Path]:
    """Returns where Python and batchscore are installed, if that is below a folder."""
    return [each for each in _INSTALLED if each != base and each.is_relative_to(base)]
