"""Test the checks of columns: nulls, accepted values, and the age of the newest value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.factory import (
    change_job,
    make_rows,
    published,
    read_tree,
    run_cli,
    run_json,
    write_job,
    write_shard,
)

pytestmark = pytest.mark.slow

ROWS = 500


def rows_with(columns: Mapping[str, Any], rows: int = 300, first: int = 0) -> pa.Table:
    """Return the rows of the small job with more columns."""
    table = make_rows(rows, first)
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def states(rows: int, first: int = 0) -> pa.Array:
    """Return a text a row: null in every seventh, `opne` in every eleventh, else open or closed."""
    numbers = range(first, first + rows)
    words = ["opne" if n % 11 == 0 else ("open", "closed")[n % 2] for n in numbers]
    return pa.array([None if n % 7 == 0 else w for n, w in zip(numbers, words, strict=True)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small job over two shards, its states of mixed quality and not passed through."""
    write_job(tmp_path, {"output.columns": ["id"]})
    write_shard(tmp_path / "in/0.parquet", rows_with({"state": states(300)}))
    write_shard(tmp_path / "in/1.parquet", rows_with({"state": states(200, 300)}, 200, 300))
    return tmp_path


def check_of(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one check of a run."""
    (found,) = [check for check in manifest["checks"] if check["name"] == name]
    return dict(found)


def counted(manifest: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what a run counted, by check and column."""
    return {(each["check"], each["column"]): each for each in manifest["column_checks"]}


def test_a_failed_check_holds_the_run_with_rows_and_examples(folder: Path) -> None:
    """Exit 3, nothing is published; DuckDB counts the same rows in the shards."""
    checks = {"not_null": ["state"], "accepted": {"state": ["open", "closed"]}}
    job = change_job(folder, {"checks": checks})
    found = run_json("run", job)
    assert (found["status"], found["exit_code"]) == ("held", 3)
    shards = f"read_parquet('{folder}/in/*.parquet', filename=true, file_row_number=true)"
    for check, wrong in (("not_null", "state is null"), ("accepted", "state = 'opne'")):
        query = f"select filename, file_row_number, state from {shards} where {wrong} order by 1, 2"
        expected = duckdb.connect().execute(query).fetchall()
        tally = counted(found)[check, "state"]
        assert (tally["rows"], tally["failed"]) == (ROWS, len(expected))
        places = [(each["shard"], each["row"]) for each in tally["examples"]]
        assert places == [(shard, row) for shard, row, _ in expected[:5]]
        assert not check_of(found, check)["passed"]
    reported = run_cli("show", job, found["run"]).stdout
    assert f"FAILED not_null: state is null in 72 of 500 rows (row 0 of {folder}/in/0" in reported
    assert "state has a value that is not accepted in 39 of 500 rows ('opne' in row 11" in reported
    assert check_of(found, "accepted")["detail"].endswith("accepted: open, closed")
    assert not list(folder.glob("out/data/**/*.parquet"))


def test_release_publishes_what_a_check_held(folder: Path) -> None:
    """A person may decide; the manifest keeps the check that failed."""
    job = change_job(folder, {"checks.not_null": ["state"]})
    held = run_json("run", job)
    done = run_json("release", job, held["run"], "--reason", "known")
    assert done["status"] == "published"
    assert not check_of(done, "not_null")["passed"]


def test_columns_that_pass_say_so(folder: Path) -> None:
    """Scores and columns that are written are checked like any other."""
    checks = {"not_null": ["id", "score"], "accepted": {"part": ["p0", "p1", "p2"]}}
    job = change_job(folder, {"checks": checks})
    found = run_json("run", job)
    assert found["status"] == "published"
    assert check_of(found, "not_null")["detail"] == (
        "id has no null in 500 rows; score has no null in 500 rows"
    )
    assert check_of(found, "accepted")["detail"] == "part has accepted values only in 500 rows"


def test_a_column_that_is_read_for_a_check_alone_changes_nothing_else(folder: Path) -> None:
    """Score hash, published rows and profile are as without the check, and no function sees it."""
    (folder / "f.py").write_text(
        "def f(batch):\n"
        "    assert 'state' not in batch.schema.names, batch.schema.names\n"
        "    return batch\n"
    )
    function = {"preprocess": {"function": "f.py:f", "columns": ["a", "b"]}}
    job = change_job(folder, {**function, "rejects.max_ratio": 1})
    plain = run_json("run", job)
    rows = published(folder / "out")
    profile = (folder / f"out/_batchscore/runs/{plain['run']}/profile.parquet").read_bytes()
    change_job(folder, {"checks.accepted": {"state": ["open", "closed", "opne"]}})
    assert run_json("run", job)["status"] == "unchanged"
    again = run_json("run", job, "--rescore")
    assert check_of(again, "accepted")["passed"]
    assert published(folder / "out").equals(rows)
    assert profile == (folder / f"out/_batchscore/runs/{again['run']}/profile.parquet").read_bytes()
    assert again["score"] == plain["score"]


def test_rejected_and_filtered_rows_do_not_count(folder: Path) -> None:
    """A check is of scored rows: the others are not published."""
    table = rows_with({"state": states(300)})
    spoiled = [float("nan") if n % 7 == 0 else 0.5 for n in range(300)]
    table = table.set_column(1, "a", pa.array(spoiled, pa.float32()))
    write_shard(folder / "in/0.parquet", table)
    (folder / "in/1.parquet").unlink()
    changes = {
        "checks.not_null": ["state"],
        "rejects.max_ratio": 1,
        "input.filters": [["id", "<", 100]],
    }
    found = run_json("run", change_job(folder, changes))
    assert found["status"] == "published"
    assert counted(found)["not_null", "state"]["rows"] == found["rows"]["scored"] == 85
    (rejects,) = (folder / "out/_batchscore/rejects").rglob("*.parquet")
    assert "state" not in pq.read_schema(rejects).names
    assert "state" not in found["profile"]


def test_any_size_of_batches_counts_the_same(folder: Path) -> None:
    """Batches do not show in rows or examples."""
    for shard in range(2, 6):
        write_shard(folder / f"in/{shard}.parquet", rows_with({"state": states(50, shard)}, 50))
    checks = {"not_null": ["state"], "accepted": {"state": ["open", "closed"]}}
    job = change_job(folder, {"checks": checks, "checks.rows": {"min_ratio": 0}})
    first = run_json("run", job)
    change_job(folder, {"runtime.batch_rows": 7})
    again = run_json("run", job, "--rescore")
    assert first["column_checks"] == again["column_checks"]


def test_a_check_that_is_added_counts_what_was_published_before(folder: Path) -> None:
    """Files tell written columns, shards the others; nothing is scored again, nothing passes."""
    job = change_job(folder, {"output.columns": ["id", "part"], "output.partition_by": ["part"]})
    first = run_json("run", job)
    write_shard(folder / "in/2.parquet", rows_with({"state": states(10, 500)}, 10, 500))
    checks = {"not_null": ["state", "score"], "accepted": {"part": ["p1", "p2"]}}
    change_job(folder, {"checks": checks})
    found = run_json("run", job)
    assert (first["status"], found["status"]) == ("published", "held")
    assert (found["rows"]["reused"], found["reused_units"]) == (500, 1)
    tallies = counted(found)
    assert [tallies["not_null", name]["failed"] for name in ("state", "score")] == [73, 0]
    accepted = tallies["accepted", "part"]
    assert (accepted["rows"], accepted["failed"]) == (510, 170)  # p0: ids that 3 divides
    first_shard = f"{folder}/in/0.parquet"
    assert [(e["shard"], e["row"]) for e in accepted["examples"]] == [
        (first_shard, row) for row in (0, 3, 6, 9, 12)
    ]
    change_job(folder, {"output.path": "fresh"})
    whole = run_json("run", job)
    assert whole["column_checks"] == found["column_checks"]


def test_reused_units_keep_their_counts(folder: Path) -> None:
    """Counts go with the units' records: a later run looks at no old file or shard for them."""
    job = change_job(folder, {"checks.not_null": ["id"], "checks.accepted": {"state": ["opne"]}})
    held = run_json("run", job)
    done = run_json("release", job, held["run"], "--reason", "known")
    write_shard(folder / "in/2.parquet", rows_with({"state": pa.array(["opne"] * 10)}, 10, 500))
    found = run_json("run", job)
    before, now = (counted(each)["accepted", "state"] for each in (done, found))
    assert now == {**before, "rows": 510}
    (unit,) = [unit for unit in found["units"] if unit["scored"] == 500]
    assert unit["tallies"]


def dated(folder: Path, newest: datetime, kind: pa.DataType) -> None:
    """Write the small job's shards with a column `at` whose newest value is this."""
    values = [newest - timedelta(days=n % 5) for n in range(300)]
    naive = [each.replace(tzinfo=None) for each in values]
    plain = pa.array(naive, pa.timestamp("us"))
    if getattr(kind, "tz", None):
        column = plain.cast(pa.timestamp("us", "UTC")).cast(kind)
    else:
        column = (
            plain.cast(kind, safe=False)
            if pa.types.is_timestamp(kind)
            else pa.array([each.date() for each in naive], kind)
        )
    write_shard(folder / "in/0.parquet", rows_with({"at": column}))
    (folder / "in/1.parquet").unlink(missing_ok=True)


KINDS = (pa.timestamp("us"), pa.timestamp("ms", "Asia/Kolkata"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_age_is_taken_at_the_end_of_the_day(folder: Path, kind: pa.DataType) -> None:
    """A backfill passes: data of its day were fresh then, in UTC whatever zone is shown."""
    dated(folder, datetime(2024, 2, 29, 22), kind)
    changes = {"params": {"day": {"type": "date"}}, "checks.fresh": {"at": "2h"}}
    job = change_job(folder, changes)
    good = run_json("run", job, "--param", "day=2024-02-29")
    assert check_of(good, "fresh")["detail"] == (
        "the newest at is 2024-02-29T22:00:00Z, 2.0 h before 2024-03-01T00:00:00Z; 2h is allowed"
    )
    assert good["status"] == "published"
    late = run_json("run", job, "--param", "day=2024-03-01")
    assert (late["status"], check_of(late, "fresh")["passed"]) == ("held", False)


def test_a_date_is_its_midnight(folder: Path) -> None:
    """Data of the day itself are a day old at its end."""
    dated(folder, datetime(2024, 2, 29, 22), pa.date32())
    changes = {"params": {"day": {"type": "date"}}, "checks.fresh": {"at": "24h"}}
    job = change_job(folder, changes)
    assert run_json("run", job, "--param", "day=2024-02-29")["status"] == "published"
    less = ("--set", "checks.fresh.at=23h", "--rescore")
    assert run_json("run", job, "--param", "day=2024-02-29", *less)["status"] == "held"


def test_without_a_date_the_age_is_taken_at_the_start(folder: Path) -> None:
    """What is two days old now fails 26 hours; a later value passes, as a backfilled stamp is."""
    now = datetime.now(timezone.utc)
    job = change_job(folder, {"checks.fresh": {"at": "26h"}})
    for newest, status in (
        (now - timedelta(days=2), "held"),
        (now + timedelta(days=9), "published"),
    ):
        dated(folder, newest, pa.timestamp("us", "UTC"))
        assert run_json("run", job, "--rescore")["status"] == status


AGES = [
    pa.array([datetime(2024, 1, 1), None], pa.timestamp("ms")),
    pa.array([datetime(2024, 1, 1), None], pa.timestamp("ns", "Asia/Tokyo")),
    pa.array([datetime(2024, 1, 1), None], pa.timestamp("s")),
    pa.array([datetime(2024, 1, 1), None], pa.date32()),
    pa.nulls(2, pa.timestamp("us")),
]


@pytest.mark.parametrize("values", AGES, ids=lambda values: str(values.type))
def test_check_is_held_where_statistics_show_every_value_too_old(
    folder: Path, values: pa.Array
) -> None:
    """A newer value, in a row group that is not read, leaves the age to the run."""
    column = values.take(pa.array([n % 2 for n in range(200)]))
    path = folder / "in/1.parquet"
    pq.write_table(rows_with({"at": column}, 200, 300), path, row_group_size=50)
    (folder / "in/0.parquet").unlink()
    job = change_job(folder, {"checks.fresh": {"at": "1h"}, "runtime.batch_rows": 50})
    found, done = run_json("check", job), run_json("run", job)
    assert (found["exit_code"], done["exit_code"]) == (3, 3)
    reported = check_of(found, "fresh")["detail"]
    assert reported.startswith("at best, by the shards' statistics: ")
    known, _, _ = check_of(done, "fresh")["detail"].partition(",")
    assert known in reported
    if values.null_count < 2:
        newer = pa.concat_arrays([column[:-1], pa.array([datetime(2200, 1, 1)], column.type)])
        pq.write_table(rows_with({"at": newer}, 200, 300), path, row_group_size=50)
        assert run_json("check", job)["exit_code"] == 0


def test_check_knows_the_ages_of_published_rows(folder: Path) -> None:
    """Those of a check that is new are in the shards' statistics, of others in the records."""
    old = pa.array([datetime(2024, 1, 1)] * 300, pa.timestamp("us"))
    write_shard(folder / "in/0.parquet", rows_with({"at": old}))
    (folder / "in/1.parquet").unlink()
    job = folder / "job.yaml"
    run_json("run", job)
    write_shard(folder / "in/2.parquet", rows_with({"at": old[:10]}, 10, 500))
    change_job(folder, {"checks.fresh": {"at": "1h"}})
    assert run_json("check", job)["exit_code"] == run_json("run", job)["exit_code"] == 3
    newest = pa.array([datetime.now(timezone.utc)] * 10, pa.timestamp("us", "UTC"))
    write_shard(folder / "in/2.parquet", rows_with({"at": newest.cast(old.type)}, 10, 500))
    assert run_json("check", job)["exit_code"] == run_json("run", job)["exit_code"] == 0
    write_shard(folder / "in/3.parquet", rows_with({"at": old[:10]}, 10, 600))
    assert run_json("check", job)["exit_code"] == run_json("run", job)["exit_code"] == 0


def test_check_leaves_an_age_to_the_run_where_no_statistics_tell(folder: Path) -> None:
    """Without statistics nothing is known of a row that the batch does not have."""
    column = pa.array([datetime(2024, 1, 1)] * 200, pa.timestamp("us"))
    table = rows_with({"at": column}, 200, 300)
    pq.write_table(table, folder / "in/1.parquet", write_statistics=False)
    (folder / "in/0.parquet").unlink()
    job = change_job(folder, {"checks.fresh": {"at": "1h"}})
    assert (run_json("check", job)["exit_code"], run_json("run", job)["exit_code"]) == (0, 3)


def test_a_column_without_values_has_no_age(folder: Path) -> None:
    """All null, or no row at all, fails and says so."""
    nulls = rows_with({"at": pa.nulls(300, pa.timestamp("us"))})
    write_shard(folder / "in/0.parquet", nulls)
    (folder / "in/1.parquet").unlink()
    job = change_job(folder, {"checks.fresh": {"at": "26h"}, "input.allow_empty": True})
    found = check_of(run_json("run", job), "fresh")
    assert found["detail"] == "at has no value in 300 rows, so its age is not known"
    empty = run_json("run", job, "--set", 'input.filters=[["id", "<", 0]]')
    assert (empty["status"], check_of(empty, "fresh")["passed"]) == ("held", False)


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        (
            {"not_null": ["stat"]},
            "checks.not_null: there is no column 'stat' in the input or among",
        ),
        ({"not_null": ["stat"]}, "nearest: 'state'"),
        (
            {"accepted": {"id": ["one"]}},
            "'id' is int64, which has no value 'one' (a text); write a",
        ),
        ({"accepted": {"id": [1.5]}}, "column 'id' is int64, which has no value 1.5; correct it"),
        (
            {"accepted": {"state": [1]}},
            "column 'state' is string, which has no value 1 (an integer)",
        ),
        (
            {"accepted": {"state": []}},
            "checks.accepted.state: expected a list of one or more values",
        ),
        ({"accepted": {"state": [None]}}, "found null; a null always passes, and not_null"),
        ({"accepted": ["state"]}, "checks.accepted: expected a mapping"),
        ({"fresh": {"id": "26h"}}, "checks.fresh: column 'id' is int64; expected dates or timest"),
        ({"fresh": {"at": "26"}}, "checks.fresh.at: expected minutes, hours or days, such as 90m"),
        ({"fresh": {"at": "0h"}}, "such as 90m, 26h or 2d, found '0h'"),
        ({"not_null": ["id", "id"]}, "'id' appears more than once"),
        ({"notnull": ["id"]}, "checks.notnull: unknown key; nearest: 'not_null'"),
    ],
    ids=str,
)
def test_a_wrong_check_is_refused_before_any_work(
    folder: Path, checks: dict[str, Any], message: str
) -> None:
    """Exit 2, the column, its type and what to write instead; nothing is written."""
    job = change_job(folder, {"checks": checks})
    for command in ("check", "run"):
        done = run_cli(command, job)
        assert done.exit_code == 2, done.output
        assert message in done.stderr
    assert not (folder / "out").exists()


def test_a_wrong_score_after_a_function_is_refused_before_the_run(folder: Path) -> None:
    """What a function will call its scores is known once it has run on a batch."""
    (folder / "f.py").write_text("def f(batch):\n    return batch.rename_columns(['risk'])\n")
    step = {"postprocess": [{"function": {"function": "f.py:f"}}]}
    job = change_job(folder, {**step, "checks.not_null": ["rsik"]})
    for command in ("check", "run"):
        done = run_cli(command, job)
        assert done.exit_code == 2
        assert "checks.not_null: there is no column 'rsik'" in done.stderr
        assert "nearest: 'risk'" in done.stderr
    change_job(folder, {"checks": {"fresh": {"risk": "1h"}}})
    assert "column 'risk' is float; expected dates" in run_cli("run", job).stderr
    change_job(folder, {"checks": {}})
    change_job(folder, {"checks.not_null": ["risk"]})
    assert run_json("run", job)["status"] == "published"


def test_what_is_published_stays_while_a_check_fails(folder: Path) -> None:
    """A held run leaves the snapshot as it was."""
    job = folder / "job.yaml"
    run_json("run", job)
    before = read_tree(folder / "out/data")
    change_job(folder, {"checks.not_null": ["state"]})
    assert run_json("run", job, "--rescore")["status"] == "held"
    assert read_tree(folder / "out/data") == before


def test_check_is_held_where_its_batch_is(folder: Path) -> None:
    """One null settles it, in the rows of the second shard."""
    job = change_job(folder, {"input.filters": [["id", ">=", 300]], "checks.not_null": ["state"]})
    found, done = run_json("check", job), run_json("run", job)
    assert (found["exit_code"], done["exit_code"]) == (3, 3)
    expected = check_of(done, "not_null")
    expected["detail"] = f"in the first 200 rows: {expected['detail']}"
    assert check_of(found, "not_null") == expected


def test_check_is_held_where_published_rows_are(folder: Path) -> None:
    """Rows that were released count for each run that adds to them, and so for its check."""
    job = change_job(folder, {"checks.not_null": ["state"]})
    held = run_json("run", job)
    run_json("release", job, held["run"], "--reason", "known")
    write_shard(folder / "in/2.parquet", rows_with({"state": pa.array(["open"] * 10)}, 10, 500))
    found = run_json("check", job)
    assert found["exit_code"] == run_json("run", job)["exit_code"] == 3
    good, failed = (c["detail"] for c in found["checks"] if c["name"] == "not_null")
    assert good == "in the first 10 rows: state has no null in 10 rows"
    assert failed.startswith("in rows that were scored before: state is null in 72 of 500 rows")


def test_a_damaged_shard_counts_no_row_twice(folder: Path) -> None:
    """A shard that was quarantined fails again while published rows are counted."""
    path = folder / "in/1.parquet"
    pq.write_table(rows_with({"state": states(200, 300)}, 200, 300), path, row_group_size=50)
    start = pq.read_metadata(path).row_group(3).column(2).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 60] = b"\xff" * 60
    path.write_bytes(damaged)
    write_shard(folder / "in/2.parquet", rows_with({"state": states(100, 500)}, 100, 500))
    changes = {
        "input.filters": [["b", "<", 5]],
        "input.on_bad_shard": "quarantine",
        "input.max_bad_shards": 1,
        "runtime.batch_rows": 50,
        "rejects.max_ratio": 1,
        "checks.rows": {"min_ratio": 0},
    }
    job = change_job(folder, changes)
    assert run_json("run", job)["rows"]["quarantined"] == 200
    write_shard(folder / "in/3.parquet", rows_with({"state": states(10, 600)}, 10, 600))
    change_job(folder, {"checks.not_null": ["state"]})
    found = counted(run_json("run", job))["not_null", "state"]
    wrong = sum(n % 7 == 0 for n in (*range(300), *range(500, 610)))
    assert (found["rows"], found["failed"]) == (410, wrong)
