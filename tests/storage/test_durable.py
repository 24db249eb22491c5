"""Test that what must survive a power cut is flushed, in order, and that failures are raised."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscore.runs import layout
from batchscore.runs.holder import holder
from batchscore.runs.lease import acquire, holds
from batchscore.storage.durable import FlushedFile, flush_folders, make_folders
from batchscore.storage.store import Store


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of files and folders that were flushed, in order."""
    paths: list[str] = []
    flush = os.fsync

    def noted(file: int) -> None:
        flush(file)
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        paths.append(f"{name}/" if stat.S_ISDIR(os.fstat(file).st_mode) else name.split(".")[0])

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def fail(number: int) -> Callable[[int], None]:
    """Returns an fsync that fails."""

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


WRITES: dict[str, Callable[[Store], Any]] = {
    "write": lambda store: store.write("new/x", b"1"),
    "create_new": lambda store: store.create_new("new/x", b"1"),
    "exchange": lambda store: store.exchange("new/x", None, b"1"),
}

ALL_WRITES: dict[str, Callable[[Store], Any]] = {
    **WRITES,
    "create": lambda store: store.create("new/x").close(),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_file_is_flushed_with_the_folders_that_it_needs(
    tmp_path: Path, flushed: list[str], name: str
) -> None:
    """First its bytes, then its name, then the names of new folders down from one that was there.

    A second file in the same folder needs fewer flushes.
    """
    store = Store(str(tmp_path / "out"))
    WRITES[name](store)
    assert flushed == ["x", "new/", "out/", f"{tmp_path.name}/"]
    flushed.clear()
    store.exchange("new/x", b"1", b"2")
    assert flushed == ["x", "new/"]


def test_a_file_that_need_not_survive_costs_no_flush(tmp_path: Path, flushed: list[str]) -> None:
    """Only folders that are new are flushed, since others may write into them."""
    store = Store(str(tmp_path))
    store.write("new/x", b"1", flush=False)
    assert flushed == [f"{tmp_path.name}/"]
    store.write_json("new/x", 2, flush=False)
    store.create_new("new/y", b"1", flush=False)
    store.remove("new/y")
    assert flushed == [f"{tmp_path.name}/"]
    store.remove("new/x", flush=True)
    assert flushed == [f"{tmp_path.name}/", "new/"]


def test_files_that_are_written_together_share_a_flush_of_their_folder(
    tmp_path: Path, flushed: list[str]
) -> None:
    """Each file is flushed before it gets its name, and the folder once for all of them."""
    Store(str(tmp_path)).write_all({"a/x": b"1", "a/y": b"2"})
    assert flushed == ["x", "y", "a/", f"{tmp_path.name}/"]


def test_a_file_that_grows_is_flushed_when_it_is_closed(tmp_path: Path, flushed: list[str]) -> None:
    """Its bytes are on disk then, and its name once its folder is flushed."""
    store = Store(str(tmp_path))
    file = store.create("a/x")
    file.write(b"some")
    assert flushed == [f"{tmp_path.name}/"]
    file.close()
    file.close()
    store.flush_folders(["a", "none"])
    assert flushed == [f"{tmp_path.name}/", "x", "a/"]
    assert store.read("a/x") == b"some"


def test_moves_flush_each_folder_once(tmp_path: Path, flushed: list[str]) -> None:
    """Where files came to first, then where they left, so that none is in neither."""
    store = Store(str(tmp_path))
    for name in ("x", "y", "z"):
        store.write(f"from/{name}", b"")
    store.write("to1/old", b"")
    flushed.clear()
    store.move_all([("from/x", "to1/x"), ("from/y", "to1/y"), ("from/z", "to2/z")])
    assert flushed == ["to1/", "to2/", f"{tmp_path.name}/", "from/"]


@pytest.mark.parametrize("name", ALL_WRITES)
def test_a_flush_that_fails_is_a_write_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The error names the file, which is not put in its place; nothing is left next to it."""
    store = Store(str(tmp_path))
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error: '.*/new/x'"):
        ALL_WRITES[name](store)
    assert store.names("new") == (["x"] if name == "create" else [])
    assert len(list((tmp_path / "new").iterdir())) == (name == "create")


def test_a_folder_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no such flush is fine; a disk that fails is an error."""
    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    flush_folders([str(tmp_path), str(tmp_path / "none")])
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}'"):
        flush_folders([str(tmp_path)])


def test_folders_that_are_new_are_reported(tmp_path: Path) -> None:
    """The folders that hold the new ones come back; where nothing is new, none."""
    made = make_folders(str(tmp_path / "a/b"))
    assert made == [str(tmp_path / "a"), str(tmp_path)]
    assert make_folders(str(tmp_path / "a/b")) == []


def test_a_relative_output_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are found from where the process is."""
    monkeypatch.chdir(tmp_path)
    assert make_folders("a/b") == ["a", "."]
    with FlushedFile("a/b/x") as file:
        file.write(b"1" * 100_000)
    assert (tmp_path / "a/b/x").read_bytes() == b"1" * 100_000


@pytest.mark.parametrize("left", [b"", b"\0" * 300])
def test_a_lease_that_a_power_cut_emptied_is_nobodys(tmp_path: Path, left: bytes) -> None:
    """Leases are written without a flush: whoever wrote an empty one lost power with it."""
    store = Store(str(tmp_path))
    store.write(layout.slice_file("small", "lease/00000003.json"), left)
    assert holder(store, "small") is None
    assert not holds(store, "small", 3)
    with acquire(store, "small", "run") as lease:
        assert lease.number == 4
