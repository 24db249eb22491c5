"""Test that what is put by content comes back as it was, and that nothing else is taken for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import FailedError
from batchscore.storage import by_content
from batchscore.storage.by_content import Content, content_of, fetch, file_of, put_all
from batchscore.storage.store import Store

PART = 5
NAMES = st.text("abc_é.", min_size=1, max_size=4).filter(lambda name: not name.startswith("."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=3 * PART), max_size=4).filter(
    lambda tree: not any(a != b and b.startswith(f"{a}/") for a in tree for b in tree)
)


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Iterator[None]:
    """Parts of five bytes, so that small files have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_content, "_PART_BYTES", PART)
        yield


class Place:
    """Files of a launcher, a store, and the cache of a worker, below one folder."""

    def __init__(self, root: Path, tree: Mapping[str, bytes]) -> None:
        self.source, self.cache = root / "source", root / "cache"
        self.store = Store(str(root / "out"))
        self.cache.mkdir()
        for name, data in tree.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_bytes(data)
        self.files = {name: content_of(str(self.source / name)) for name in tree}

    def put(self) -> None:
        """Puts all files."""
        put_all(self.store, "kept", {str(self.source / k): v for k, v in self.files.items()})

    def fetch(self) -> Path:
        """Fetches all files."""
        return fetch(self.store, "kept", self.files, self.cache)

    def objects(self) -> list[Path]:
        """The objects of the store."""
        return sorted(Path(self.store.path("kept")).glob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two files, one of three parts, that were put."""
    made = Place(tmp_path, {"f.py": b"code", "lists/long.txt": b"twelve bytes"})
    made.put()
    return made


def held(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@settings(max_examples=25)
@given(TREES)
def test_what_was_put_is_fetched(tree: dict[str, bytes]) -> None:
    """Each file has its bytes and its path; to put and to fetch again changes nothing."""
    with TemporaryDirectory() as root:
        place = Place(Path(root), tree)
        place.put()
        first = place.objects()
        marks = [path.stat().st_ino for path in first]
        folder = place.fetch()
        place.put()
        assert held(folder) == tree
        assert [path.stat().st_ino for path in place.objects()] == marks
        made = folder.stat().st_ino
        assert (place.fetch(), folder.stat().st_ino) == (folder, made)
        hashes = {hashlib.sha256(data).hexdigest() for data in tree.values()}
        assert {file_of(path.name) for path in first} == hashes


@settings(max_examples=40)
@given(st.binary(min_size=1, max_size=3 * PART), st.data())
def test_no_other_bytes_are_taken(data: bytes, draw: st.DataObject) -> None:
    """An object with a byte changed, cut off or added is refused by name; the remedy works."""
    with TemporaryDirectory() as root:
        place = Place(Path(root), {"f.py": data})
        place.put()
        hurt = draw.draw(st.sampled_from(place.objects()))
        before = hurt.read_bytes()
        at = draw.draw(st.integers(0, len(before) - 1))
        flipped = before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :]
        hurt.write_bytes(draw.draw(st.sampled_from([flipped, before[:at], before + b"x"])))
        with pytest.raises(FailedError, match=rf"{hurt.name}.*f.py.*remove it, and run again"):
            place.fetch()
        assert not [*place.cache.glob("[!.]*")]
        hurt.unlink()
        place.put()
        assert held(place.fetch()) == {"f.py": data}


def test_a_torn_object_is_put_again(place: Place) -> None:
    """An object of another size, as a power cut may leave it, is replaced by the next put."""
    for torn in place.objects():
        torn.write_bytes(torn.read_bytes()[:-1])
    place.put()
    assert held(place.fetch()) == held(place.source)


def test_a_missing_object_is_named(place: Place) -> None:
    """The message names the object and the file, and running again puts it."""
    gone = place.objects()[0]
    gone.unlink()
    with pytest.raises(FailedError, match=rf"{gone.name}, which holds .* is missing; run again"):
        place.fetch()
    place.put()
    assert held(place.fetch()) == held(place.source)


def test_a_file_that_changed_is_not_put(place: Place) -> None:
    """What was hashed is what is put, or nothing is."""
    (place.source / "f.py").write_bytes(b"edit")
    for path in place.objects():
        path.unlink()
    with pytest.raises(FailedError, match=r"f\.py was changed since it was hashed; run again"):
        place.put()
    assert place.files["f.py"].sha256 not in {path.name for path in place.objects()}


@pytest.mark.parametrize(
    "name", ["../f.py", "/f.py", "a/../../f.py", "a//b", "", ".", ".env", "a/.git/x", "a\0"]
)
def test_a_hostile_path_is_refused(name: str, place: Place) -> None:
    """A path that leaves the folder, or is hidden, is refused before anything is written."""
    place.files = {name: place.files["f.py"]}
    with pytest.raises(FailedError, match="expected a path below its folder"):
        place.fetch()
    assert [*place.cache.iterdir()] == []


@pytest.mark.parametrize("name", ["a\\b.txt", "two words/ü.txt", "a\nb", "%2E%2E", "a..b", "~"])
def test_an_odd_name_is_a_name(name: str, tmp_path: Path) -> None:
    """What a job may declare on this machine reaches its workers."""
    place = Place(tmp_path, {name: b"content"})
    place.put()
    assert held(place.fetch()) == {name: b"content"}


@pytest.mark.parametrize("damage", ["changed", "removed", "link to a file", "link to a folder"])
def test_a_damaged_copy_is_made_again(damage: str, place: Place, tmp_path: Path) -> None:
    """A copy that is not what was fetched is never used, even if a link leads to the same bytes."""
    folder = place.fetch()
    file = folder / "lists/long.txt"
    if damage == "changed":
        file.write_bytes(b"other  bytes")
    elif damage == "removed":
        file.unlink()
    elif damage == "link to a file":
        file.unlink()
        file.symlink_to(place.source / "lists/long.txt")
    else:
        (folder / "lists").rename(tmp_path / "moved")
        (folder / "lists").symlink_to(tmp_path / "moved")
    assert place.fetch() == folder
    assert held(folder) == held(place.source)
    assert not file.is_symlink()
    assert not file.parent.is_symlink()


def test_workers_of_one_machine_fetch_at_once(place: Place) -> None:
    """Each gets the same consistent folder, and nothing else is left in the cache."""
    (place.cache / f"{place.fetch().name}.killed").mkdir()
    (place.fetch() / "f.py").unlink()
    with ThreadPoolExecutor(8) as pool:
        found = {folder.result() for folder in [pool.submit(place.fetch) for _ in range(16)]}
    (folder,) = found
    assert held(folder) == held(place.source)
    assert [path.name for path in place.cache.glob("[!.]*")] == [folder.name]


def test_no_more_is_read_than_was_put(place: Place) -> None:
    """An object that grew without limit costs no memory."""
    (grown,) = (path for path in place.objects() if path.name == place.files["f.py"].sha256)
    os.truncate(grown, 1 << 40)
    with pytest.raises(FailedError, match="is damaged"):
        place.fetch()


def test_a_full_disk_is_named(place: Place) -> None:
    """The message names the folder of the worker, and what to do."""
    place.cache = Path("/dev/full/cache")
    with pytest.raises(FailedError, match=r"/dev/full.*set TMPDIR for the worker"):
        place.fetch()


def test_other_names_belong_to_no_file() -> None:
    """The name of a file that somebody else put there is not that of an object."""
    assert [file_of(name) for name in ("x", "0" * 63, ".tmp")] == [None] * 3
    assert file_of(Content(0, "0" * 64).objects[0].name) == "0" * 64


def test_launchers_put_the_same_at_once(place: Place) -> None:
    """Of several that find nothing, or torn objects, each leaves what workers can fetch."""
    for path in place.objects():
        path.unlink()
        if path.name.endswith(".1"):
            path.write_bytes(b"")
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(place.put) for _ in range(8)]:
            done.result()
    assert held(place.fetch()) == held(place.source)
