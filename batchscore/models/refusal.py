"""The message for a file that user code uses though its job does not list it."""

from __future__ import annotations

import json
import posixpath
import re
from contextlib import suppress
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")


def refusal(place: str, does: str, file: str, base: Path, since: float) -> str:
    """Returns what is wrong, and what to add to the job file.

    Args:
        place: where the code is.
        does: what it does with the file.
        file: its path from the job's folder.
        base: the job's folder.
        since: when the code was loaded, in Unix seconds.
    """
    folder = posixpath.dirname(file)
    every = f", or all of its folder, code: [{_in_yaml(folder)}]" if folder else ""
    text = (
        f"{place} {does} {file}, which lies in the job's folder and is not part of its code, so "
        f"that a change of it would score no row again; add it to the job file, "
        f"code: [{_in_yaml(file)}]{every}"
    )
    if _written(base / file) < since:
        return text
    return (
        f"{text}. It was written after the code was loaded: if the code writes it, have it write "
        "to a folder of tempfile.mkdtemp()"
    )


def _written(path: Path) -> float:
    """Returns when a file was written, in Unix seconds; 0 if it is gone."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _in_yaml(file: str) -> str:
    """Spells a path as an item of a list in YAML."""
    return file if _PLAIN.fullmatch(file) else json.dumps(file, ensure_ascii=False)
