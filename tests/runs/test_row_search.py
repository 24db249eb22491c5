"""Rows are found by their values, wherever row groups and batches end."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InvalidError, RecordError
from batchscore.runs import row_search as search
from batchscore.runs.row_search import find_rows, parse_value, read_kinds
from batchscore.storage.store import Store

# Values of each kind with the text that asks for them.
VALUES: dict[str, tuple[pa.DataType, dict[str, Any]]] = {
    "int": (pa.int16(), {"0": 0, "-7": -7, "null": None}),
    "unsigned": (pa.uint64(), {"1": 1, str(2**64 - 1): 2**64 - 1, "null": None}),
    "half": (pa.float16(), {"0.5": 0.5, "nan": math.nan, "null": None}),
    "float": (pa.float32(), {"0.1": 0.1, "-0.0": -0.0, "nan": math.nan, "inf": math.inf}),
    "text": (pa.string(), {"": "", "a=b": "a=b", "null": None, '"null"': "null", '"x"': "x"}),
    "large": (pa.large_string(), {"a": "a", '""b""': '"b"', "null": None}),
    "codes": (pa.dictionary(pa.int32(), pa.string()), {"a": "a", "null": None, "b": "b"}),
    "numbers": (pa.dictionary(pa.int8(), pa.float64()), {"0.5": 0.5, "nan": math.nan}),
    "bool": (pa.bool_(), {"true": True, "false": False, "null": None}),
    "list": (pa.list_(pa.int32()), {"null": None}),
}
KINDS = st.sampled_from(sorted(VALUES))


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Makes batches of three rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_BATCH_ROWS", 3)
        yield


def same(one: Any, other: Any) -> bool:
    """Equal, or both NaN."""
    return bool(one == other or (one != one and other != other))


@pytest.mark.slow
@given(KINDS, KINDS, st.data(), st.integers(1, 8), st.integers(1, 20))
def test_just_the_rows_with_the_values_are_found(
    one: str, other: str, data: st.DataObject, group: int, limit: int
) -> None:
    """The first rows that hold all values, in their order, with all columns, and no others."""
    names = sorted({one, other})
    rows = data.draw(
        st.lists(st.tuples(*(st.sampled_from(sorted(VALUES[n][1])) for n in names)), max_size=20)
    )
    asked = data.draw(st.tuples(*(st.sampled_from(sorted(VALUES[n][1])) for n in names)))
    columns = {
        name: pa.array([VALUES[name][1][row[i]] for row in rows], VALUES[name][0])
        for i, name in enumerate(names)
    }
    table = pa.table({"number": pa.array(range(len(rows)), pa.int32()), **columns})
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, f"{folder}/x.parquet", row_group_size=group)
        store = Store(folder)
        kinds = read_kinds(store, "x.parquet")
        wanted = {n: parse_value(n, text, kinds[n]) for n, text in zip(names, asked, strict=True)}
        found = find_rows(store, "x.parquet", wanted, limit)
    meant = [VALUES[name][1][text] for name, text in zip(names, asked, strict=True)]
    expected = [
        number
        for number, row in enumerate(rows)
        if all(
            same(VALUES[n][1][text], value)
            for n, text, value in zip(names, row, meant, strict=True)
        )
    ]
    assert found.positions_n.tolist() == expected[:limit]
    assert found.rows["number"].to_pylist() == expected[:limit]
    assert set(found.rows.schema.names) == {"number", *names}


@pytest.mark.parametrize("name", VALUES)
def test_each_value_of_a_kind_is_found(name: str, tmp_path: Path) -> None:
    """Each text finds the value that it stands for, alone in a row group, and no other."""
    kind, values = VALUES[name]
    column = pa.array([*values.values(), *values.values()], kind)
    pq.write_table(pa.table({"x": column}), tmp_path / "x.parquet", row_group_size=1)
    store = Store(str(tmp_path))
    for number, text in enumerate(values):
        value = parse_value("x", text, read_kinds(store, "x.parquet")["x"])
        found = find_rows(store, "x.parquet", {"x": value}, 9)
        assert found.positions_n.tolist() == [number, number + len(values)], text


def test_footers_that_cannot_hold_a_value_are_not_read(tmp_path: Path) -> None:
    """Damaged pages of other row groups do not matter; those of its own do."""
    table = pa.table({"id": range(3000)})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    store = Store(str(tmp_path))
    assert find_rows(store, "x.parquet", {"id": pa.scalar(2500)}, 9).positions_n.tolist() == [2500]
    with pytest.raises(RecordError, match=r"x\.parquet: damaged"):
        find_rows(store, "x.parquet", {"id": pa.scalar(1500)}, 9)


def test_with_nothing_wanted_all_rows_are_found(tmp_path: Path) -> None:
    """Where only the path was asked, a file's first rows are all that is meant."""
    pq.write_table(pa.table({"id": range(9)}), tmp_path / "x.parquet", row_group_size=4)
    found = find_rows(Store(str(tmp_path)), "x.parquet", {}, 6)
    assert found.positions_n.tolist() == found.rows["id"].to_pylist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (pa.uint8(), "300", r"x=300: expected uint8 such as 7, or null"),
        (pa.float32(), "a", r"such as 0\.5"),
        (pa.bool_(), "yes", r"such as true"),
        (pa.date32(), "20.11.2026", r"such as 2026-11-20"),
        (pa.timestamp("us"), "2026-11-20T00:00:00Z", r"such as 2026-11-20T09:30:00, or"),
        (pa.decimal128(4, 1), "1.25", r"expected decimal128\(4, 1\), or null"),
        (pa.list_(pa.int8()), "[1]", r"search it for x=null only"),
        (pa.string(), "\udcff", r"expected string"),
    ],
    ids=str,
)
def test_a_text_that_is_no_value_is_refused(kind: pa.DataType, text: str, words: str) -> None:
    """The error names the value, the type, and a value that would do."""
    with pytest.raises(InvalidError, match=words):
        parse_value("x", text, kind)
