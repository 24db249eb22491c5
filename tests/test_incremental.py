"""Test what a run does with what is published and what changed since, run after run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests import factory
from tests.factory import change_job, make_rows, published, run_json, write_shard
from tests.spoils import published_bytes

pytestmark = pytest.mark.slow


def run(folder: Path, *args: object) -> dict[str, Any]:
    return run_json("run", folder / "job.yaml", *args)


def ids(folder: Path) -> list[int]:
    """The published ids, sorted."""
    found: list[int] = published(folder / "out").column("id").to_pylist()
    return found


def held_for(manifest: dict[str, Any]) -> list[str]:
    return [check["name"] for check in manifest["checks"] if not check["passed"]]


def inferences(manifest: dict[str, Any]) -> int:
    """Rows that went through the model, by Beam's own count."""
    found = [m["value"] for m in manifest["beam_metrics"] if m["name"] == "num_inferences"]
    return sum(found)


def test_an_unchanged_job_does_nothing_and_writes_nothing(scored_job: Path) -> None:
    """The same run again is unchanged, and leaves every byte of the output as it was."""
    before = factory.read_tree(scored_job / "out")
    found = run(scored_job)
    assert (found["status"], found["exit_code"]) == ("unchanged", 0)
    assert factory.read_tree(scored_job / "out") == before


def test_new_shards_alone_are_scored_and_added(scored_job: Path) -> None:
    """A late shard is scored by itself; the published files stay the same files."""
    before = published_bytes(scored_job)
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    found = run(scored_job)
    assert (found["status"], found["rows"]["input"], found["rows"]["reused"]) == (
        "published",
        600,
        500,
    )
    assert inferences(found) == 100
    assert ids(scored_job) == list(range(600))
    files = {path: data for path, data in before.items() if path.startswith("data/")}
    assert files.items() <= published_bytes(scored_job).items()


def test_the_profile_of_added_shards_is_that_of_all_scored_at_once(
    scored_job: Path, tmp_path: Path
) -> None:
    """Units merged run after run give the same profile, bit for bit, as one run over all."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    added = run(scored_job)
    whole = run(scored_job, "--set", f"output.path={tmp_path / 'whole'}")
    bytes_ = [
        (out / "_batchscore/runs" / m["run"] / "profile.parquet").read_bytes()
        for out, m in ((scored_job / "out", added), (tmp_path / "whole", whole))
    ]
    assert bytes_[0] == bytes_[1]
    assert published(scored_job / "out") == published(tmp_path / "whole")


def test_late_shards_are_held_where_the_job_says_so(scored_job: Path) -> None:
    """on_change.late_shards: hold scores nothing, and names the shard and the way on."""
    change_job(scored_job, {"on_change.late_shards": "hold"})
    before = published_bytes(scored_job)
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    found = run(scored_job)
    assert (found["status"], found["exit_code"]) == ("held", 3)
    assert held_for(found) == ["on_change.late_shards"]
    assert "2.parquet" in found["error"]
    assert "--set on_change.late_shards=add" in found["error"]
    assert published_bytes(scored_job) == before
    assert run(scored_job, "--set", "on_change.late_shards=add")["status"] == "published"


def test_a_vanished_shard_holds_and_is_removed_on_demand(scored_job: Path) -> None:
    """By default a run that misses a shard is held; with `remove` its rows alone are gone."""
    before = published_bytes(scored_job)
    (scored_job / "in/1.parquet").unlink()
    checked = run_json("check", scored_job / "job.yaml")
    assert (checked["status"], checked["exit_code"]) == ("held", 3)
    found = run(scored_job)
    assert (found["exit_code"], held_for(found)) == (3, ["on_change.removed_shards"])
    assert "1.parquet" in found["error"]
    assert published_bytes(scored_job) == before
    done = run(scored_job, "--set", "on_change.removed_shards=remove")
    assert done["status"] == "published"
    assert ids(scored_job) == list(range(300))


def test_a_rewritten_shard_holds_and_is_scored_again_on_demand(scored_job: Path) -> None:
    """A shard with other content under its name is held, then takes the place of what it was."""
    write_shard(scored_job / "in/1.parquet", make_rows(50, 1_000))
    found = run(scored_job)
    assert (found["exit_code"], held_for(found)) == (3, ["on_change.rewritten_shards"])
    done = run(scored_job, "--set", "on_change.rewritten_shards=rescore")
    assert done["status"] == "published"
    assert ids(scored_job) == [*range(300), *range(1_000, 1_050)]


def test_a_compaction_is_seen_as_rewritten(scored_job: Path) -> None:
    """Files that take each other's place in a folder are rewritten, not removed and late."""
    for name in ("0", "1"):
        (scored_job / f"in/{name}.parquet").unlink()
    write_shard(scored_job / "in/all.parquet", make_rows(500))
    found = run(scored_job)
    assert held_for(found) == ["on_change.rewritten_shards"]
    assert "500 rows are published" in found["error"]
    assert "500 would take their place" in found["error"]
    done = run(scored_job, "--set", "on_change.rewritten_shards=rescore")
    assert (done["status"], len(ids(scored_job))) == ("published", 500)


