"""The files that the input's addresses name, and the hive keys of the folders they lie in."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.stages.read import is_gone
from batchscore.storage import modification_mark, open_filesystem
from batchscore.units import KeyValue
from batchscore.wording import reason

Kinds = dict[str, pa.DataType]

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})$|0[0-9]{1,17}$")


@dataclass(frozen=True)
class Found:
    """A file that the input names, before it is opened."""

    path: str
    size: int
    mark: str
    keys: tuple[tuple[str, str | None], ...]


def find_shards(addresses: Sequence[str], allow_empty: bool = False) -> list[Found]:
    """Lists the files that addresses name: files, globs, and folders with all below them.

    In a folder, names that start with `_` or `.` are left out, as Hive and Spark do; links are
    followed. Sorted by path, each file once, however it is named.

    Raises:
        InputError: an address names no file, unless `allow_empty`, or cannot be listed.
    """
    found: dict[str, Found] = {}
    for address in addresses:
        shards = _find(address)
        if not shards and not allow_empty:
            raise InputError(
                f"input.path {address}: no shard is there; correct the path, or set "
                "input.allow_empty: true where nothing to score is a result"
            )
        found.update({shard.path: shard for shard in shards})
    return [found[path] for path in sorted(found)]


def _find(address: str) -> list[Found]:
    if "::" in address:
        raise InputError(
            f"input.path {address}: a chain of file systems cannot be listed; "
            "unpack it, or copy it to a folder"
        )
    try:
        filesystem, path = open_filesystem(address)
        prefix = address[: -len(path)] if address.endswith(path) else None
        infos = [info for name in _entries(filesystem, path) for info in _files(filesystem, name)]
    except Exception as error:  # a store's client raises errors of its own
        raise InputError(f"input.path {address}: cannot be listed ({reason(error)})") from error
    return [_found(filesystem, info, prefix) for info in infos]


def _entries(filesystem: Any, path: str) -> list[str]:
    """What a path names as it stands, or as a pattern where nothing has that name."""
    if filesystem.exists(path):
        return [path]
    if any(character in path for character in "*?["):
        return sorted(filesystem.glob(path))
    with suppress(FileNotFoundError, NotADirectoryError):
        _ask(filesystem, path)
    return []


def _ask(filesystem: Any, path: str) -> None:
    """Raises what kept a server from answering, which an HTTP one reports as not found."""
    try:
        filesystem.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is not None and not is_gone(error):
            raise OSError(reason(error.__cause__)) from error


def _files(filesystem: Any, path: str) -> list[dict[str, Any]]:
    if not filesystem.isdir(path):
        return [filesystem.info(path)]
    if "file" in filesystem.protocol:
        return [filesystem.info(name) for name in _walk(path)]
    infos = filesystem.find(path, detail=True).values()
    return [info for info in infos if _is_visible(str(info["name"])[len(path) :])]


def _walk(folder: str) -> list[str]:
    """All visible files below a local folder, links followed, but for one that leads back up."""
    names = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        above = f"{os.path.realpath(parent)}/"
        down = [(name, f"{os.path.realpath(os.path.join(parent, name))}/") for name in folders]
        folders[:] = [n for n, real in down if _is_visible(n) and not above.startswith(real)]
        names += [os.path.join(parent, name) for name in files if _is_visible(name)]
    return names


def _is_visible(path: str) -> bool:
    parts = path.strip("/").split("/")
    return not any(part.startswith(("_", ".")) and "=" not in part for part in parts)


def _found(filesystem: Any, info: dict[str, Any], prefix: str | None) -> Found:
    path = str(info["name"])
    if "file" in filesystem.protocol:
        address = os.path.realpath(path)
    elif prefix is not None:
        address = prefix + path
    else:
        address = filesystem.unstrip_protocol(path)
    return Found(address, int(info["size"]), modification_mark(info), hive_keys(path))


def hive_keys(path: str) -> tuple[tuple[str, str | None], ...]:
    """Returns the keys of the unbroken run of `key=value` folders right above a file."""
    keys: list[tuple[str, str | None]] = []
    for part in reversed(posixpath.dirname(path).split("/")):
        name, equals, value = part.partition("=")
        if not (name and equals):
            break
        keys.append((unquote(name), None if value == _HIVE_NULL else unquote(value)))
    return tuple(reversed(keys))


def key_types(found: Sequence[Found]) -> Kinds:
    """Returns each hive key's type: int64 where every value is a whole number, else string.

    Raises:
        InputError: two shards have other keys.
    """
    names = [name for name, _ in found[0].keys] if found else []
    for shard in found:
        if [name for name, _ in shard.keys] != names:
            raise InputError(
                f"shard {shard.path}: has hive keys {[n for n, _ in shard.keys]}, expected {names} "
                f"as in {found[0].path}; lay all shards out alike, or name the folders you mean"
            )
    values = {name: {dict(shard.keys)[name] for shard in found} for name in names}
    return {
        name: pa.int64() if all(v is None or _WHOLE_NUMBER.match(v) for v in texts) else pa.string()
        for name, texts in values.items()
    }


def key_value(text: str | None, kind: pa.DataType) -> KeyValue:
    """Returns a hive value in the type of its key; None for a missing one."""
    return int(text) if text is not None and pa.types.is_integer(kind) else text
