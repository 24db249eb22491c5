"""Watches what user code reads in its folder: one that is not listed could change scores unnoticed.

Python raises an audit event where it opens a file. Readers written in C++ or Rust, as those of
Arrow, Polars, DuckDB and safetensors, raise none: what they open is not seen.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
import types
from typing import Any

from batchscore.models.importing import Code, calling_frame, code_of_frame
from batchscore.models.modules import is_foreign

_EVENTS = frozenset(("open", "sqlite3.connect", "ctypes.dlopen", "os.rename"))
_NO_READ = os.O_WRONLY | os.O_TRUNC | os.O_EXCL
# Of what is installed for development.
_METADATA = (".egg-info", ".dist-info")
_URI = re.compile(r"^file:(//)?|\?.*$")

_busy = threading.local()
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
        code = code_of_frame(calling_frame())
        if code is None:
            return
        if event == "os.rename":
            _note_moved(code, name, os.path.abspath(os.fsdecode(args[1])))
        else:
            makes = os.O_CREAT if event == "sqlite3.connect" else args[2] if event == "open" else 0
            _judge(code, name, makes)


def _note_moved(code: Code, name: str, target: str) -> None:
    before, after = _below(code, name), _below(code, target)
    if before in code.written and after is not None:
        code.written.add(after)


def _judge(code: Code, name: str, flags: int) -> None:
    """Refuses to open a file with these flags; what the code made itself it may read."""
    reads = not flags & _NO_READ
    file = _below(code, _source(name) if reads else name)
    if file is None:
        return
    if not reads or (flags & os.O_CREAT and not (code.tree.base / file).exists()):
        code.written.add(file)
    elif file in code.listed.sha256:
        _verify(code, file)
        if flags & (os.O_RDWR | os.O_CREAT):
            code.written.add(file)
    elif not may_read(code, file) and not _shows_lines():
        code.refuse(file, "reads")


def _verify(code: Code, file: str) -> None:
    """Compares what the code opens with what was hashed; another content makes other scores."""
    if getattr(_busy, "verifying", False) or file in code.written or _shows_lines():
        return
    _busy.verifying = True  # to read the file is an event, too
    try:
        code.verify(file)
    finally:
        _busy.verifying = False


def _source(name: str) -> str:
    """Returns the file that byte code was compiled from, which Python does not open then."""
    if not name.endswith(".pyc"):
        return name
    try:
        return importlib.util.source_from_cache(name)
    except ValueError:
        return name


def _shows_lines() -> bool:
    """Tells whether a traceback or a warning reads the lines that it shows, of whatever module."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "linecache":
        frame = frame.f_back
    return frame is not None


def _below(code: Code, name: str) -> str | None:
    base = str(code.tree.base)
    folders = [folder for folder in _folders if os.path.realpath(folder) == base]
    return next((name[len(each) :] for each in folders if name.startswith(each)), None)


def may_read(code: Code, file: str) -> bool:
    """Tells whether code may read a file below its folder: no score depends on it unseen."""
    if file in code.listed.sha256 or file in code.listed.readable or file in code.written:
        return True
    if any(part.endswith(_METADATA) for part in file.split("/")):
        return True
    path = code.tree.base / file
    return is_foreign(code.tree.base, path) or not path.is_file()
