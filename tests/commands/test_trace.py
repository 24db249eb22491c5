"""Every published row leads back to its source row, and rejected rows are found as well."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.commands import trace
from batchscore.commands.trace import Match, trace_rows
from batchscore.errors import InvalidError, RecordError
from batchscore.runs import layout
from batchscore.stages import rows_file as lineage
from batchscore.stages import scored_files as partition
from batchscore.storage.store import Store
from tests.factory import make_rows, run_cli, run_json, write_job, write_shard
from tests.outputs import MODEL, RUN, publish_shards

pytestmark = pytest.mark.slow

PARTS = ["plain", None, "a/b=c d", "ümlaut", "null"]
NAN = float("nan")


@pytest.fixture(autouse=True, scope="module")
def small_files() -> Iterator[None]:
    """Makes row groups of some rows, so that a unit has several, and several files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "ROW_GROUP_ROWS", 5)
        patch.setattr(lineage, "ROW_GROUP_ROWS", 11)
        yield


def write_rows(path: Path, first: int, rows: int, row_group_rows: int = 9) -> None:
    """Write a shard with a column of each kind that can be asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = range(first, first + rows)
    day = datetime.date(2026, 11, 20)
    table = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "one": pa.array([1] * rows, pa.int8()),
            "x": pa.array([NAN if i % 7 == 0 else i / 10 for i in ids], pa.float32()),
            "bad": pa.array([i % 10 == 3 for i in ids], pa.bool_()),
            "text": pa.array([PARTS[i % 5] for i in ids], pa.string()),
            "kind": pa.array([PARTS[i % 5] for i in ids], pa.string()).dictionary_encode(),
            "part": pa.array([PARTS[i % 5] for i in ids], pa.string()),
            "day": pa.array([day + datetime.timedelta(i % 2) for i in ids], pa.date32()),
            "at": pa.array([i * 3600 for i in ids], pa.timestamp("s", "UTC")),
        }
    )
    pq.write_table(table, path, row_group_size=row_group_rows)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 70 rows in a pack and a large shard, published as several units."""
    folder = tmp_path_factory.mktemp("traced")
    for number, rows in enumerate([3, 4, 60, 3]):
        write_rows(folder / f"in/{number}.parquet", 100 * number, rows)
    publish_shards(folder, unit_rows=25, partition_by=("part", "day"), file_bytes=1)
    return folder


def ask(folder: Path, *conditions: str) -> list[Match]:
    """Trace rows of the folder's output."""
    return list(trace_rows(Store(str(folder / "out")), None, conditions).matches)


def assert_leads_back(match: Match) -> None:
    """The row that a match names, in its shard and in its file, has the match's id."""
    identity = match.values["id"]
    assert pq.read_table(match.shard)["id"][match.shard_row].as_py() == identity
    file = pq.ParquetFile(match.file).read()
    assert file["id"][match.file_row].as_py() == identity


