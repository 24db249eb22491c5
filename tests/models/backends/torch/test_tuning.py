"""Test that the search finds the fastest calls that fit, and that what it found is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import DeviceError
from batchscore.models.backends.remembered import cache_file
from batchscore.models.backends.torch.tuning import (
    FILE,
    Speed,
    remember_rows,
    remembered_rows,
    search_rows,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@given(
    first=st.integers(1, 4096),
    most=st.integers(1, 65_536),
    best=st.integers(1, 65_536),
    row_bytes=st.integers(1, 1000),
    limit=st.integers(1, 20_000_000),
    fails=st.integers(1, 100_000),
)
def test_what_is_found_fits(
    first: int, most: int, best: int, row_bytes: int, limit: int, fails: int
) -> None:
    """Whatever a device can hold, the rows fit and no more doublings that pay are left out."""
    tried: list[int] = []

    def rate(rows: int) -> float:
        return float(min(rows, best))

    def measure(rows: int) -> Speed | None:
        tried.append(rows)
        return Speed(rate(rows), rows * row_bytes) if rows < fails else None

    if min(limit // row_bytes, fails - 1) < 1:
        with pytest.raises(DeviceError, match="one row alone"):
            search_rows(first, most, measure, limit)
        return
    rows = search_rows(first, most, measure, limit)
    assert 1 <= rows <= most
    assert rows < fails
    assert rows * row_bytes <= limit
    twice = 2 * rows
    pays = rate(twice) > 1.05 * rate(rows)
    assert not (pays and twice <= most and twice * row_bytes <= limit and twice < fails)
    assert len(tried) == len(set(tried)) <= 30


def test_a_doubling_that_gains_little_is_not_taken() -> None:
    """Five per cent is where it ends: 4 % more is left, 6 % more is taken."""
    rates = {1024: 100.0, 2048: 106.0, 4096: 110.0, 8192: 500.0}
    assert search_rows(1024, 8192, lambda rows: Speed(rates[rows], 0), 1) == 2048


def test_rows_are_remembered() -> None:
    """Each key has its own, the last one said; larger than a batch they do not count."""
    remember_rows("a", 2048)
    remember_rows("b", 4096)
    remember_rows("a", 1024)
    assert [remembered_rows(key, 65_536) for key in "abc"] == [1024, 4096, None]
    assert remembered_rows("b", 2048) is None
    assert [path.name for path in cache_file(FILE).parent.iterdir()] == ["micro_batch.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b'{"a": "1024"}',
        b'{"a": -1}',
        b'{"a": true}',
        b'{"a": 1e3}',
        b'{"a": {"a": 1}}',
        b"[" * 100_000,
        b'{"a": 9' + b"9" * 5000 + b"}",
        b" " * (2 << 20) + b'{"a": 1}',
    ],
    ids=lambda content: str(content[:12]),
)
def test_a_damaged_file_is_as_none(content: bytes) -> None:
    """Whatever the file holds, nothing is remembered, and the next size replaces it."""
    path = cache_file(FILE)
    path.parent.mkdir()
    path.write_bytes(content)
    assert remembered_rows("a", 65_536) is None
    remember_rows("a", 8)
    assert remembered_rows("a", 65_536) == 8


def test_a_cache_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    """A file where the folder should be is no error: the next run searches again."""
    (tmp_path / "batchscore").write_text("in the way")
    remember_rows("a", 8)
    assert remembered_rows("a", 8) is None


def test_a_pipe_in_the_cache_is_not_waited_for() -> None:
    """What is no file holds nothing, and nobody waits for it to."""
    cache_file(FILE).parent.mkdir()
    os.mkfifo(cache_file(FILE))
    assert remembered_rows("a", 8) is None


def test_what_cannot_be_put_in_place_is_taken_away() -> None:
    """Where the cache file is a folder, no other file stays next to it."""
    cache_file(FILE).mkdir(parents=True)
    remember_rows("a", 8)
    assert [path.name for path in cache_file(FILE).parent.iterdir()] == ["micro_batch.json"]


def test_the_file_stays_small() -> None:
    """The oldest sizes are forgotten."""
    for number in range(300):
        remember_rows(str(number), 8)
    assert remembered_rows("0", 8) is None
    assert remembered_rows("299", 8) == 8
