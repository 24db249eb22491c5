"""Power cuts: what a folder may hold after one, at any moment of what was done in it.

A file that was flushed has its bytes and a folder that was flushed its names. What was not flushed
may be there, empty or missing, as ext4 and its like allow.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

Names = dict[str, int]
Cut = dict[str, bytes]
"""Files by path, and folders that hold nothing, whose paths end in `/`."""

_CHANGES = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")
_current: Recorder | None = None


@dataclass(frozen=True)
class Moment:
    """The state of a folder's inodes just before a change or just after a flush.

    Args:
        step: what comes next, or was flushed.
        names: what each folder holds now, by inode.
        files: bytes of each file now.
        flushed_names: what each folder held when it was last flushed.
        flushed: bytes of each file when it was last flushed.
        folders: every inode that is, or was, a folder.
    """

    step: str
    names: dict[int, Names]
    files: dict[int, bytes]
    flushed_names: dict[int, Names]
    flushed: dict[int, bytes]
    folders: set[int]

    def cuts(self, root: int) -> Iterator[Cut]:
        """Yields what may be there after a power cut."""
        random = Random(self.step)
        some = {k: data for k, data in self.files.items() if random.random() < 0.5}
        yield self._tree(root, self.names, self.files)
        yield self._tree(root, self.names, self.flushed)
        yield self._tree(root, self.flushed_names, self.flushed)
        yield self._tree(root, self._some_names(root, random), {**self.flushed, **some})

    def _some_names(self, root: int, random: Random) -> dict[int, Names]:
        """Returns folders of which some changes since their flush are there and others are not."""
        mixed: dict[int, Names] = {}
        for folder in {*self.names, *self.flushed_names}:
            now, before = (names.get(folder, {}) for names in (self.names, self.flushed_names))
            chosen = {name: random.choice((now, before)) for name in sorted({*now, *before})}
            mixed[folder] = {name: names[name] for name, names in chosen.items() if name in names}
        # A rename is one change: a file that was there is in one of its places.
        places = _places(root, self.names)
        for inode in set(_places(root, self.flushed_names)) & set(places):
            if inode not in _places(root, mixed):
                for folder, name, child in places[inode]:
                    mixed[folder][name] = child
        return mixed

    def _tree(self, folder: int, names: dict[int, Names], files: dict[int, bytes]) -> Cut:
        tree: Cut = {}
        for name, inode in names.get(folder, {}).items():
            if inode not in self.folders:
                tree[name] = files.get(inode, b"")
                continue
            below = self._tree(inode, names, files)
            tree |= {f"{name}/{path}": data for path, data in below.items()}
            if not below:
                tree[f"{name}/"] = b""
        return tree


Place = tuple[tuple[int, str, int], ...]


def _places(folder: int, names: dict[int, Names], way: Place = ()) -> dict[int, Place]:
    """Returns the names that lead to each inode: folder, name and what it names."""
    found: dict[int, Place] = {}
    for name, inode in names.get(folder, {}).items():
        found[inode] = (*way, (folder, name, inode))
        found |= _places(inode, names, found[inode])
    return found


class Recorder:
    """Notes each change and each flush of a folder, which must be there before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inode = root.stat().st_ino
        self.moments: list[Moment] = []
        self._lock = threading.RLock()
        self._busy = False
        self._flushed_names: dict[int, Names] = {}
        self._flushed: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        self._folders: set[int] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records within the block; what is there at its start counts as flushed."""
        global _current
        names, files = self._look()
        self._flushed_names, self._flushed = names, files
        flush = os.fsync

        def noted(file: int) -> None:
            flush(file)
            self._note_flush(file)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", noted)
            _current = self
            _watch()
            try:
                yield
            finally:
                _current = None
        self._note("end")
        for file in self._open.values():
            os.close(file)

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        """Notes the state before a change of the folder."""
        if self._busy or event not in _CHANGES or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        path = os.fspath(args[0])
        if str(path).startswith(f"{self.root}/") or event != "open":
            self._note(f"{event} {path}")

    def _note_flush(self, file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        if not path.startswith(str(self.root)):
            return
        with self._lock:
            names, files = self._look()
            inode, kind = os.fstat(file).st_ino, os.fstat(file).st_mode
            if stat.S_ISDIR(kind):
                self._flushed_names = {**self._flushed_names, inode: names[inode]}
            else:
                self._flushed = {**self._flushed, inode: files[inode]}
        self._note(f"flush {path}")

    def _note(self, step: str) -> None:
        with self._lock:
            names, files = self._look()
            step = f"{len(self.moments)} {step}"
            self.moments.append(
                Moment(step, names, files, self._flushed_names, self._flushed, self._folders)
            )

    def _look(self) -> tuple[dict[int, Names], dict[int, bytes]]:
        self._busy = True
        try:
            names: dict[int, Names] = {}
            files: dict[int, bytes] = {}
            self._walk(self.root, names, files)
            return names, files
        finally:
            self._busy = False

    def _walk(self, folder: Path, names: dict[int, Names], files: dict[int, bytes]) -> None:
        here = names.setdefault(folder.stat().st_ino, {})
        for entry in os.scandir(folder):
            inode = entry.inode()
            here[entry.name] = inode
            if inode not in self._open:
                # Held open, so that nothing later gets the same number.
                self._open[inode] = os.open(entry.path, os.O_RDONLY)
            if entry.is_dir():
                self._folders.add(inode)
                self._walk(Path(entry.path), names, files)
            else:
                files[inode] = os.pread(self._open[inode], 1 << 30, 0)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _current is not None:
        _current.see(event, args)


_watched: list[bool] = []


def _watch() -> None:
    """Adds the hook, which stays as long as the process."""
    if not _watched:
        _watched.append(True)
        sys.addaudithook(_hook)


def lay_out(cut: Cut, folder: Path) -> Path:
    """Writes what is there after a power cut into a new folder."""
    folder.mkdir(parents=True)
    for path, data in cut.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(data)
    return folder
