"""A folder of the temporary directory that only this user writes to, and what is put into it."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchscore.errors import FailedError

_TURN_SECONDS = 600.0
_LOOK_SECONDS = 0.05


def private_folder(name: str) -> Path:
    """Returns this user's own folder of a name, made if it is not there.

    Raises:
        FailedError: It is no folder, belongs to somebody else, or others may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise FailedError(f"{folder} is not a folder; remove it, or set TMPDIR")
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise FailedError(
            f"{folder} belongs to somebody else or is open to others; remove it, or set TMPDIR"
        )
    return folder


def put_in_place(made: Path, target: Path, is_whole: Callable[[], bool]) -> bool:
    """Renames a folder that was made to its place; tells whether what is there now is whole.

    Args:
        made: A folder in one that will be removed; what is damaged in its place goes there.
        target: Its place, where another process may put the same at any time.
        is_whole: Tells whether what is at the place is what it should be.
    """
    if target.exists() and not is_whole():
        target.rename(made.with_name("damaged"))
    try:
        made.rename(target)
    except OSError:  # another process was first
        return is_whole()
    return True


@contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Lets one process of the machine at a time make what belongs at a path.

    Two would only do the same work twice. So who waited ten minutes, as for a process that is
    suspended, does not wait on.
    """
    end = time.monotonic() + _TURN_SECONDS
    with open(target.with_name(f".{target.name}.lock"), "ab") as lock:
        while time.monotonic() < end:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOOK_SECONDS)
        yield
