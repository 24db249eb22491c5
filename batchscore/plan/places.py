"""Where a run reads and writes: apart from each other, ready, and open to be written."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchscore.errors import InputError, InvalidError, OutputError, RetryError
from batchscore.messages.wording import reason, remedy_of
from batchscore.runs import layout
from batchscore.stages.scored_files import encoded_key, is_plain_key
from batchscore.storage.remote import is_object_store, missing_bucket
from batchscore.storage.store import Store, open_filesystem


def check_apart(output: str, inputs: Iterable[str]) -> None:
    """Raises OutputError when an output and an input lie within one another.

    InputError or OutputError for an address of no known kind. On an object store an output's keys
    have no empty parts and no dots for parts, which servers and clients take for other keys.
    """
    target = _path(output, f"output.path {output}", OutputError)
    if is_object_store(output) and not {"", ".", ".."}.isdisjoint(target.split("/")):
        raise OutputError(
            f"output.path {output}: has an empty part, `.` or `..` between slashes, which object "
            "stores take for names; write the address without it"
        )
    for address in inputs:
        source = _fixed_part(_path(address, f"input.path {address}", InputError))
        for inner, outer, how in ((target, source, "is inside"), (source, target, "holds")):
            if inner == outer or inner.startswith(f"{outer}/"):
                raise OutputError(
                    f"output.path {output}: {how} input.path {address}, so a run would read what "
                    "it wrote; choose another folder"
                )


def check_unpublished(output: str, shards: Iterable[str]) -> None:
    """Raises OutputError when a glob of the input found a file of the output."""
    root = _real(open_filesystem(output)[0], open_filesystem(output)[1]).strip("/")
    for path in shards:
        if (path.partition("://")[2] or path).strip("/").startswith(f"{root}/"):
            raise OutputError(
                f"output.path {output}: holds shard {path}, which input.path found, so a run "
                "would read what it wrote; choose another folder, or a narrower input.path"
            )


def plain_keys(output: Store, partition_by: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns whose partition folders have their names as they are, unlike before.

    Names of letters, digits, `_`, `-`, `.` and `~` are the same in both forms and not listed. An
    output that has folders with an encoded name keeps it.

    Raises:
        OutputError: No folder of this name would be read back under it by every reader.
    """
    special = [name for name in partition_by if encoded_key(name) != name]
    known = _folder_keys(output) if special else set()
    chosen = [name for name in special if encoded_key(name) not in known]
    for name in chosen:
        if not is_plain_key(name):
            raise OutputError(
                f"output.partition_by: column {name!r} makes folders that not every reader "
                "understands; expected a name that does not start with `_` or `.` and has none "
                f"of `/ = % \\ : ? * [ ] {{ }}` nor control characters: rename the column in the "
                "input, or take it out of output.partition_by"
            )
    return tuple(chosen)


def _folder_keys(output: Store) -> set[str]:
    """Returns the keys of the hive folders of what is published."""
    keys, folder = set[str](), layout.DATA
    while True:
        names = [name for name in output.names(folder) if "=" in name]
        if not names:
            return keys
        keys |= {name.partition("=")[0] for name in names}
        folder = f"{folder}/{min(names)}"


def _path(address: str, what: str, kind: type[InvalidError]) -> str:
    try:
        return _real(*open_filesystem(address))
    except Exception as error:  # a store's client raises errors of its own
        raise kind(
            f"{what}: cannot be opened ({reason(error)}); "
            "correct the address, or install what it needs"
        ) from error


def _real(filesystem: Any, path: str) -> str:
    """A local path without links, so that two names of one folder are seen to be one."""
    return os.path.realpath(path) if "file" in filesystem.protocol else path


def _fixed_part(path: str) -> str:
    """The part of a path before its first wildcard."""
    return re.split(r"[*?\[]", path, maxsplit=1)[0].rstrip("/")


def check_writable(output: Store) -> None:
    """Raises OutputError for an output that is not batchscore's, or cannot be written to."""
    try:
        layout.check_output(output)
    except OSError as error:
        raise OutputError(f"output {output.address}: cannot be read ({error})") from error
    if not output.is_local:
        return
    folder = Path(output.path(""))
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    if not existing.is_dir():
        raise OutputError(f"output {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {folder}: no permission to write in {existing}; "
            "grant it, or choose another folder"
        )


def check_ready(marker: str | None, inputs: Sequence[str]) -> None:
    """Raises RetryError when the input's marker is not there yet."""
    if marker is None:
        return
    address = marker
    if "://" not in marker and not marker.startswith("/"):
        folder = _fixed_part(inputs[0])
        filesystem, path = open_filesystem(folder)
        at = folder if filesystem.isdir(path) else posixpath.dirname(folder)
        address = posixpath.join(at, marker)
    filesystem, path = open_filesystem(address)
    if not filesystem.exists(path):
        raise RetryError(
            f"input.ready {address}: does not exist yet; run again when the input is complete"
        )


def require_bucket(output: Store) -> None:
    """Raises OutputError where the bucket of an output that holds nothing is not there."""
    if is_object_store(output.address) and not output.names():
        missing = missing_bucket(output.address)
        if missing:
            raise OutputError(f"output.path {output.address}: {missing}")


def probe_output(output: Store) -> None:
    """Puts one object into an output and removes it, and all folders that were not there.

    Raises:
        OutputError: It cannot be written.
    """
    path = f"{layout.HOME}/{layout.PROBE}{secrets.token_hex(4)}"
    try:
        with removing_folders(output):
            output.write(path, b"")
            output.remove(path)
    except OSError as error:
        raise OutputError(
            f"output {output.address}: cannot be written ({error}); "
            f"{remedy_of(error, 'grant the permission')}, or choose another folder"
        ) from error


@contextmanager
def removing_folders(output: Store) -> Iterator[None]:
    """Removes at the end, if they are empty, an output's folders that were not there before."""
    filesystem, home = open_filesystem(output.url(layout.HOME))
    missing = _missing_folders(filesystem, home)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                # Removes nothing but an empty folder; object stores have none.
                filesystem.rmdir(folder)


def _missing_folders(filesystem: Any, path: str) -> list[str]:
    """Returns the folders of a path that do not exist, the innermost first."""
    missing = []
    while path not in ("", "/") and not filesystem.exists(path):
        missing.append(path)
        path = posixpath.dirname(path)
    return missing
