"""Test that key hashes are equal just where keys are, and lie in the file sorted, run by run."""

from __future__ import annotations

import io
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import StepError
from batchscore.stages import key_hashes as keys
from batchscore.stages.key_hashes import KeysFile, hash_keys
from batchscore.storage.store import Store
from tests.factory import make_batch

NOON = datetime(2026, 11, 20, 12, 30, 15)
DAY = date(1969, 12, 30)


def _hashes(batch: pa.RecordBatch, *columns: str) -> list[tuple[int, int]]:
    hi_b, lo_b = hash_keys(batch, columns or tuple(batch.schema.names))
    assert hi_b.dtype == lo_b.dtype == np.uint64
    return list(zip(hi_b.tolist(), lo_b.tolist(), strict=True))


def _one(*values: pa.Array) -> list[tuple[int, int]]:
    return _hashes(pa.RecordBatch.from_arrays(list(values), names=[*"abcd"[: len(values)]]))


VALUES = st.tuples(
    st.none() | st.integers(-3, 3),
    st.none() | st.sampled_from([0.0, -0.0, 1.5, float("nan")]),
    st.none() | st.sampled_from(["", "a", "ab", "b", "None", "é\0"]),
    st.none() | st.booleans(),
)


def _equal_form(row: tuple[Any, ...]) -> str:
    return repr([0.0 if value == 0 and isinstance(value, float) else value for value in row])


@settings(deadline=None)
@given(st.lists(VALUES, max_size=12), st.integers(0, 3))
def test_rows_hash_alike_just_where_their_keys_are_equal(rows: list[Any], start: int) -> None:
    """Nulls equal nulls, NaN equals NaN, 0.0 equals -0.0, and nothing else is alike."""
    kinds = [pa.int64(), pa.float64(), pa.string(), pa.bool_()]
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    rows = rows[start:]
    hashes = _one(*(column[start:] for column in columns))
    assert len(hashes) == len(rows)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (hashes[i] == hashes[j]) == (_equal_form(one) == _equal_form(other))


NUMBERS = pa.array([0, 1, None, 100], pa.int8())
TEXTS = pa.array(["a", "bc", None, ""])
NANS = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
DECIMALS = pa.array([Decimal("7.00"), Decimal("-1.50")], pa.decimal256(76, 2))
TIMES = pa.array([NOON, None, datetime(1960, 1, 1)], pa.timestamp("s"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[(NUMBERS, NUMBERS.cast(kind)) for kind in ("int16", "int32", "int64", "uint8", "uint64")],
        (pa.array([-1, 5], pa.int8()), pa.array([-1, 5])),
        (pa.array([1.5, None], pa.float16()), pa.array([1.5, None], pa.float64())),
        (pa.array([1.5, -0.0], pa.float32()), pa.array([1.5, 0.0], pa.float64())),
        *[(TEXTS, TEXTS.cast(kind)) for kind in (pa.large_string(), pa.binary(), pa.string_view())],
        (TEXTS, TEXTS.dictionary_encode()),
        (pa.array([b"ab"]), pa.array([b"ab"], pa.binary(2))),
        *[(TIMES, TIMES.cast(pa.timestamp(unit))) for unit in ("ms", "us", "ns")],
        (pa.array([DAY], pa.date32()), pa.array([DAY], pa.date64())),
        (pa.array([time(5)], pa.time32("s")), pa.array([time(5)], pa.time64("ns"))),
        (pa.array([-1501], pa.timestamp("ms")), pa.array([-1501 * 10**6], pa.timestamp("ns"))),
        (to_arrow(NANS), to_arrow(NANS[::-1])),
        (DECIMALS[1:], pa.array([Decimal("-1.50")], pa.decimal128(5, 2))),
        (pa.array([-1], pa.duration("s")), pa.array([-1000], pa.duration("ms"))),
        (
            pa.array([Decimal("-1.50")], pa.decimal128(5, 2)),
            pa.array([Decimal("-1.50")], pa.decimal256(60, 2)),
        ),
        (pa.array([None, None], pa.null()), pa.array([None, None], pa.float32())),
    ],
    ids=lambda column: str(column.type),
)
def test_a_value_hashes_alike_in_any_width(one: pa.Array, other: pa.Array) -> None:
    """What a column is stored as does not change the hash of its values."""
    assert _one(one) == _one(other)


@pytest.mark.parametrize(
    "columns",
    [
        [["ab", "a"], ["c", "bc"]],
        [["a", "b"], ["b", "a"]],
        [[None, "a"], ["a", None]],
        [pa.array([0, None])],
        [pa.array([0.0, None])],
        [pa.array([Decimal(2**120), Decimal(2**121)], pa.decimal256(60, 0))],
        [pa.array([1, 1001], pa.timestamp("ms"))],
        [pa.array([1, 2], pa.timestamp("ns"))],
        [pa.array([NOON, NOON + timedelta(days=1)])],
        [pa.array([b"a", b"a\0"])],
    ],
    ids=lambda columns: ", ".join(str(pa.array(column).type) for column in columns),
)
def test_different_keys_hash_differently(columns: list[Any]) -> None:
    """A text that ends in another column, values that changed places, and nulls differ."""
    one, other = _one(*(pa.array(column) for column in columns))
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_hashes_stay_the_same_for_ever() -> None:
    """Hashes that earlier runs left are compared with today's, so no release may change them."""
    batch = make_batch(n=[7, None], t=["flight", ""], x=[0.5, -0.0], d=[DAY, None])
    assert _hashes(batch) == [
        (0x3958CECED28360F4, 0x3B4ACA11A7A7821B),
        (0x5691827FD3A1FDC9, 0xE51C08950864C57B),
    ]


