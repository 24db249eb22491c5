"""Local files and folders flushed to disk, so that they are still there after a power cut."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchscore.system.processes import machine_tag

FOLDER_TRIES = 10
"""So often a folder is made, or removed, that others remove or fill at the same time."""
# What file systems answer that cannot flush a folder.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS})


def flush_file(file: int, path: str) -> None:
    """Returns once an open file's bytes are on disk.

    Args:
        file: Its descriptor.
        path: Named by the error.

    Raises:
        OSError: The disk did not take them; the file counts as not written.
    """
    try:
        os.fsync(file)
    except OSError as error:
        raise _failed(error, path) from error


def flush_folders(paths: Iterable[str]) -> None:
    """Returns once the names in folders are on disk; each folder is flushed once.

    A folder that is gone needs no flush. A file system that cannot flush folders keeps their names
    in its own way.

    Raises:
        OSError: The disk did not take them.
    """
    for path in dict.fromkeys(paths):
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise _failed(error, path) from error
        finally:
            os.close(folder)


def _failed(error: OSError, path: str) -> OSError:
    # fsync names no file, and a message has to.
    return OSError(error.errno, error.strerror, path)


def make_folders(path: str) -> list[str]:
    """Makes a folder with its parents; returns the folders that hold new ones, to be flushed."""
    missing, current = [], path
    while current and not os.path.isdir(current):
        missing.append(current)
        current = posixpath.dirname(current)
    if missing:
        os.makedirs(path, exist_ok=True)
    return [posixpath.dirname(each) or "." for each in missing]


class FlushedFile(io.BufferedWriter):
    """A new local file whose bytes are on disk once it is closed; its name may not be yet."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self._path = path

    def close(self) -> None:
        """Flushes and closes the file; OSError if the disk did not take its bytes."""
        if self.closed:
            return
        try:
            self.flush()
            flush_file(self.fileno(), self._path)
        finally:
            super().close()


def unfinished_name(path: str) -> str:
    """Names a file of this process next to another; `Store.sweep_unfinished` removes it."""
    return f"{path}.{machine_tag()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@contextmanager
def staged_file(path: str, data: bytes, flush: bool) -> Iterator[Path]:
    """Yields a temporary file of the bytes next to `path`, and removes what is left of it."""
    staged = Path(unfinished_name(path))
    try:
        with open(staged, "wb") as file:
            file.write(data)
            if flush:
                file.flush()
                flush_file(file.fileno(), path)
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def replace_file(path: str, data: bytes, flush: bool) -> None:
    """Replaces a file in one step."""
    with staged_file(path, data, flush) as staged:
        staged.replace(path)


def link_file(path: str, data: bytes, flush: bool) -> bool:
    """Puts a file where there is none; False if there is one."""
    with staged_file(path, data, flush) as staged:
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
    return True


def remove_folder(path: str) -> None:
    """Removes a folder with all it holds, while others may remove it too or still write into it."""
    for left in reversed(range(FOLDER_TRIES)):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if not os.path.lexists(path):
                return None
            if not left or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
    return None
