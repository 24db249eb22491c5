"""The message for a file that user code uses though its job does not list it."""

from __future__ import annotations

import json
import posixpath
import re

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")


def undeclared(place: str, does: str, file: str) -> str:
    """Returns what is wrong, and what to add to the job file.

    Who wrote the file is unknown: a cache of the code's own is not to be listed.

    Args:
        place: Where the code is.
        does: What it does with the file.
        file: Its path from the job's folder.
    """
    folder = posixpath.dirname(file)
    every = f", or all of its folder, code: [{_in_yaml(folder)}]" if folder else ""
    return (
        f"{place} {does} {file}, which is in the job's folder but not part of its code, so a "
        "change of it would score no row again. Add it to the job file, code: "
        f"[{_in_yaml(file)}]{every}. If the code itself writes it, write it outside the job's "
        "folder, such as to tempfile.mkdtemp()"
    )


def _in_yaml(file: str) -> str:
    """Spells a path as an item of a list in YAML."""
    return file if _PLAIN.fullmatch(file) else json.dumps(file, ensure_ascii=False)
