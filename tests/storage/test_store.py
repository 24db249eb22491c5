"""Test that a store stays in its folder, replaces files in one step, and repeats its moves."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.storage.marks import modification_mark
from batchscore.storage.store import Store, is_local, open_filesystem


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An output on disk and one in memory."""
    if request.param == "local":
        yield Store(str(tmp_path / "out"))
        return
    yield Store("memory://storage-test/out")
    fsspec.filesystem("memory").rm("/storage-test", recursive=True)


def test_what_is_written_is_read(store: Store) -> None:
    """Bytes and JSON values come back, and a second write replaces the first."""
    store.write("a/b.bin", b"\0old")
    store.write("a/b.bin", b"new")
    store.write_json("a/c.json", {"é": [1, None]})
    assert store.read("a/b.bin") == b"new"
    assert store.read_json("a/c.json") == {"é": [1, None]}
    assert "é" in store.read("a/c.json").decode()
    assert store.names("a") == ["b.bin", "c.json"]
    assert (store.exists("a"), store.exists("a/b.bin"), store.exists("b")) == (True, True, False)


def test_what_is_missing_is_reported_or_empty(store: Store) -> None:
    """Reading nothing is FileNotFoundError; listing and removing nothing is fine."""
    with pytest.raises(FileNotFoundError):
        store.read("none")
    assert store.names("none") == []
    assert not store.exists()
    store.remove("none")
    store.write("x", b"")
    assert store.exists()


def test_a_created_file_is_there_once_closed(store: Store) -> None:
    """A file written through a handle holds all its bytes after closing."""
    with store.create("new/folder/file") as file:
        file.write(b"one")
        file.write(b"two")
    assert store.read("new/folder/file") == b"onetwo"


def test_a_move_can_be_repeated(store: Store) -> None:
    """Moving again what was moved already changes nothing; moving what never was is an error."""
    store.write("from/x", b"1")
    for _ in range(2):
        store.move("from/x", "to/deep/x")
    assert store.read("to/deep/x") == b"1"
    assert not store.exists("from/x")
    with pytest.raises(FileNotFoundError):
        store.move("from/x", "other/x")


def test_a_move_replaces_what_a_killed_one_left(store: Store) -> None:
    """With both files there the source wins, since only it is known to be whole."""
    store.write("from", b"whole")
    store.write("to", b"half")
    store.move("from", "to")
    assert (store.read("to"), store.exists("from")) == (b"whole", False)


def test_a_folder_is_removed_with_all_it_holds(store: Store) -> None:
    """Removing a folder takes what is below it and nothing next to it."""
    for name in ("a/b/c", "a/d", "ab"):
        store.write(name, b"")
    store.remove("a")
    assert (store.exists("a"), store.names()) == (False, ["ab"])


LEAVING = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "a/../b"]


@pytest.mark.parametrize("path", LEAVING)
def test_no_operation_leaves_the_folder(store: Store, path: str) -> None:
    """A path that is absolute or goes up is refused by everything that takes one."""
    store.write("inside", b"x")
    actions: list[Any] = [store.read, store.exists, store.names, store.create, store.remove]
    actions += [lambda p: store.create_new(p, b""), lambda p: store.exchange(p, b"x", b"")]
    actions += [store.read_json, lambda p: store.write(p, b""), lambda p: store.move("inside", p)]
    actions += [lambda p: store.move(p, "inside"), lambda p: store.write_json(p, 1)]
    for action in actions:
        with pytest.raises(ValueError, match="leaves the folder"):
            action(path)


@given(st.lists(st.sampled_from(["..", ".", "a", "..a", "b..", "", "month=9"]), min_size=1))
def test_a_path_that_is_taken_lies_within(parts: list[str]) -> None:
    """Whatever path is not refused is, resolved, the root or something below it."""
    store = Store("/srv/out")
    try:
        path = store.path("/".join(parts))
    except ValueError:
        return
    assert Path(path) == Path("/srv/out") or Path("/srv/out") in Path(path).parents


@pytest.mark.slow
def test_readers_see_the_old_bytes_or_the_new(tmp_path: Path) -> None:
    """While a file is replaced again and again, each read is one whole version, none is missing."""
    store = Store(str(tmp_path))
    versions = [bytes([number]) * 300_000 for number in range(8)]
    store.write("f", versions[0])
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            data = store.read("f")
            if data not in versions:
                torn.append(len(data))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(200):
        store.write("f", versions[number % 8])
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []
    assert store.names() == ["f"]


