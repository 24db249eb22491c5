"""Files that a store keeps by their content: put once, and fetched into a folder of this machine.

A file is kept in parts, each an object that is put in one step. So no put holds more than a part in
memory, and a put that was cut off left out whole parts. The first object has the SHA-256 of the
file for its name; further ones add `.1`, `.2` and so on.
"""

from __future__ import annotations

import hashlib
import json
import platform
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchscore.errors import FailedError
from batchscore.messages.wording import one_line, reason
from batchscore.storage.private_folder import one_at_a_time, put_in_place
from batchscore.storage.reading import (
    Digest,
    TooLargeError,
    digest_of,
    open_plain,
    read_at_most,
)
from batchscore.storage.store import Store

_PART_BYTES = 32 << 20
_THREADS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredPart:
    """A part of a file, as a store keeps it.

    Args:
        name: Name of its object.
        start: Where in the file it begins.
        bytes: Its size.
        sha256: Its SHA-256.
    """

    name: str
    start: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Args:
        bytes: Its size.
        sha256: SHA-256 of all of it.
        parts: SHA-256 of each of its parts, if it has several.
    """

    bytes: int
    sha256: str
    parts: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest:
        """Its size and SHA-256."""
        return Digest(self.bytes, self.sha256)

    @property
    def objects(self) -> tuple[StoredPart, ...]:
        """The objects that it is kept in, in order."""
        return tuple(
            StoredPart(
                f"{self.sha256}.{place}" if place else self.sha256,
                place * _PART_BYTES,
                min(_PART_BYTES, self.bytes - place * _PART_BYTES),
                sha256,
            )
            for place, sha256 in enumerate(self.parts or (self.sha256,))
        )


def content_of(path: str) -> Content:
    """Returns what a local file holds; OSError if it cannot be read."""
    whole, parts, size = hashlib.sha256(), list[str](), 0
    with open_plain(path) as file:
        while (part := file.read(_PART_BYTES)) or not parts:
            whole.update(part)
            parts.append(hashlib.sha256(part).hexdigest())
            size += len(part)
    return Content(size, whole.hexdigest(), tuple(parts) if len(parts) > 1 else ())


def file_of(name: str) -> str | None:
    """Returns the SHA-256 of the file that an object belongs to; None for any other file."""
    sha256 = name.partition(".")[0]
    return sha256 if _SHA256.fullmatch(sha256) else None


def put_all(store: Store, folder: str, files: Mapping[str, Content]) -> None:
    """Puts local files into a folder of a store, unless they are there.

    An object of another size than it should have is replaced. Any number of callers may do the same
    at once, and again.

    Args:
        files: What each holds, by its path on this machine.

    Raises:
        FailedError: A file does not hold that any more.
        OSError: A file cannot be read, or the store does not take it.
    """
    found = store.find(
        posixpath.join(folder, each.name) for content in files.values() for each in content.objects
    )
    sizes = {posixpath.basename(path): each.bytes for path, each in found.items()}
    tasks = [
        (store, folder, path, part, part.name in sizes)
        for path, content in files.items()
        for part in content.objects
        if sizes.get(part.name) != part.bytes
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda task: _put(*task), tasks))


def _put(store: Store, folder: str, path: str, part: StoredPart, is_torn: bool) -> None:
    with open_plain(path) as file:
        file.seek(part.start)
        data = file.read(part.bytes)
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise FailedError(f"{path} was changed since it was hashed; run again")
    target = posixpath.join(folder, part.name)
    if is_torn:
        store.write(target, data)
    else:
        store.create_new(target, data)


def fetch(store: Store, folder: str, files: Mapping[str, Content], cache: Path) -> Path:
    """Returns a folder of this machine that holds files of a store, each verified by this call.

    The folder has a name of its own for what it holds. It is made once, in one step, and made again
    if it is damaged.

    Args:
        folder: Where `put_all` put the files.
        files: What each must hold, by its path in the folder that is returned.
        cache: A folder that only this user writes to.

    Raises:
        FailedError: A path leaves the folder, an object of the store is missing or damaged, or the
            files cannot be written.
    """
    for name in files:
        _require_plain(name)
    target = cache / _name_of(files)
    with _naming(cache), one_at_a_time(target):
        if not _holds(target, files):
            _make(store, folder, files, target)
    return target


def _make(store: Store, folder: str, files: Mapping[str, Content], target: Path) -> None:
    # What is left of processes that were killed: this one's turn is the only one.
    for left in target.parent.glob(f"{target.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as staging:
        made = Path(staging) / "made"
        made.mkdir()
        _fetch_all(store, folder, files, made)
        if not put_in_place(made, target, lambda: _holds(target, files)):
            raise FailedError(f"{target} is changed while it is made; remove it, and run again")


def _name_of(files: Mapping[str, Content]) -> str:
    held = {name: content.sha256 for name, content in files.items()}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:32]


def _require_plain(name: str) -> None:
    """Raises FailedError for a path that leaves its folder, or has a hidden part."""
    parts = name.split("/")
    if "\0" in name or any(not part or part.startswith(".") for part in parts):
        raise FailedError(
            f"shipped file {one_line(repr(name))}: expected a path below its folder without hidden "
            "parts; the run's own hashes are damaged: run again"
        )


def _holds(folder: Path, files: Mapping[str, Content]) -> bool:
    """Tells whether a folder holds the files, as plain files of its own."""
    whole = (_is_whole(folder, name, content) for name, content in files.items())
    return folder.is_dir() and all(whole)


def _is_whole(folder: Path, name: str, content: Content) -> bool:
    path = folder / name
    try:
        if path.resolve() != folder.resolve() / name:  # a link on the way
            return False
        with open_plain(str(path)) as file:
            return digest_of(file) == content.digest
    except OSError:
        return False


def _fetch_all(store: Store, folder: str, files: Mapping[str, Content], made: Path) -> None:
    for name in files:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda name: _fetch(store, folder, files[name], made / name), files))


def _fetch(store: Store, folder: str, content: Content, path: Path) -> None:
    with path.open("xb") as file:
        for part in content.objects:
            file.write(_read(store, posixpath.join(folder, part.name), part, path.name))


def _read(store: Store, path: str, part: StoredPart, file: str) -> bytes:
    """Returns an object's bytes; FailedError if they are not those of its hash."""
    where = f"{store.url(path)}, which holds {file} for the workers,"
    try:
        with store.open(path) as opened:
            data = read_at_most(opened, part.bytes)
    except FileNotFoundError as error:
        raise FailedError(f"{where} is missing; run again: the run stores it again") from error
    except TooLargeError:
        data = b""
    except OSError as error:
        raise FailedError(
            f"{where} cannot be read: {reason(error)}. Check the store and the worker's rights; if "
            "the object is damaged, remove it, and run again: the run stores it again"
        ) from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise FailedError(
            f"{where} is damaged: its SHA-256 is not {part.sha256}; remove it, and run again: the "
            "run stores it again"
        )
    return data


@contextmanager
def _naming(cache: Path) -> Iterator[None]:
    """Raises what this machine's disk does not take as a FailedError that names the folder."""
    try:
        yield
    except OSError as error:
        raise FailedError(
            f"files for the worker cannot be put into {cache} of {platform.node()}: "
            f"{reason(error)}; free space there, or set TMPDIR for the worker"
        ) from error
