"""Profiles show the largest integers exactly, and times and durations as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drift.laws import profile_of
from tests.factory import run_cli

LARGEST = {
    "uint64": [2**64 - 1, 2**64 - 2, 2**63, 0],
    "int64": [2**63 - 1, 2**63 - 2, -(2**63), 2**53 + 1],
}
KINDS = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.duration("s"), pa.duration("us")]


def _summary(array: pa.Array) -> dict[str, Any]:
    return profile_of([pa.RecordBatch.from_arrays([array], ["x"])]).summary()["x"]


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_integers_are_exact(tmp_path: Path, kind: str) -> None:
    """Minimum, maximum and median are DuckDB's, in JSON, on the terminal and in the report."""
    table = pa.table({"x": pa.array(LARGEST[kind], kind)})
    pq.write_table(table, tmp_path / "in.parquet")
    query = f"SELECT min(x), max(x), quantile_disc(x, 0.5) FROM '{tmp_path / 'in.parquet'}'"
    expected = duckdb.execute(query).fetchone()
    assert expected is not None
    done = run_cli("profile", "--json", tmp_path / "in.parquet")
    found = json.loads(done.stdout)["profile"]["x"]
    assert (found["min"], found["max"], found["p50"]) == expected
    shown = run_cli("profile", tmp_path / "in.parquet").stdout
    for each in expected:
        assert f"{each:,}" in shown


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_time_is_shown_as_such(kind: pa.DataType) -> None:
    """Minimum, maximum, mean and quantiles are times, those that pyarrow finds."""
    whole = pa.int32() if kind.bit_width == 32 else pa.int64()
    array = pa.array([1, 5, 3601], whole).cast(kind)
    found = _summary(array)
    ends = {"min": array[0].as_py(), "p50": array[1].as_py(), "max": array[2].as_py()}
    for name in ends:
        reported = duckdb.execute("SELECT CAST(? AS INTERVAL)", [found[name]]).fetchone()
        as_time = duckdb.execute("SELECT CAST(? AS INTERVAL)", [str(ends[name])]).fetchone()
        assert reported == as_time
    assert isinstance(found["mean"], str)
    assert isinstance(found["p50"], str)
    assert isinstance(found["sigma"], float)


def test_a_duration_in_the_report_has_an_axis_of_durations(tmp_path: Path) -> None:
    """Bins and points of times and durations are labelled as such."""
    from batchscore.report.bins import number_plot

    def plot(values: list[int], kind: pa.DataType) -> dict[str, Any]:
        array = pa.array(values, pa.int64()).cast(kind)
        profile = profile_of([pa.RecordBatch.from_arrays([array], ["x"])])
        made = number_plot(None, profile.columns["x"].aspects["value"])
        assert made is not None
        return made

    assert plot([0, 90_000], pa.duration("s"))["at"] == ["00:00:00", "1 day 01:00:00"]
    hours = plot(list(range(0, 86_400_000_000, 10_000_000)), pa.time64("us"))
    assert (hours["form"], hours["spans"], hours["power"]) == ("bins", True, 6)
    assert hours["step"] * hours["bins"] * 10**6 >= 86_390 * 10**9
    assert sum(hours["current"]) == 8_640
    short = plot(list(range(1000)), pa.duration("ns"))
    assert (short["step"] * 10 ** short["power"], sum(short["current"])) == (20, 1000)