EVERY_TYPE = make_batch(
    i=pa.array([1, None], pa.int8()),
    u=pa.array([2**63, 1], pa.uint64()),
    h=pa.array([1.5, None], pa.float16()),
    f=pa.array([0.1, -0.0], pa.float32()),
    s=pa.array(["x", None], pa.large_string()),
    b=pa.array([b"\xff", b""]),
    w=pa.array([b"ab", None], pa.binary(2)),
    c=pa.array(["x", "y"]).dictionary_encode(),
    t=pa.array([NOON, None], pa.timestamp("s")),
    z=pa.array([NOON, None], pa.timestamp("ns", "Europe/Berlin")),
    d=pa.array([DAY, None], pa.date64()),
    o=pa.array([time(5, 6, 7), None], pa.time32("s")),
    e=pa.array([Decimal("1.5"), None], pa.decimal128(9, 3)),
    k=pa.array([True, None]),
    n=pa.array([None, None], pa.null()),
)


def test_a_written_row_hashes_as_before() -> None:
    """Parquet keeps some types as others; the hash of what is read back is the same."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([EVERY_TYPE]), file, store_schema=False)
    back = pq.read_table(file).combine_chunks().to_batches()[0]
    assert back.schema != EVERY_TYPE.schema
    for name in EVERY_TYPE.schema.names:
        assert (name, _hashes(back, name)) == (name, _hashes(EVERY_TYPE, name))


@pytest.mark.slow
def test_a_million_keys_do_not_collide() -> None:
    """Consecutive and scattered numbers in two columns have hashes that all differ."""
    numbers = np.arange(1_000_000)
    hi_b, lo_b = hash_keys(make_batch(a=numbers // 1000, b=numbers % 1000), ("a", "b"))
    assert len(np.unique(hi_b)) == len(np.unique(lo_b)) == 1_000_000


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int8()), pa.struct({"x": pa.int8()}), pa.list_(pa.int8(), 2)], ids=str
)
def test_a_key_of_lists_or_structs_is_refused(kind: pa.DataType) -> None:
    """The error names the column and its type, in whatever rows."""
    batch = make_batch(a=[1, 2], odd=pa.array([None, None], kind))
    with pytest.raises(StepError, match=r"checks\.unique: column 'odd' is .*cannot be part"):
        hash_keys(batch, ("a", "odd"))


def test_a_key_column_that_is_not_written_is_refused() -> None:
    """The error names it and what is written."""
    with pytest.raises(StepError, match="column 'c' is not among what is written, a, b;"):
        hash_keys(make_batch(a=[1], b=[2]), ("a", "c"))


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), max_size=6), st.integers(0, 20)
)
def test_a_keys_file_holds_sorted_runs(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], promised: int
) -> None:
    """Runs and row groups keep their bounds, each run is sorted, and no row is lost.

    Not where more rows come than were promised, either.
    """
    store = Store(str(tmp_path_factory.mktemp("keys")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "RUN_ROWS", 8)
        patch.setattr(keys, "_HASHED_ROWS", 3)
        patch.setattr(keys, "ROW_GROUP_ROWS", 3)
        file, rows = KeysFile(store, "k.parquet", ("n",), promised), 0
        for batch in batches:
            file.add(make_batch(n=batch), pa.array(range(rows, rows + len(batch)), pa.int64()))
            rows += len(batch)
        file.close()
    assert file.written == ("k.parquet" if rows else None)
    if not rows:
        assert store.names() == []
        return
    made = pq.ParquetFile(store.path("k.parquet"))
    begins = json.loads((made.metadata.metadata or {})[b"runs"])
    assert (begins[0], begins[-1]) == (0, made.num_row_groups)
    found = []
    for first, end in pairwise(begins):
        run = [tuple(row.values()) for row in made.read_row_groups(range(first, end)).to_pylist()]
        assert run == sorted(run)
        assert 0 < len(run) <= 8
        found += run
    hashes = _one(pa.array([n for batch in batches for n in batch]))
    assert sorted(found, key=lambda row: row[2]) == [(*h, row) for row, h in enumerate(hashes)]


_HALVES = st.sampled_from([0, 1, 2, 3, 255, 256, 1 << 62, (1 << 62) + 1, (1 << 64) - 1])


@given(st.lists(st.tuples(_HALVES, _HALVES), min_size=1))
def test_hashes_that_share_a_half_are_sorted_by_the_other(pairs: list[tuple[int, int]]) -> None:
    """The order is that of both halves, and of the rows where both are equal."""
    hi_n, lo_n = (np.array(half, np.uint64) for half in zip(*pairs, strict=True))
    expected = sorted(range(len(pairs)), key=pairs.__getitem__)
    assert keys._sort_order(hi_n, lo_n).tolist() == expected


def test_an_abandoned_keys_file_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After abort no handle is open."""
    monkeypatch.setattr(keys, "RUN_ROWS", 2)
    file = KeysFile(Store(str(tmp_path)), "k.parquet", ("n",), 6)
    for row in range(3):
        file.add(make_batch(n=[1, 2]), pa.array([row, row + 1], pa.int64()))
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert tmp_path / "k.parquet" in opened
    file.abort()
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert tmp_path / "k.parquet" not in opened
