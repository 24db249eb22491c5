"""Test that files of unknown size and kind are read within bounds, and hashed as they are."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.storage.reading import TooLargeError, digest_of, open_plain, read_at_most
from batchscore.storage.store import Store


@given(st.binary(max_size=20), st.integers(0, 20))
def test_no_more_than_the_bound_is_read(content: bytes, most: int) -> None:
    """A file within the bound is read whole; one byte more is an error."""
    if len(content) <= most:
        assert read_at_most(io.BytesIO(content), most) == content
        return
    with pytest.raises(TooLargeError, match=f"more than {most} bytes"):
        read_at_most(io.BytesIO(content), most)


@pytest.mark.parametrize("size", [0, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_digest_is_of_the_whole_file(size: int, tmp_path: Path) -> None:
    """Size and SHA-256 are those of all parts, on a disk and elsewhere."""
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    fsspec.filesystem("memory").pipe_file("/digest/f", content)
    for store in (Store(str(tmp_path)), Store("memory://digest")):
        found = store.digest("f")
        assert (found.bytes, found.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert digest_of(io.BytesIO(content)) == found


def test_only_a_plain_file_is_opened(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes into, and a missing file are errors at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe or a device, expected a file"):
        open_plain(str(tmp_path / "pipe"))
    with pytest.raises(IsADirectoryError, match="expected a file"):
        open_plain(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        open_plain(str(tmp_path / "none"))


@pytest.mark.parametrize("address", ["memory://reading", "{}"])
def test_a_store_opens_files_and_nothing_else(address: str, tmp_path: Path) -> None:
    """Parts follow each other; a folder and a missing file are Python's own errors."""
    store = Store(address.format(tmp_path))
    store.write("folder/f", b"abcdef")
    with store.open("folder/f") as file:
        assert (file.read(2), file.read(3), file.read(), file.read(1)) == (b"ab", b"cde", b"f", b"")
    with pytest.raises(IsADirectoryError, match="expected a file"):
        store.open("folder")
    with pytest.raises(FileNotFoundError, match="none"):
        store.open("none")
