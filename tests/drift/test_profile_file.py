"""Test that stored profiles come back, are small and deterministic, and that damage is found."""

from __future__ import annotations

import functools
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drift.profile_file import PROFILE_KEY, RECORD_KEY, read_table, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from tests.drift.laws import profile_of

META: dict[str, Any] = {"unit": "00ff", "rows": {"read": 3}}


def example() -> TableProfile:
    """Return a profile of all kinds of column, one of them coarsened."""
    chance = np.random.default_rng(7)
    columns = {
        "normal": chance.normal(size=20_000),
        "empty": pa.nulls(20_000, pa.float64()),
        "id": chance.integers(2**63, 2**64 - 1, 20_000, dtype=np.uint64),
        "text": pa.array(["a", "b"] * 10_000),
        "list": pa.array([[1], None] * 10_000),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(chance.normal(size=60_000)), 3),
    }
    return profile_of([pa.RecordBatch.from_pydict(columns)])


@functools.cache
def written_example() -> pa.Table:
    """Return the rows of the example's file, and its metadata."""
    return pq.read_table(pa.BufferReader(write_table(example(), META)))


def edited(change: Any, **metadata: Any) -> bytes:
    """Return the example's file with its rows changed by `change` and JSON of its metadata."""
    table = written_example()
    texts = (table.schema.metadata or {}) | {
        f"batchscore.{key}".encode(): json.dumps(value).encode() for key, value in metadata.items()
    }
    sink = io.BytesIO()
    pq.write_table(change(table).replace_schema_metadata(texts), sink)
    return sink.getvalue()


def with_column(name: str, first: int) -> Any:
    """Return a change that replaces the first value of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = [first, *table[name].to_pylist()[1:]]
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.array(values, table.schema.field(name).type))

    return change


def test_what_was_written_is_read() -> None:
    """Profile and meta come back, and give the same bytes again."""
    profile = example()
    data = write_table(profile, META)
    read, meta = read_table(data)
    assert meta == META
    assert read.summary() == profile.summary()
    assert write_table(read, meta) == data


def test_large_and_approximate_parts_may_lie_apart() -> None:
    """Two files give the same profile as one; of the first alone labels are hashes."""
    profile = example()
    main, extra = write_table(profile, META, extra=False), write_table(profile, {}, extra=True)
    both, meta = read_table(main, extra)
    assert (write_table(both, META), meta) == (write_table(profile, META), META)
    alone, _ = read_table(main)
    assert write_table(alone, META, extra=False) == main
    with pytest.raises(RecordError, match="another profile"):
        read_table(main, write_table(TableProfile.empty(), {}, extra=True))
    with pytest.raises(RecordError, match="repeats the first"):
        read_table(write_table(profile, META), extra)


def test_a_read_profile_goes_on() -> None:
    """A profile that was read counts further rows like the one that was written."""
    batch = pa.RecordBatch.from_pydict({"normal": np.linspace(-9, 9, 50_000)})
    whole, (read, _) = example(), read_table(write_table(example(), {}))
    whole.update(batch)
    read.update(batch)
    assert write_table(read, {}) == write_table(whole, {})


def test_no_columns_are_stored_too() -> None:
    """The profile of nothing comes back."""
    profile, meta = read_table(write_table(TableProfile.empty(), META))
    assert (profile.columns, meta) == ({}, META)


@given(st.lists(st.text(), unique=True, max_size=5))
@settings(deadline=None, max_examples=30)
def test_hostile_names_are_data(names: list[str]) -> None:
    """Any column name comes back as it was."""
    batch = pa.RecordBatch.from_arrays([pa.array([1.0])] * len(names), names=names)
    read, _ = read_table(write_table(profile_of([batch]), {}))
    assert sorted(read.columns) == sorted(names)


def test_a_column_takes_a_few_kilobytes() -> None:
    """Over columns of several shapes, 300,000 rows take less than 5 KB a column."""
    chance, rows = np.random.default_rng(8), 300_000
    columns = {
        "normal": chance.normal(size=rows),
        "lognormal": chance.lognormal(size=rows),
        "uniform": chance.random(rows),
        "integers": chance.integers(0, rows, rows),
        "few": chance.integers(0, 5, rows),
    }
    data = write_table(profile_of([pa.RecordBatch.from_pydict(columns)]), {})
    assert len(data) < 5000 * len(columns)


def test_any_tool_reads_the_buckets() -> None:
    """The file is plain Parquet with a row a part's entry, and JSON in its metadata."""
    table = pq.read_table(pa.BufferReader(write_table(example(), META)))
    assert table.column_names == ["aspect", "part", "shift", "key", "count", "value"]
    texts = table.schema.metadata or {}
    assert json.loads(texts[RECORD_KEY]) == META
    record = json.loads(texts[PROFILE_KEY])
    names = [column["name"] for column in record["columns"]]
    assert record["version"] == 1
    assert names == sorted(example().columns)


