"""Test that a remote file read from its end has the bytes of the file."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.storage import tail
from batchscore.storage.tail import TailFile

SEEKS = st.tuples(st.integers(0, 40), st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]))


@given(st.binary(max_size=30), st.lists(st.tuples(SEEKS, st.integers(-1, 40)), max_size=6))
def test_it_reads_as_any_file_does(data: bytes, steps: list[tuple[tuple[int, int], int]]) -> None:
    """Wherever and however much is read, the bytes are those of the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "_TAIL_BYTES", 8)
        remote, local = TailFile(lambda start, end: data[start:end], len(data)), io.BytesIO(data)
        for (offset, whence), size in steps:
            back = -min(offset, len(data)) if whence == io.SEEK_END else offset
            assert remote.seek(back, whence) == local.seek(back, whence)
            assert remote.read(size) == local.read(size)
            assert remote.tell() == local.tell()


def test_a_small_file_takes_one_request() -> None:
    """All of a file that is no longer than a tail comes with the first bytes that are asked for."""
    asked: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return bytes(end - start)

    file = TailFile(fetch, 1000)
    file.seek(-8, io.SEEK_END)
    assert (file.read(4), file.seek(0), file.read()) == (bytes(4), 0, bytes(1000))
    assert asked == [(0, 1000)]


def test_a_file_that_became_shorter_is_an_error() -> None:
    """Bytes that are missing are not taken for the file's end."""
    with pytest.raises(OSError, match="has not the 1,000 bytes any more"):
        TailFile(lambda start, end: bytes(10), 1000).read()