SIZES = st.lists(st.integers(0, 24), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(SIZES, st.integers(1, 40), st.integers(1, 30), st.booleans(), st.booleans(), st.booleans())
def test_every_row_leads_back_to_its_source(
    sizes: list[int], unit_rows: int, group: int, filtered: bool, parted: bool, large: bool
) -> None:
    """However the input is cut, filtered and partitioned, each row names its own source row."""
    filters = [[("id", ">", 5), ("x", "<", 7.0)]] if filtered else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, rows in enumerate([*sizes, 1]):
            write_rows(folder / f"in/{number}.parquet", 30 * number, rows, group)
        columns = ("part", "day") if parted else ()
        size = 1 << 20 if large else 1
        manifest = publish_shards(
            folder, unit_rows=unit_rows, filters=filters, partition_by=columns, file_bytes=size
        )
        scored, rejected = manifest["rows"]["scored"], manifest["rows"]["rejected"]
        found = ask(folder, "one=1") if scored + rejected else []
        assert [match.status for match in found] == ["scored"] * scored + ["rejected"] * rejected
        for match in found:
            assert_leads_back(match)
        data = [pq.ParquetFile(f).read()["id"].to_pylist() for f in folder.glob("out/data/**/*.p*")]
        ids = sorted(match.values["id"] for match in found if match.status == "scored")
        assert ids == sorted(i for file in data for i in file)


def test_each_published_row_is_found_by_its_id(output: Path) -> None:
    """Asked one by one, every row of data/ is found once, with its columns, and leads back."""
    table = ds.dataset(output / "out/data", partitioning="hive").to_table()
    assert table.num_rows == 63
    for row in table.to_pylist():
        (match,) = ask(output, f"id={row['id']}")
        assert match.values["score"] == row["id"] / 2
        assert match.values["part"] == PARTS[row["id"] % 5]
        assert match.status == "scored"
        assert_leads_back(match)


def test_a_rejected_row_is_found_with_its_reason(output: Path) -> None:
    """A match among the rejects names stage, error and message, and the row of its shard."""
    (match,) = ask(output, "id=213")
    assert (match.status, match.published_by, match.published_at) == ("rejected", None, None)
    assert match.reject == {"stage": "infer", "error": "NonFiniteScore", "message": "NaN"}
    assert match.shard == str(output / "in/2.parquet")
    assert match.shard_row == 13
    assert not any(name.startswith("_") for name in match.values)
    assert_leads_back(match)


def test_a_match_names_runs_and_model(tmp_path: Path) -> None:
    """It tells who scored the row and who published it, when, with what model and job file."""
    write_rows(tmp_path / "in/0.parquet", 0, 3)
    publish_shards(tmp_path, run="20261121-bbbb", scored_by="20261120-dead")
    (match,) = ask(tmp_path, "id=1")
    assert (match.scored_by, match.published_by) == ("20261120-dead", "20261121-bbbb")
    assert (match.published_at, match.model) == ("2026-11-20T01:02:00+00:00", MODEL)
    assert (match.job_sha256, match.slice) == ("beef" * 16, "small")
    store = Store(str(tmp_path / "out"))
    manifest = store.read_json(layout.run_file("20261121-bbbb", "manifest.json"))
    theirs = {**manifest, "run": "20261120-dead", "job_sha256": "0"}
    store.write_json(layout.run_file("20261120-dead", "manifest.json"), theirs)
    assert ask(tmp_path, "id=1")[0].job_sha256 == "0"


def test_the_source_need_not_be_there(output: Path, tmp_path: Path) -> None:
    """Rows are traced though the shards are gone."""
    shutil.copytree(output / "out", tmp_path / "out")
    assert not (tmp_path / "in").exists()
    assert ask(tmp_path, "id=1")[0].shard_row == 1


CASES: list[tuple[str, Any]] = [
    ("part=plain", lambda row: row["part"] == "plain"),
    ("part=null", lambda row: row["part"] is None),
    ('part="null"', lambda row: row["part"] == "null"),
    ("part=a/b=c d", lambda row: row["part"] == "a/b=c d"),
    ("text=ümlaut", lambda row: row["text"] == "ümlaut"),
    ("text=null", lambda row: row["text"] is None),
    ('text="null"', lambda row: row["text"] == "null"),
    ("kind=null", lambda row: row["kind"] is None),
    ("kind=plain", lambda row: row["kind"] == "plain"),
    ("day=2026-11-21", lambda row: row["day"] == datetime.date(2026, 11, 21)),
    ("x=0.1", lambda row: row["id"] == 1),
    ("x=nan", lambda row: row["x"] != row["x"]),
    ("bad=true", lambda row: row["bad"]),
    ("at=1970-01-01T02:00:00+00:00", lambda row: row["id"] == 2),
    ("at=1970-01-01T02:00:00+01:00", lambda row: row["id"] == 1),
]


@pytest.mark.parametrize(("condition", "holds"), CASES, ids=[case for case, _ in CASES])
def test_values_are_read_as_their_columns_type(output: Path, condition: str, holds: Any) -> None:
    """Text, null, date, time, NaN and the like find just the rows that hold them, in any place."""
    everything = [match.values for match in ask(output, "one=1")]
    expected = sorted(row["id"] for row in everything if holds(row))
    assert expected
    assert sorted(match.values["id"] for match in ask(output, condition)) == expected


def test_all_conditions_have_to_hold(output: Path) -> None:
    """Conditions on columns, in the files and in the path, are joined by and."""
    found = ask(output, "part=plain", "day=2026-11-20", "bad=false", "one=1")
    assert sorted(m.values["id"] for m in found) == [0, 100, *range(200, 260, 10), 300]
    assert ask(output, "score=105.5", "id=211")[0].shard_row == 11


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (["idd=1"], "column 'idd': no row has this column; nearest: 'id'"),
        (["id=one"], "id=one: expected int64 such as 7, or null"),
        (["id=1.5"], "id=1.5: expected int64"),
        (["at=1970-01-01"], r"expected timestamp\[\w+, tz=UTC\] such as .*\+00:00"),
        (["day=yesterday"], "expected date32"),
        (["id"], "expected COLUMN=VALUE"),
        (["id=1", "id=2"], "given twice"),
    ],
)
def test_what_cannot_be_found_is_reported(output: Path, conditions: list[str], words: str) -> None:
    """An unknown column and a value of another type are each an error."""
    with pytest.raises(InvalidError, match=words):
        ask(output, *conditions)


