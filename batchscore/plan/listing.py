"""The files that the input's addresses name, and the paths by which they are known."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fsspec.utils import glob_translate

from batchscore.errors import InputError
from batchscore.messages.addresses import stored_address
from batchscore.messages.terms import JOB, DataAddress, Terms
from batchscore.messages.wording import reason, remedy_of
from batchscore.plan.hive import Texts, hive_keys, same_keys
from batchscore.plan.published import Published
from batchscore.plan.refused_formats import and_above, check_above, check_no_table
from batchscore.plan.walk import levels, match, walk
from batchscore.stages.read import is_gone
from batchscore.storage.marks import linked_mark, modification_mark
from batchscore.storage.remote import is_object_store, missing_bucket
from batchscore.storage.store import open_filesystem

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class InputFile:
    """A file that the input names, before it is opened.

    Args:
        path: What it is known by, an absolute path or an address. Links are resolved in the folder
            that the job names, and not below it, nor in its `key=value` folders. A hash is in place
            of a query's values.
        size: Its bytes.
        mark: Changes when it does, or when a link to it leads elsewhere.
        keys: Texts of its hive keys.
        real: Its path without links; its address with the query.
        named: Its path as the job names it.
        inner: Length of the part of the path in which no link is resolved.
    """

    path: str
    size: int
    mark: str
    keys: Texts
    real: str = ""
    named: str = ""
    inner: int = 0

    @property
    def is_linked(self) -> bool:
        """Whether its path is not what earlier versions knew it by."""
        return self.real not in ("", self.path)

    @property
    def address(self) -> str:
        """Where it is read from."""
        return self.real if "://" in self.real else self.path


def find_shards(
    addresses: Sequence[str], allow_empty: bool = False, terms: Terms = JOB
) -> list[InputFile]:
    """Lists the files that addresses name: files, globs, and folders with all below them.

    In a folder, names that start with `_` or `.` are left out, as Hive and Spark do; links are
    followed. Sorted by path, each path once, however often it is named.

    Args:
        addresses: Addresses of files and folders, and globs.
        allow_empty: Whether an address may name no file.
        terms: The user's names, for messages.

    Raises:
        InputError: An address names no file, unless `allow_empty`, or a table of Delta Lake or a
            similar format; it cannot be listed; a link leads nowhere; or a name is not UTF-8.
    """
    found: list[InputFile] = []
    plain: set[tuple[Any, str]] = set()
    for address in (DataAddress(text, terms) for text in addresses):
        shards = _find(address, plain)
        if not shards and not allow_empty:
            _require_bucket(address)
            raise InputError(
                f"{address}: no shard found; correct the path, or set input.allow_empty: true if "
                "an empty input is normal"
            )
        found += shards
    return _each_once(found)


def _require_bucket(address: DataAddress) -> None:
    """Raises InputError where an object store has no bucket of an address."""
    if missing := missing_bucket(address.text):
        raise InputError(f"{address}: {missing}")


def _each_once(found: list[InputFile]) -> list[InputFile]:
    """Returns one of each path; of a path named by two addresses, that of the outer one."""
    named: dict[str, InputFile] = {}
    for each in sorted(found, key=lambda each: each.inner, reverse=True):
        named.setdefault(each.named, each)
    paths = {each.path: each for each in named.values()}
    return [paths[path] for path in sorted(paths)]


def _find(address: DataAddress, plain: set[tuple[Any, str]]) -> list[InputFile]:
    if "::" in address.text:
        raise InputError(
            f"{address}: a chain of file systems cannot be listed; "
            "unpack it, or copy it to a folder"
        )
    try:
        filesystem, path = open_filesystem(address.text)
        local = "file" in filesystem.protocol
        return (
            _find_local(address, filesystem, path, plain)
            if local
            else _find_remote(address, filesystem, path, plain)
        )
    except InputError:
        raise
    except Exception as error:  # a store's client raises errors of its own
        otherwise = "correct the address, or make sure that this machine can read it"
        # A store gives no more than that for credentials that it does not take any more.
        if is_object_store(address.text) and "Bad Request" in reason(error):
            otherwise = "renew the credentials if they have expired, or correct the address"
        remedy = remedy_of(error, otherwise) if isinstance(error, OSError) else otherwise
        raise InputError(f"{address}: cannot be listed ({reason(error)}); {remedy}") from error


def keep_published_paths(found: Sequence[InputFile], published: Published) -> list[InputFile]:
    """Returns shards behind links under the paths without links that they are published by.

    Earlier versions knew a shard by that. Of several links to one file, the one with the hive keys
    that are published keeps the path; the others are shards of their own.
    """
    taken = {each.path for each in found}
    kept = []
    for each in found:
        known = published.shards.get(each.real)
        ours = known and each.path not in published.shards and same_keys(each.keys, known.keys)
        if each.is_linked and ours and each.real not in taken:
            taken.add(each.real)
            each = replace(each, path=each.real, mark=linked_mark(each.mark, None))
        kept.append(each)
    return sorted(kept, key=lambda each: each.path)


def fixed_folder(path: str, is_folder: bool) -> str:
    """Returns the folder that a path names before its first wildcard."""
    wild = _WILD.search(path)
    if wild is None or is_folder:
        return path if is_folder else posixpath.dirname(path)
    return posixpath.dirname(path[: wild.start()])


def _find_local(
    address: DataAddress, filesystem: Any, path: str, plain: set[tuple[Any, str]]
) -> list[InputFile]:
    path = os.path.normpath(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        return _local_shards(address.terms, [path], os.path.dirname(path))
    folder = fixed_folder(path, os.path.isdir(path))
    if not os.path.isdir(folder) or not (folder == path or _WILD.search(path)):
        return []
    entries = [path] if folder == path else match(path, folder)
    above = {folder, os.path.realpath(folder), *_outer(folder, entries)}
    check_above(address, filesystem, above, plain)
    names = dict.fromkeys(
        name for entry in entries for name in _local_files(address, entry, folder)
    )
    # A link to one file of a table names that file, as a list does; one to a folder names them all.
    check_above(address, filesystem, _linked_folders(names, folder), plain)
    return _local_shards(address.terms, names, folder)


def _linked_folders(names: Iterable[str], folder: str) -> set[str]:
    """Returns the real folders of files that lie behind links to folders."""
    start, real = len(folder.rstrip("/")), os.path.realpath(folder).rstrip("/")
    parents = {os.path.dirname(name) for name in names}
    return {
        found
        for parent in parents
        if (found := os.path.realpath(parent)) != (real + parent[start:] or "/")
    }


def _outer(folder: str, entries: Sequence[str]) -> set[str]:
    """Returns the folders that a pattern's entries are in, without their hive keys' folders."""
    outer = set()
    for entry in entries:
        parent = posixpath.dirname(entry)
        while len(parent) > len(folder) and "=" in posixpath.basename(parent):
            parent = posixpath.dirname(parent)
        outer.add(parent)
    return outer


def _local_files(address: DataAddress, path: str, start: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for parent, folders, files in walk(path, is_visible, start=start):
        inside = files if os.path.basename(parent) == "metadata" else []
        check_no_table(address, (os.path.join(parent, name) for name in (*folders, *inside)))
        yield from (os.path.join(parent, name) for name in files if is_visible(name))


def _local_shards(terms: Terms, names: Iterable[str], folder: str) -> list[InputFile]:
    while "=" in os.path.basename(folder):
        folder = os.path.dirname(folder)
    real, start = cache(os.path.realpath), len(folder.rstrip("/"))
    return [_local_shard(terms, name, real(folder), name[start:], real) for name in names]


def _local_shard(
    terms: Terms, name: str, folder: str, inner: str, real_of: Callable[[str], str]
) -> InputFile:
    found, is_link = _look(terms, name)
    parent, base = os.path.split(name)
    real = real_of(name) if is_link else os.path.join(real_of(parent), base)
    path = folder.rstrip("/") + inner
    mark = str(found.st_mtime)
    mark = mark if real == path else linked_mark(mark, real)
    return InputFile(path, found.st_size, mark, hive_keys(name), real, name, len(inner))


def _look(terms: Terms, name: str) -> tuple[os.stat_result, bool]:
    """Returns the status of a local file, and whether its name is a link.

    fsspec's own `info` takes four times as long.
    """
    _check_name(name)
    found = os.stat(name, follow_symlinks=False)
    is_link = stat.S_ISLNK(found.st_mode)
    try:
        found = os.stat(name) if is_link else found
    except OSError as error:
        raise InputError(
            f"shard {name}: is a link to {os.readlink(name)}, which does not exist "
            f"({reason(error)}); restore the file, or remove the link"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(
            f"shard {name}: is a pipe, a socket or a device, expected a file; "
            f"take it out of {terms.data}"
        )
    return found, is_link


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeError as error:
        raise InputError(
            f"shard {ascii(name)[1:-1]}: its name is not UTF-8, which records need; rename it"
        ) from error


def _find_remote(
    address: DataAddress, filesystem: Any, path: str, plain: set[tuple[Any, str]]
) -> list[InputFile]:
    text = address.text
    prefix = text[: -len(path)] if text.endswith(path) else None
    entries = _look_at(filesystem, path)
    if not entries and _WILD.search(path):
        entries = _remote_matches(address, filesystem, path)
    if not entries:
        _ask(filesystem, path)
    folders = {entry for entry, info in entries.items() if info["type"] == "directory"}
    if list(entries) != [path] or folders:
        # A web server may have an answer for any address, so that a look there tells nothing.
        above = [] if _is_web(filesystem) else [fixed_folder(path, path in folders)]
        check_above(address, filesystem, above, plain)
    infos = [
        info
        for entry in sorted(entries)
        for info in (_inside(address, filesystem, entry) if entry in folders else [entries[entry]])
    ]
    return [_remote_shard(filesystem, info, prefix) for info in infos]


def _look_at(filesystem: Any, path: str) -> dict[str, dict[str, Any]]:
    """Returns what is known of a file or folder by its path; empty if it is not there."""
    if _is_web(filesystem):  # it has no folders but the pages that link to others
        if not filesystem.exists(path):
            return {}
        kind = {"type": "directory"} if filesystem.isdir(path) else {}
        return {path: {**filesystem.info(path), **kind}}
    try:
        return {path: filesystem.info(path)}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _remote_matches(
    address: DataAddress, filesystem: Any, pattern: str
) -> dict[str, dict[str, Any]]:
    """Returns what a pattern matches, and checks the folders of the matches on the way."""
    if _is_web(filesystem):
        looked = (_look_at(filesystem, each) for each in sorted(filesystem.glob(pattern)))
        return {path: info for each in looked for path, info in each.items()}
    folder = fixed_folder(pattern, False)
    depth = levels(pattern, folder)
    found = filesystem.find(folder, maxdepth=depth, withdirs=True, detail=True)
    matches = re.compile(glob_translate(pattern)).match
    entries = {path: info for path, info in found.items() if matches(path)}
    outer = {each for entry in entries for each in and_above(posixpath.dirname(entry))}
    check_no_table(address, found, outer)
    return entries


def _is_web(filesystem: Any) -> bool:
    return "http" in filesystem.protocol


def _ask(filesystem: Any, path: str) -> None:
    """Raises what kept a server from answering, which an HTTP one reports as not found."""
    try:
        with suppress(NotADirectoryError):
            filesystem.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is not None and not is_gone(error):
            raise OSError(reason(error.__cause__)) from error


def _inside(address: DataAddress, filesystem: Any, folder: str) -> list[dict[str, Any]]:
    infos = filesystem.find(folder, detail=True).values()
    check_no_table(address, (str(info["name"]) for info in infos))
    return [info for info in infos if is_visible(str(info["name"])[len(folder) :])]


def _remote_shard(filesystem: Any, info: dict[str, Any], prefix: str | None) -> InputFile:
    path = str(info["name"])
    address = filesystem.unstrip_protocol(path) if prefix is None else prefix + path
    size, mark = int(info["size"]), modification_mark(info)
    return InputFile(stored_address(address), size, mark, hive_keys(path), address, address)


def is_visible(path: str) -> bool:
    """Whether no part of a path below a named folder is hidden, as Hive and Spark have it."""
    parts = path.strip("/").split("/")
    return not any(part.startswith(("_", ".")) and "=" not in part for part in parts)