@pytest.mark.slow
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_damaged_bytes_are_an_error_or_harmless(place: int, junk: bytes) -> None:
    """Bytes that were cut or overwritten raise RecordError, never anything else."""
    data = write_table(example(), META)
    place %= len(data)
    for damaged in (data[:place], data[:place] + junk + data[place + len(junk) :]):
        try:
            read_table(damaged)
        except RecordError as error:
            assert "cannot be read" in str(error)  # noqa: PT017


def one(scalars: dict[str, Any] | None = None, **column: Any) -> dict[str, Any]:
    """Return the record of a profile of one column, a null."""
    aspect = {
        "name": "value",
        "kind": "numbers",
        "type": "double",
        "scalars": {"space": "float", **(scalars or {})},
    }
    head = {"name": "a", "type": "double", "kind": "number", "count": 1, "nulls": 1}
    return {"version": 1, "columns": [{**head, "aspects": [aspect], **column}]}


TWICE = {"version": 1, "columns": one()["columns"] * 2}


def no_rows(table: pa.Table) -> pa.Table:
    """Return the schema alone."""
    return table.slice(0, 0)


def earlier(table: pa.Table) -> pa.Table:
    """Return the columns that profiles had before they held aspects."""
    names = ["aspect", "shift", "key", "count"]
    return table.select(names).rename_columns(["column", "shift", "prefix", "count"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ArrowInvalid"),
        (b"PAR1 nothing PAR1", "Arrow|OSError"),
        (edited(with_column("shift", 64)), "octave|ascend|prefix|shift"),
        (edited(with_column("count", 0)), "at least one value"),
        (edited(with_column("count", 10**6)), "do not add up"),
        (edited(with_column("count", None)), "missing values"),  # type: ignore[arg-type]
        (edited(with_column("aspect", -1)), "belong to no aspect"),
        (edited(with_column("aspect", 99)), "belong to no aspect"),
        (edited(with_column("part", "x")), "no 'x'"),  # type: ignore[arg-type]
        (edited(with_column("aspect", 0)), "both there or both missing"),
        (edited(lambda table: table.slice(1)), "first or last bucket|prefix|add up|sum"),
        (edited(no_rows), "both there or both missing|missing|add up|no "),
        (edited(lambda table: table.drop_columns(["shift"])), "not those of a profile"),
        (edited(earlier), "written by an earlier version of batchscore"),
        (edited(lambda table: table, record=[]), "not a JSON object"),
        (edited(lambda table: table, profile={"version": 1, "columns": []}), "too many"),
        (edited(no_rows, profile={"version": 2, "columns": []}), "version"),
        (edited(no_rows, profile=[]), "profile"),
        (edited(no_rows, profile=one({"min": "x"})), "wrong kind"),
        (edited(no_rows, profile=one({"nan": -1})), "not a count"),
        (edited(no_rows, profile=one({"nan": True})), "not a count"),
        (edited(no_rows, profile=one({"space": "log"})), "log"),
        (edited(no_rows, profile=one({"more": 1})), "more"),
        (edited(no_rows, profile=one(kind="numbre")), "kind"),
        (edited(no_rows, profile=one(more=1)), "more"),
        (edited(no_rows, profile=TWICE), "two columns have one name"),
        (edited(no_rows, profile=one(count=0)), "do not add up"),
    ],
)
def test_impossible_contents_are_refused(data: bytes, reason: str) -> None:
    """Contents that no profile has raise RecordError with the reason and the remedy."""
    with pytest.raises(RecordError, match=reason) as caught:
        read_table(data)
    remedy = "write it again: profile its data, train its model, or run its job again"
    assert str(caught.value).endswith(remedy)


def test_meta_must_be_json() -> None:
    """Meta with NaN is refused, since no other reader of JSON would take it."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_table(TableProfile.empty(), {"x": float("nan")})


def test_a_hundred_columns_stay_small() -> None:
    """A hundred numeric columns above 4,096 distinct values take less than 2 MB."""
    chance = np.random.default_rng(9)
    columns = {f"c{i}": np.exp(chance.normal(size=20_000) * (1 + i / 20)) for i in range(100)}
    data = write_table(profile_of([pa.RecordBatch.from_pydict(columns)]), {}, extra=False)
    assert len(data) < 2_000_000
