"""Files of a model: read, copied, and compared with their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from batchscore.errors import ModelError
from batchscore.messages.wording import reason
from batchscore.storage.reading import TooLargeError, read_at_most
from batchscore.storage.store import Store

_COPY_BYTES = 1 << 20
_RESTORE = "restore it, or correct the model's path"


def open_folder(address: str) -> Store:
    """Returns the folder at an address.

    Raises:
        ModelError: There is no filesystem for the address.
    """
    store = Store(str(address))
    try:
        store.path("")
    except OSError as error:
        raise ModelError(f"model cannot be opened: {error}; correct the address") from error
    return store


def verify(store: Store, expected: Mapping[str, str]) -> None:
    """Compares files with their SHA-256, by name; ModelError names the first that differs."""
    for name, sha256 in expected.items():
        compare(shown(store, name), sha256, sha256_of(store, name))


def compare(path: str, expected: str, found: str) -> None:
    """Raises ModelError, with the path, where a file has another SHA-256 than expected."""
    if expected != found:
        raise ModelError(
            f"{path} has SHA-256 {found}, expected {expected}; the file was changed or is damaged: "
            "restore it, or write the model again and give it a new version"
        )


def sha256_of(store: Store, name: str) -> str:
    """Returns the SHA-256 of a file; ModelError where it cannot be read."""
    with _reading(store, name):
        return store.digest(name).sha256


def read_verified(store: Store, name: str, sha256: str, limit: int) -> bytes:
    """Returns a file of at most `limit` bytes, which are those of its SHA-256, or ModelError."""
    content = read_file(store, name, limit)
    compare(shown(store, name), sha256, hashlib.sha256(content).hexdigest())
    return content


def read_file(store: Store, name: str, limit: int) -> bytes:
    """Returns a file of at most `limit` bytes; ModelError where it cannot be read."""
    with _reading(store, name), store.open(name) as file:
        return read_at_most(file, limit)


def copy_file(store: Store, name: str, target: Path) -> None:
    """Copies a file to a new one on this machine; ModelError where it cannot be read."""
    with _reading(store, name), store.open(name) as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)


@contextmanager
def _reading(store: Store, name: str) -> Iterator[None]:
    """Raises what the block cannot read as a ModelError that names the file and the remedy."""
    where = shown(store, name)
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{where} is missing; {_RESTORE}") from error
    except TooLargeError as error:
        raise ModelError(f"{where} is too large: {error}; {_RESTORE}") from error
    except OSError as error:
        cause = reason(error).removeprefix(f"{where}: ")
        raise ModelError(f"{where} cannot be read: {cause}; {_RESTORE}") from error


def shown(store: Store, name: str) -> str:
    """Returns how messages name a file: a path, or the address that a user would type."""
    return store.path(name) if store.is_local else store.url(name)


def code_sha256(architecture: str, base: str) -> str | None:
    """Returns the SHA-256 of an architecture's file; code of an installed module has none."""
    module = architecture.partition(":")[0]
    if not module.endswith(".py"):
        return None
    path = os.path.join(os.path.abspath(base), module)
    return sha256_of(Store(os.path.dirname(path)), os.path.basename(path))