def test_a_changed_model_scores_every_row_again_or_holds(scored_job: Path) -> None:
    """What decides scores reuses nothing; `hold` says what changed and scores nothing."""
    factory.write_model(scored_job / "model", version="2.0")
    held = run(scored_job, "--set", "on_change.model=hold")
    assert held_for(held) == ["on_change.model"]
    assert "model 1.0 to 2.0, so every row" in held["error"]
    done = run(scored_job)
    assert (done["rows"]["reused"], inferences(done)) == (0, 500)
    assert done["changed"] == ["model"]
    versions = published(scored_job / "out").column("model_version").unique().to_pylist()
    assert versions == ["2.0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"rejects.max_ratio": 0.5},
        {"runtime.workers": 1},
        {"runtime.batch_rows": 7},
        {"checks.unique": ["id"]},
        {"on_change.late_shards": "hold"},
    ],
)
def test_what_cannot_alter_scores_reuses_everything(
    scored_job: Path, changes: dict[str, Any]
) -> None:
    """A bound, a check or a worker count leaves what is published as it is."""
    change_job(scored_job, changes)
    assert run(scored_job)["status"] == "unchanged"


def test_rescore_scores_and_replaces_all(scored_job: Path) -> None:
    """--rescore publishes every row again, once."""
    found = run(scored_job, "--rescore")
    assert (found["status"], inferences(found)) == ("published", 500)
    assert (found["rows"]["reused"], len(found["replaced"])) == (0, 1)
    assert ids(scored_job) == list(range(500))
    assert run(scored_job)["status"] == "unchanged"


def test_a_shard_touched_but_not_changed_is_rewritten(scored_job: Path) -> None:
    """Another modification time is another shard: nothing else tells that bytes are the same."""
    os.utime(scored_job / "in/1.parquet", (1, 1))
    assert held_for(run(scored_job)) == ["on_change.rewritten_shards"]


def test_a_published_file_that_is_gone_is_made_again(scored_job: Path) -> None:
    """The units of a published file that someone deleted are scored again."""
    (file,) = (scored_job / "out/data").rglob("*.parquet")
    file.unlink()
    assert run(scored_job)["status"] == "published"
    assert ids(scored_job) == list(range(500))


def test_dates_do_not_see_each_other(tmp_path: Path) -> None:
    """State is a slice's: another parameter's shards are neither late nor vanished."""
    job = factory.write_job(
        tmp_path,
        {"params": {"day": {"type": "integer"}}, "input.path": "in/${day}.parquet"},
    )
    for day in (0, 1):
        assert run_json("run", job, "--param", f"day={day}")["status"] == "published"
    assert ids(tmp_path) == list(range(500))
    for day in (0, 1):
        assert run_json("run", job, "--param", f"day={day}")["status"] == "unchanged"


def test_a_half_empty_night_is_held_and_released(scored_job: Path) -> None:
    """Far fewer rows than published before hold the run; a person may release it."""
    change_job(scored_job, {"on_change": {"rewritten_shards": "rescore"}})
    write_shard(scored_job / "in/0.parquet", make_rows(10))
    write_shard(scored_job / "in/1.parquet", make_rows(10, 10))
    before = published_bytes(scored_job)
    found = run(scored_job)
    assert (found["exit_code"], held_for(found)) == (3, ["volume"])
    assert published_bytes(scored_job) == before
    done = run_json("release", scored_job / "out", found["run"], "--reason", "a quiet night")
    assert (done["status"], done["released"]["reason"]) == ("published", "a quiet night")
    assert ids(scored_job) == list(range(20))
    assert run(scored_job)["status"] == "unchanged"


