"""What earlier runs measured on this machine, as files in the user's cache folder."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

_FILE_BYTES = 1 << 20
_KEPT = 256


def recall(name: str, key: str) -> Any:
    """Returns the JSON value that a file remembers for a key, or None.

    A file that is damaged remembers nothing.
    """
    return _read(name).get(key)


def remember(name: str, key: str, value: Any) -> None:
    """Remembers a JSON value for later runs; does nothing if the folder cannot be written."""
    known = {other: kept for other, kept in _read(name).items() if other != key}
    kept = dict([*known.items(), (key, value)][-_KEPT:])
    path = cache_file(name)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_file(path, json.dumps(kept, indent=1))


def cache_file(name: str) -> Path:
    """Returns where a file is: in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "batchscore" / name


def _replace_file(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise


def _read(name: str) -> dict[str, Any]:
    path = cache_file(name)
    try:
        # What is no file, such as a pipe, might keep its reader waiting for ever.
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            found = json.loads(file.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
