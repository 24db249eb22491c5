"""Profiles of data that nobody scores: from files and from memory, however they are split."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.commands import profile as module
from batchscore.commands.profile import Data, hints_of, open_rows, profile, profile_rows
from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import InputError, ShardError
from batchscore.plan.footers import read_footers
from batchscore.plan.listing import find_shards
from tests.factory import make_rows, run_cli, write_shard

pytestmark = pytest.mark.slow

ROWS = make_rows(700)


def content(found: TableProfile) -> bytes:
    """A profile as it is stored."""
    return write_table(found, {})


def in_one_go(table: pa.Table) -> bytes:
    """The profile of a table that is added as a whole."""
    found = TableProfile.empty()
    found.update(table.combine_chunks().to_batches()[0])
    return content(found)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(st.integers(0, 700), max_size=5),
    row_group=st.integers(50, 700),
)
def test_files_and_row_groups_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], row_group: int
) -> None:
    """Rows split into any files and row groups give the same bytes."""
    folder = tmp_path_factory.mktemp("data")
    bounds = sorted([0, 700, *cuts])
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        pq.write_table(ROWS[start:end], folder / f"{i}.parquet", row_group_size=row_group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_UNIT_ROWS", 90)
        rows = open_rows(folder, lambda names: names)
        assert content(profile_rows(rows, {})) == in_one_go(ROWS)


def stream() -> Iterator[pa.RecordBatch]:
    """The rows in batches of 90."""
    yield from ROWS.to_batches(max_chunksize=90)


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        pa.concat_tables([ROWS[:100], ROWS[100:]]),
        ROWS.combine_chunks().to_batches()[0],
        pa.RecordBatchReader.from_batches(ROWS.schema, stream()),
        pl.DataFrame(ROWS),
        ROWS.to_pandas(),
        ROWS.to_pandas().set_index(np.arange(700)[::-1]),
        {name: ROWS[name] for name in ROWS.schema.names},
    ],
    ids=["table", "chunks", "batch", "reader", "polars", "pandas", "indexed pandas", "dict"],
)
def test_a_table_in_memory_is_profiled_as_its_file(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever hands over the rows, the profile is that of the rows."""
    monkeypatch.setattr(module, "_MEMORY_ROWS", 64)
    found, expected = profile(data), TableProfile.empty()
    expected.update(ROWS.combine_chunks().to_batches()[0])
    types = {name: column.type for name, column in found.columns.items()}
    if types["part"] == "large_string":  # pandas hands texts over so
        found, expected = (profile(t, columns=["id", "a", "b"]) for t in (data, ROWS))
    assert content(found) == content(expected)


def test_texts_without_a_value_are_nulls_wherever_they_come_from() -> None:
    """A text that is missing counts as null, from Arrow, Polars and pandas alike."""
    table = pa.table({"x": ["a", None, "b"]})
    for data in (table, pl.DataFrame(table), table.to_pandas()):
        assert profile(data).columns["x"].nulls == 1


def test_columns_are_chosen_and_seen_as_asked(tmp_path: Path) -> None:
    """Only the columns asked for are profiled, in the way asked for; hints can be given again."""
    scores = np.linspace(0, 1, 12, dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(scores), 3)
    path = write_shard(
        tmp_path / "a.parquet", pa.table({"p": scores[:4], "c": lists, "x": scores[:4]})
    )
    found = profile(path, columns=["p", "c"], probabilities=["p"], classes=["c"])
    assert {name: column.kind for name, column in found.columns.items()} == {
        "p": "probability",
        "c": "classes",
    }
    assert hints_of(found) == {"p": "probability", "c": "classes"}


def test_keys_of_folders_count_where_they_vary(tmp_path: Path) -> None:
    """A hive key is a column, unless all files share it: then it says nothing of a row."""
    for day in (1, 2):
        write_shard(tmp_path / f"day={day}/a.parquet")
    assert profile(tmp_path).columns["day"].count == 600
    one = tmp_path / "day=1"
    assert "day" not in profile(one).columns
    assert profile(one, columns=["day"]).columns["day"].count == 300
    assert profile([one, tmp_path / "day=2"]).rows == 600