@pytest.mark.parametrize("conditions", [["id=99"], ["id=1", "part=plain"]])
def test_values_of_no_row_are_not_found(output: Path, conditions: list[str]) -> None:
    """The command says what it looked through and ends with 1, as text and as JSON."""
    done = run_cli("trace", output / "out", *conditions)
    assert done.exit_code == 1
    assert done.stdout == (
        f"NOT FOUND  {' '.join(conditions)}: no row has these values, of 63 published and "
        "7 rejected rows\n"
    )
    done = run_cli("trace", "--json", output / "out", *conditions)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["exit_code"], found["status"]) == (1, 1, "not_found")
    assert (found["matches"], found["published_rows"], found["rejected_rows"]) == ([], 63, 7)


def test_filtered_rows_are_said_not_to_be_kept(tmp_path: Path) -> None:
    """A row that the filter left out is in no file of the output, and that is said."""
    write_rows(tmp_path / "in/0.parquet", 0, 3)
    publish_shards(tmp_path, filters=[[("id", ">", 0)]])
    done = run_cli("trace", tmp_path / "out", "id=0")
    assert done.exit_code == 1
    assert "; the filter left out 1 row, which the output does not hold" in done.stdout


def test_a_rejects_file_of_an_earlier_version_is_read(output: Path, tmp_path: Path) -> None:
    """Without the column `_detail` a rejected row has its stage, error and message."""
    shutil.copytree(output / "out", tmp_path / "out")
    for path in tmp_path.glob("out/_batchscore/rejects/**/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["_detail"]), path)
    (match,) = ask(tmp_path, "id=213")
    assert match.reject == {"stage": "infer", "error": "NonFiniteScore", "message": "NaN"}


def test_rejects_of_an_earlier_version_and_of_this_one_are_read_together(tmp_path: Path) -> None:
    """A question for details finds the rows that have one, and null those that have none."""
    spoiled = pa.array([None, *range(1, 9)], pa.float32())
    job = write_job(tmp_path, {"rejects": {"max_ratio": 1.0}})
    for number in range(2):
        rows = make_rows(9, 1000 * (number + 1)).set_column(1, "a", spoiled)
        write_shard(tmp_path / f"in/spoiled{number}.parquet", rows)
        assert run_cli("run", job).exit_code == 0
        for path in tmp_path.glob("out/_batchscore/rejects/**/*.parquet"):
            if not number:
                pq.write_table(pq.read_table(path).drop_columns("_detail"), path)
    detail = "column 'a': null, expected a number (float32)"
    for condition, ids in ((detail, [2000]), ("null", [1000]), ("other", [])):
        found = trace_rows(Store(str(tmp_path / "out")), None, [f"_detail={condition}"])
        assert [match.values["id"] for match in found.matches] == ids


def test_times_and_durations_are_traced_as_such(tmp_path: Path) -> None:
    """A duration and a time of day are shown exactly, down to a nanosecond, also in JSON."""
    shard = tmp_path / "in/0.parquet"
    write_rows(shard, 0, 1)
    table = pq.read_table(shard)
    for name, kind in (("took", pa.duration("ns")), ("when", pa.time64("ns"))):
        table = table.append_column(name, pa.array([3_600_000_000_001]).cast(kind))
    pq.write_table(table, shard)
    publish_shards(tmp_path)
    found = run_json("trace", tmp_path / "out", "id=0")["matches"][0]["values"]
    assert (found["took"], found["when"]) == ("01:00:00.000000001", "01:00:00.000000001")
    assert "took=01:00:00.000000001" in run_cli("trace", tmp_path / "out", "id=0").stdout


def test_at_most_a_hundred_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more rows some are shown, in a fixed order, and it is said that there are more."""
    write_rows(tmp_path / "in/0.parquet", 0, 40)
    publish_shards(tmp_path, unit_rows=10)
    monkeypatch.setattr(trace, "SHOWN", 36)
    whole = run_json("trace", tmp_path / "out", "one=1")
    assert (len(whole["matches"]), whole["more"]) == (36, True)
    assert (
        "36 rows are shown, and there are more"
        in run_cli("trace", tmp_path / "out", "one=1").stdout
    )
    monkeypatch.setattr(trace, "SHOWN", 40)
    found = run_json("trace", tmp_path / "out", "one=1")
    assert (len(found["matches"]), found["more"]) == (40, False)
    assert found["matches"][:36] == whole["matches"]


def test_slices_are_apart(tmp_path: Path) -> None:
    """An output is traced through all of its slices, and a slice through its own rows."""
    for slice_, rows in (("a", 3), ("b", 2)):
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        write_rows(tmp_path / "in/0.parquet", 0, rows)
        publish_shards(tmp_path, slice_, run=f"{RUN}{slice_}", scored_by=f"{RUN}{slice_}")
    assert [match.slice for match in ask(tmp_path, "id=1")] == ["a", "b"]
    store = Store(str(tmp_path / "out"))
    assert [m.slice for m in trace_rows(store, "b", ["id=1"]).matches] == ["b"]
    with pytest.raises(InvalidError, match=r"slice 'c' .*nothing is published"):
        trace_rows(store, "c", ["id=1"])


def test_what_is_damaged_is_reported(output: Path, tmp_path: Path) -> None:
    """A rows file that is gone, or cut off, is an error that names it."""
    shutil.copytree(output / "out", tmp_path / "out")
    for path in tmp_path.glob("out/_batchscore/ledger/**/*.rows.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"rows\.parquet: damaged"):
        ask(tmp_path, "id=1")
    assert ask(tmp_path, "id=213")[0].status == "rejected"


def test_the_command_prints_what_it_found(output: Path) -> None:
    """A block of lines a row with its source, or one JSON document; errors end with 2."""
    done = run_cli("trace", output / "out", "id=211")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("SCORED   small   unit ")
    assert lines[1] == f"source    {output}/in/2.parquet  row 11"
    assert "score=105.5" in done.stdout
    assert lines[-1] == "found 1 row, of 63 published and 7 rejected"
    assert (
        "reason    infer: NonFiniteScore: NaN" in run_cli("trace", output / "out", "id=213").stdout
    )
    done = run_cli("trace", output / "out", "--json", "x=nan")
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert {match["values"]["x"] for match in found["matches"]} == {"nan"}
    assert (found["status"], found["exit_code"]) == ("ok", 0)
    assert run_json("trace", output / "in", "id=99")["status"] == "invalid"
