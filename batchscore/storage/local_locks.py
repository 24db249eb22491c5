"""A lock next to a local file, for one process of the machine at a time and never without limit."""

from __future__ import annotations

import fcntl
import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import IO

from batchscore.errors import RetryError

_SECONDS = 60.0
_LOOK_SECONDS = 0.05


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Admits one at a time to a file, of all processes of the machine.

    The lock of a process that was killed is free.

    Raises:
        RetryError: Another process keeps the lock, as one that was stopped does.
    """
    folder, name = posixpath.split(path)
    place = posixpath.join(folder, f".{name}.lock")
    with closing(_take_lock(place)) as lock:
        lock.write(f"{os.getpid()}\n".encode())
        lock.flush()
        try:
            yield
        finally:
            # While it is held: whoever waits for it sees that it is gone, and makes another one.
            os.unlink(place)


def _take_lock(place: str) -> IO[bytes]:
    end = time.monotonic() + _SECONDS
    while True:
        lock = open(place, "a+b")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(lock, place):
                lock.truncate(0)
                return lock
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise _still_locked(lock, place) from error
            time.sleep(_LOOK_SECONDS)
        lock.close()


def _is_file(lock: IO[bytes], place: str) -> bool:
    """Tells whether an open lock is what others find; its last holder may have removed it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(place))
    return False


def _still_locked(lock: IO[bytes], place: str) -> RetryError:
    with lock:
        lock.seek(0)
        pid = lock.read(20).decode(errors="replace").strip() or "unknown"
    return RetryError(
        f"{place}: process {pid} has held this lock for {_SECONDS:.0f} s instead of "
        "milliseconds; it may be suspended: resume or end it, and run again"
    )