@pytest.mark.parametrize("rows", [ROWS[:0], ROWS.to_pandas()[:0]], ids=["arrow", "pandas"])
def test_no_rows_are_a_profile(rows: Data, tmp_path: Path) -> None:
    """Data without rows have columns, and none of them has a value."""
    found = profile(rows)
    assert (found.rows, set(found.columns)) == (0, set(ROWS.schema.names))
    path = write_shard(tmp_path / "a.parquet", ROWS[:0])
    assert profile(path).rows == 0
    assert set(profile(path).columns) == set(ROWS.schema.names)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("none.parquet", {}, r"the data none.parquet: no file found"),
        ([], {}, r"no file found"),
        ("s3://user:secret@bucket/x", {}, r"s3://\*\*\*@bucket/x: may hold a credential"),
        ("what://x", {}, r"the data what://x: cannot be listed"),
        (ROWS, {"columns": ["ida"]}, r"column 'ida' is not in the data; nearest: 'id'"),
        (ROWS, {"probabilities": ["q"]}, r"column 'q' is not in the data"),
        (
            ROWS,
            {"probabilities": ["id"]},
            r"column 'id' is int64, which cannot be profiled as prob",
        ),
        (ROWS, {"classes": ["a"]}, r"column 'a' is float, .*expected fixed-size lists"),
        (ROWS.append_column("a", ROWS["a"]), {}, r"column 'a' appears twice"),
        (pd.DataFrame({"x": [1, "a", b"b"]}), {}, r"data of type DataFrame: cannot be read"),
        (7, {}, r"data of type int: cannot be read as a table"),
        ({"x": np.ones(2), "y": np.ones(3)}, {}, r"data of type dict: .* expected length 2"),
    ],
)
def test_wrong_data_are_reported(
    data: Data,
    options: dict[str, list[str]],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What cannot be profiled is an error with the value, what was expected, and the remedy."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        profile(data, **options)
    assert "secret" not in str(caught.value)


def test_files_that_differ_are_reported_in_the_words_of_profiles(tmp_path: Path) -> None:
    """Errors of reading name what a profile's user can change, and show addresses unchanged."""
    folder = tmp_path / "input.path"
    write_shard(folder / "a.parquet")
    write_shard(folder / "b.parquet", make_rows().rename_columns(["id", "a", "b", "other"]))
    with pytest.raises(InputError, match="has no column 'part'") as caught:
        profile(folder)
    message = str(caught.value)
    assert message.startswith(f"shard {folder}/b.parquet: ")
    assert message.endswith(
        "take it out of the data, or, where the column is not needed, name "
        "those to keep in `columns`"
    )
    assert profile(folder, columns=["id"]).rows == 600


def test_remedies_name_the_job_where_there_is_one_and_the_data_elsewhere(tmp_path: Path) -> None:
    """A table's folder and a broken file have the same message but for the user's own words."""
    write_shard(tmp_path / "table/a.parquet")
    (tmp_path / "table/_delta_log").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("table", "broken.parquet"):
        address = str(tmp_path / name)
        with pytest.raises(InputError) as of_job:
            read_footers(find_shards([address]))
        with pytest.raises(InputError) as of_profile:
            profile(address)
        assert "input.path" in str(of_job.value)
        assert str(of_profile.value) == str(of_job.value).replace("input.path", "the data")


def test_a_shard_that_breaks_off_is_named(tmp_path: Path) -> None:
    """What is damaged inside is an error that names the file, soon, whoever reads it."""
    for i in range(6):
        write_shard(tmp_path / f"{i}.parquet", make_rows(30_000))
    path = tmp_path / "3.parquet"
    whole = bytearray(path.read_bytes())
    whole[1000:60_000] = bytes(59_000)
    path.write_bytes(whole)
    with pytest.raises(ShardError, match=r"3\.parquet.*take it out of the data$"):
        profile(tmp_path)


def test_a_stream_that_breaks_off_is_reported() -> None:
    """An error of the stream itself is one message."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield ROWS.to_batches()[0]
        raise pa.ArrowInvalid("torn")

    with pytest.raises(InputError, match=r"cannot be read to their end \(.*torn"):
        profile(pa.RecordBatchReader.from_batches(ROWS.schema, broken()))


class Hiccup(LocalFileSystem):
    """A disk of which one read fails, once."""

    protocol = "hiccup"
    reads = 0
    fails_at = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        read = file.f.read

        def failing(*args: Any) -> bytes:
            Hiccup.reads += 1
            if Hiccup.reads == Hiccup.fails_at:
                raise OSError(errno.EIO, "input/output error")
            data: bytes = read(*args)
            return data

        file.read = failing
        return file


@pytest.mark.parametrize("fails_at", [6, 9, 14, 20])
def test_rows_are_counted_once_though_a_read_fails(tmp_path: Path, fails_at: int) -> None:
    """A stretch that is started again after a passing failure does not count twice."""
    rows = make_rows(40_000)
    path = write_shard(tmp_path / "x.parquet", rows)
    pq.write_table(rows, path, row_group_size=5_000)
    fsspec.register_implementation("hiccup", Hiccup, clobber=True)
    Hiccup.reads, Hiccup.fails_at = 0, fails_at
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "choose_batch_rows", lambda *_: (1000, ""))
        found = profile(f"hiccup://{path}")
    assert Hiccup.reads > fails_at
    assert content(found) == content(profile(path))


def test_a_profile_is_not_written_among_what_a_glob_finds(tmp_path: Path) -> None:
    """The next profile of the same glob would read it."""
    write_shard(tmp_path / "a.parquet", make_rows(100))
    glob = str(tmp_path / "*.parquet")
    done = run_cli("profile", glob, "-o", tmp_path / "out.parquet")
    assert done.exit_code == 2
    assert "is inside the data" in done.stderr


def test_a_folder_is_compared_with_one_of_its_partitions(tmp_path: Path) -> None:
    """The key that tells the partitions apart is no column that is gone."""
    for month in (1, 2):
        write_shard(tmp_path / f"month={month}/x.parquet", make_rows(500))
    assert run_cli("compare", tmp_path, tmp_path / "month=2").exit_code == 0
    assert run_cli("compare", tmp_path / "month=1", tmp_path).exit_code == 0