def test_a_held_run_is_judged_again_without_scoring(scored_job: Path) -> None:
    """Run again, a held run scores nothing; with a wider bound it is published."""
    change_job(scored_job, {"checks.score_range": [0.9, 1]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    first = run(scored_job)
    assert (first["exit_code"], held_for(first)) == (3, ["score_range"])
    again = run(scored_job)
    assert (again["exit_code"], inferences(again), again["rows"]["reused"]) == (3, 0, 600)
    change_job(scored_job, {"checks.score_range": [0, 1]})
    done = run(scored_job)
    assert (done["status"], inferences(done)) == ("published", 0)
    assert ids(scored_job) == list(range(600))
    released = run_json("release", scored_job / "out", first["run"], "--reason", "too late")
    assert released["exit_code"] == 2


def test_a_discarded_run_is_scored_again(scored_job: Path) -> None:
    """`discard` drops a held run and what it scored."""
    change_job(scored_job, {"checks.score_range": [0.9, 1]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    found = run(scored_job)
    dropped = run_json("discard", scored_job / "out", found["run"])
    assert dropped["status"] == "discarded"
    assert not (scored_job / "out/_batchscore/staging/small").exists()
    assert inferences(run(scored_job)) == 100


def test_rows_that_are_there_twice_hold_the_run(scored_job: Path) -> None:
    """checks.unique looks at the whole slice, also at rows published before it was asked for."""
    change_job(scored_job, {"checks.unique": ["id"]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 450))
    found = run(scored_job)
    assert (found["exit_code"], held_for(found)) == (3, ["unique"])
    assert "50 rows" in found["error"]
    first = {"1": 300, "2": 450}
    keys = re.findall(r"id=(\d+) in row (\d+) of \S+([12])\.parquet; row", found["error"])
    assert keys
    assert all(int(key) == int(row) + first[shard] for key, row, shard in keys)
    pairs = re.findall(
        r"row (\d+) of \S+([12])\.parquet; row (\d+) of \S+([12])\.parquet", found["error"]
    )
    assert pairs
    for row, shard, other_row, other in pairs:
        assert shard != other
        assert int(row) + first[shard] == int(other_row) + first[other]


def test_an_undone_run_gives_back_what_it_replaced(scored_job: Path) -> None:
    """rollback --undo brings the files back, and the same run is not published again by itself."""
    before = {k: v for k, v in published_bytes(scored_job).items() if k.startswith("data/")}
    factory.write_model(scored_job / "model", version="2.0")
    bad = run(scored_job)
    undone = run_json("rollback", scored_job / "job.yaml", "--undo", bad["run"], "--reason", "bad")
    assert (undone["status"], undone["undoes"]) == ("rolled_back", bad["run"])
    after = {k: v for k, v in published_bytes(scored_job).items() if k.startswith("data/")}
    assert after == before
    assert run_json("show", scored_job / "out", bad["run"])["status"] == "revoked"
    held = run(scored_job)
    assert (held["exit_code"], held_for(held)) == (3, ["revoked"])
    assert run(scored_job, "--rescore")["status"] == "published"


def test_an_undone_undo_brings_the_run_back(scored_job: Path) -> None:
    """Taking back a rollback publishes what it had taken away, and lifts the revocation."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    added = run(scored_job)
    undone = run_json("rollback", scored_job / "out", "--undo", added["run"])
    assert ids(scored_job) == list(range(500))
    run_json("rollback", scored_job / "out", "--undo", undone["run"])
    assert ids(scored_job) == list(range(600))
    assert run(scored_job)["status"] == "unchanged"


def test_a_run_in_the_middle_is_undone_alone(scored_job: Path) -> None:
    """What a later run added stays."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    second = run(scored_job)
    write_shard(scored_job / "in/3.parquet", make_rows(100, 600))
    run(scored_job)
    run_json("rollback", scored_job / "out", "--undo", second["run"])
    assert ids(scored_job) == [*range(500), *range(600, 700)]


def test_a_run_that_was_built_upon_is_not_undone(scored_job: Path) -> None:
    """Where a later run replaced what it published, that one has to be undone first."""
    first = run_json("show", scored_job / "out")
    later = run(scored_job, "--rescore")
    found = run_json("rollback", scored_job / "out", "--undo", first["run"])
    assert found["exit_code"] == 2
    assert later["run"] in found["error"]
    assert ids(scored_job) == list(range(500))


def test_the_columns_of_a_slice_are_pinned(scored_job: Path) -> None:
    """Other columns than published before hold the run, and say which."""
    change_job(scored_job, {"output.columns": ["id"]})
    found = run(scored_job)
    assert (found["exit_code"], held_for(found)) == (3, ["schema"])
    assert "a float is gone" in found["error"]


def test_golden_rows_are_scored_by_every_run_that_loads_the_model(tmp_path: Path) -> None:
    """Known scores that the network does not give hold the run, with the difference."""
    job = factory.write_job(tmp_path)
    for known, status in ((1.0, "held"), (0.125, "published")):
        golden = pa.table(
            {
                "x": pa.array([[0.0, 0.0]], pa.list_(pa.float32(), 2)),
                "logit": pa.array([known], pa.float32()),
            }
        )
        factory.write_model(
            tmp_path / "model", tables={"golden.parquet": golden}, golden="golden.parquet"
        )
        found = run_json("run", job)
        assert found["status"] == status, found["error"]
        check = next(c for c in found["checks"] if c["name"] == "golden_rows")
        assert "1 golden row differs in logit by" in check["detail"]