@pytest.mark.slow
def test_a_write_in_progress_is_not_listed(tmp_path: Path) -> None:
    """Who lists a folder while files are written into it sees whole files only."""
    store = Store(str(tmp_path))
    stop, strange = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            strange.update(set(store.names()) - {"f", "g"})

    looker = threading.Thread(target=look)
    looker.start()
    for number in range(300):
        store.write("fg"[number % 2], bytes(100_000))
    stop.set()
    looker.join()
    assert strange == set()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A file that cannot be replaced, here by a folder's name, leaves no temporary file behind."""
    store = Store(str(tmp_path))
    store.write("folder/x", b"")
    with pytest.raises(OSError, match="folder"):
        store.write("folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_new_file_is_put_once(store: Store) -> None:
    """A file is created where there is none; one that is there stays as it is."""
    assert store.create_new("a/x", b"first")
    assert not store.create_new("a/x", b"second")
    assert not store.create_new("a/x", b"first")
    assert (store.read("a/x"), store.names("a")) == (b"first", ["x"])


def test_a_file_is_exchanged_by_who_knows_it(store: Store) -> None:
    """A file is replaced by those only who name what it holds; None stands for no file."""
    assert not store.exchange("a/x", b"0", b"1")
    assert store.exchange("a/x", None, b"0")
    assert not store.exchange("a/x", None, b"1")
    assert not store.exchange("a/x", b"other", b"1")
    assert store.exchange("a/x", b"0", b"1")
    assert (store.read("a/x"), store.names("a")) == (b"1", ["x"])


@pytest.mark.slow
def test_one_of_many_creates_and_exchanges(tmp_path: Path) -> None:
    """Of eight at once one learns that it was first, and that one's bytes are there, whole."""
    store = Store(str(tmp_path))
    for turn in range(20):
        old = None if turn % 5 == 0 else store.read("f")
        if old is None:
            store.remove("f")
        versions = [bytes([number]) * 100_000 + bytes([turn]) for number in range(8)]
        gate = threading.Barrier(8)

        def put(new: bytes, old: bytes | None = old, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return store.exchange("f", old, new)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(put, versions))
        assert won.count(True) == 1
        assert store.read("f") == versions[won.index(True)]
    assert store.names() == ["f"]


ADDER = """
import sys
from batchscore.storage.store import Store

store = Store(sys.argv[1])
print("ready", flush=True)
while True:
    old = store.read("count")
    store.exchange("count", old, b"%d" % (int(old) + 1))
"""


def test_a_killed_process_keeps_nobody_from_exchanging(tmp_path: Path) -> None:
    """Processes that count up and are killed in the middle leave a number, and let others go on."""
    store = Store(str(tmp_path))
    store.write("count", b"0")
    command = [sys.executable, "-c", ADDER, store.address]
    for _ in range(2):
        adders = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for adder in adders:
            assert adder.stdout is not None
            assert adder.stdout.readline() == b"ready\n"
        before = int(store.read("count"))
        while int(store.read("count")) < before + 20:
            continue
        for adder in adders:
            adder.kill()
            adder.communicate()
    assert store.exchange("count", store.read("count"), b"done")


def test_empty_folders_are_removed_up_to_the_root(tmp_path: Path) -> None:
    """Pruning takes a folder and its parents while they are empty, never the root."""
    store = Store(str(tmp_path))
    store.write("data/a/b/x", b"")
    store.write("data/c/y", b"")
    store.remove("data/a/b/x")
    for _ in range(2):
        store.prune_empty(["data/a/b", "data/c", "data/none"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "data",
        "data/c",
        "data/c/y",
    ]
    store.remove("data/c/y")
    store.prune_empty(["data/c"])
    assert tmp_path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_pickles_as_its_address(store: Store) -> None:
    """A copy in another process opens the same folder with a connection of its own."""
    store.write("x", b"1")
    data = pickle.dumps(store)
    assert len(data) < 300
    assert pickle.loads(data) == store
    assert pickle.loads(data).read("x") == b"1"


def test_addresses_are_distinguished() -> None:
    """A path is local with and without a scheme; another scheme is not."""
    assert is_local("/x/y")
    assert is_local("file:///x/y")
    assert not is_local("memory://x/y")
    assert open_filesystem("memory://x/y/")[1] == "/x/y"
    assert Store("memory://x/").url("a/b") == "memory://x/a/b"


@pytest.mark.parametrize(
    "address",
    ["/", "//", "/a/b", "/a//b/", "/a/../b", "/a b/é", "/~/x", "/a:b", "/s3:/a", "/a=1/*"],
)
def test_local_paths_are_opened_as_fsspec_opens_them(address: str) -> None:
    """Looking at thousands of shards skips what fsspec parses of each, and finds the same."""
    filesystem, path = open_filesystem(address)
    expected, inner = fsspec.core.url_to_fs(address)
    assert type(filesystem) is type(expected)
    assert path == (inner.rstrip("/") or "/")


def test_a_mark_changes_when_a_file_does(store: Store) -> None:
    """A file written again bears another mark than before, the same one when it is asked again."""
    marks = []
    for content in (b"1", b"2"):
        store.write("x", content)
        filesystem, root = open_filesystem(store.address)
        marks += [modification_mark(filesystem.info(f"{root}/x")) for _ in range(2)]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    assert "" not in marks


def test_a_mark_is_the_same_as_number_and_as_date() -> None:
    """A time given as a date and as seconds makes one mark."""
    moment = datetime(2026, 11, 20, tzinfo=timezone.utc)
    assert modification_mark({"mtime": moment}) == modification_mark({"mtime": moment.timestamp()})
    assert modification_mark({"ETag": "e", "mtime": 1}) == "e"
    assert modification_mark({}) == ""
