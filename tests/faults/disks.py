"""Ext4 file systems in files, mounted as loop devices that can be cut off."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEGABYTES = 64
_TRIES = 200
# Of the numbers that the kernel counts of a device: sectors written, and requests under way.
_WRITTEN, _IN_FLIGHT = 6, 8
PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs a command that alone sees what it mounts; with its end all of that and its children go."""


class DiskError(Exception):
    """A command of the system failed."""


def do(*words: object) -> None:
    """Runs a command of the system; DiskError, with what it said, if it fails."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DiskError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise DiskError(f"{' '.join(command)}: {done.stderr.strip()}")


def make_image(path: Path) -> Path:
    """Makes an empty file system in a file without blocks."""
    with open(path, "wb") as file:
        file.truncate(_MEGABYTES << 20)
    do("mkfs.ext4", "-q", "-F", "-N", 4096, path)
    return path


@contextmanager
def mounted(image: Path, folder: Path, options: str = "") -> Iterator[Path]:
    """Yields the folder on which a file's file system is mounted; its loop device ends with it."""
    folder.mkdir(parents=True, exist_ok=True)
    # Else the kernel zeroes inode tables at times of its own.
    given = ("loop", "noinit_itable", options)
    do("mount", "-t", "ext4", "-o", ",".join(filter(None, given)), image, folder)
    try:
        yield folder
    finally:
        do("umount", folder)


def cut_off(folder: Path, image: Path, copy: Path) -> None:
    """Copies what has reached the device of a mounted file system; its page cache stays out.

    The copy is of one moment, since it is made again if anything was written meanwhile.
    """
    for _ in range(_TRIES):
        before = written(folder)
        do("cp", "--sparse=always", image, copy)
        if before[1] == 0 and written(folder) == before:
            return
        time.sleep(0.01)
    raise DiskError(f"{folder}: its device does not come to rest")


def written(folder: Path) -> tuple[int, int]:
    """Returns sectors written to the device of a file system, and its requests under way."""
    device = folder.stat().st_dev
    path = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
    numbers = [int(word) for word in Path(path).read_text().split()]
    return numbers[_WRITTEN], numbers[_IN_FLIGHT]


def commit(folder: Path) -> None:
    """Has the journal written, as any program's flush does.

    Names that were changed until now are on the device then, bytes that were not flushed are not.
    """
    with open(folder / "other", "ab") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
