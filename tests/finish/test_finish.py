"""Test a run's last step: what it publishes, what it holds back, and that it can be repeated."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.commands.run import begin
from batchscore.drift.profile_file import write_table
from batchscore.errors import RecordError
from batchscore.finish.finish import finish_run, until_now
from batchscore.job import load_job
from batchscore.plan import make_plan, settle, share_out
from batchscore.plan.readiness import verify
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.runs.lease import acquire
from batchscore.runs.ledger import decode_record, encode_record, enter, merge_records
from batchscore.runs.snapshot import published_run, snapshot
from batchscore.stages.read import read_unit
from batchscore.storage.store import Store
from batchscore.telemetry import STAGES
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit
from batchscore.worker.scoring import (
    infer_step,
    load,
    make_attempt,
    open_unit,
    postprocess_step,
    preprocess_step,
)
from batchscore.worker.spec import RunSpec
from tests.drift.laws import content, profile_of
from tests.factory import (
    FaultyStore,
    Killed,
    make_rows,
    published,
    read_tree,
    write_job,
    write_shard,
)
from tests.manifests import make_manifest

pytestmark = pytest.mark.slow

# What changed between runs is scored, however little is left of it.
ANY_ROWS = {"checks.rows": {"min_ratio": 0}}
GO_ON = {"on_change": {"removed_shards": "remove", "rewritten_shards": "rescore"}, **ANY_ROWS}
ROWS = {"input": 500, "filtered": 0, "scored": 500, "rejected": 0}
ROWS |= {"quarantined": 0, "reused": 0}


def _score(spec: RunSpec, unit: Unit, attempt: str) -> str:
    """Does with a unit what a worker does; returns its record's address."""
    steps = (preprocess_step(spec), infer_step(spec, load(spec)), postprocess_step(spec))
    output = open_unit(spec, make_attempt(spec, unit, attempt))
    *blocks, last = read_unit(unit, spec.scoring.source)
    for block in blocks:
        for step in steps:
            block = step(block)
        output.writer.add(block)
    assert last.end is not None
    record = output.writer.finish(last.end)
    address = layout.record(spec.slice, spec.identity.score, unit.id)
    if not enter(spec.output, address, record, output.profile):
        output.writer.discard()
    return address


class Scored:
    """A run whose units are scored, up to its last step."""

    def __init__(self, job: Path, attempts: int = 1) -> None:
        plan = verify(make_plan(load_job(str(job))))
        layout.claim_output(plan.spec.output)
        run = layout.new_run_id(plan.spec.output)
        self.lease = acquire(plan.spec.output, plan.spec.slice, "run", run)
        work = settle(plan)
        self.spec = begin(share_out(plan, work.units), work, run, self.lease.number).spec
        self.units = work.units
        self.addresses = [
            _score(self.spec, unit, f"{unit.id}-{number:08x}")
            for number in range(attempts)
            for unit in work.units
        ]

    def finish(self, addresses: Sequence[str] | None = None) -> dict[str, Any]:
        """Does the last step; returns the manifest as JSON."""
        made = self.addresses if addresses is None else addresses
        return finish_run(self.spec, made).document

    def end(self) -> str:
        """Publishes, releases the slice, and returns the run's name."""
        assert self.finish()["status"] == "published"
        self.lease.release()
        return self.spec.identity.run


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a unit of each shard."""
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 300)


Make = Callable[..., Scored]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Scores the small job, with other values by dotted key."""

    def made(changes: dict[str, Any] | None = None, **facts: Any) -> Scored:
        return Scored(write_job(tmp_path, changes), **facts)

    return made


def test_a_record_survives_its_file(make: Make) -> None:
    """A record and its profile come back equal, and damaged bytes are a RecordError."""
    scored = make()
    data = scored.spec.output.read(scored.addresses[0])
    record, profile = decode_record(data)
    assert encode_record(record, profile) == data
    with pytest.raises(RecordError):
        decode_record(data[:-20])


@pytest.mark.parametrize("kind", ["staging/*/*/0000.parquet", "ledger/*/*/*.rows.parquet"])
def test_a_resumed_file_that_changes_while_the_run_scores_is_not_published(
    make: Make, tmp_path: Path, kind: str
) -> None:
    """Its bytes are compared where they are published, not only where the run starts."""
    make().lease.release()
    resuming = Scored(tmp_path / "job.yaml")
    assert resuming.units == ()
    path = sorted((tmp_path / "out/_batchscore").glob(kind))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    manifest = resuming.finish()
    assert (manifest["status"], manifest["files"]) == ("failed", [])
    name = path.relative_to(tmp_path / "out")
    assert manifest["error"].startswith(f"{name} has other bytes than were written")
    assert snapshot(resuming.spec.output, "small") == []


def test_what_was_scored_is_published(make: Make, tmp_path: Path) -> None:
    """Each row is published once, and the manifest has the files' rows, bytes, hashes and units."""
    scored = make({"output.partition_by": ["part"]})
    manifest = scored.finish()
    assert manifest["status"] == "published"
    assert manifest["rows"] == ROWS
    assert published(tmp_path / "out")["id"].to_pylist() == list(range(500))
    assert len(scored.units) == 2
    assert {file["unit"] for file in manifest["files"]} == {unit.id for unit in scored.units}
    for file in manifest["files"]:
        path = tmp_path / "out" / file["path"]
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file["bytes"] == path.stat().st_size
        assert file["rows"] == pq.read_metadata(path).num_rows
    assert snapshot(scored.spec.output, "small") == sorted(f["path"] for f in manifest["files"])


def test_the_manifest_tells_where_the_time_went(make: Make) -> None:
    """Busy seconds of all units, what limits them with its help, and times that go on until asked.

    A run without units of its own tells nothing.
    """
    scored = make()
    records = [decode_record(scored.spec.output.read(path))[0] for path in scored.addresses]
    manifest = scored.finish()
    spent = manifest["stage_seconds"]
    assert spent["infer"] == pytest.approx(sum(r.seconds["infer"] for r in records), abs=1e-4)
    # Reasons take time only where a job asks for them.
    assert spent.keys() >= {stage.name for stage in STAGES} - {"explain"}
    assert manifest["limited_by"].split(" and ")[0] in {
        *spent,
        "start-up",
        "planning",
        "loading",
        "publishing",
    }
    assert manifest["timings"]["help"]
    before = make_manifest(**{**manifest, "seconds": -10.0})
    timings = {"scoring_s": 1.0, "finish_s": 0.25, "help": "x"}
    later = until_now(before.updated(timings=timings))
    assert later.timings is not None
    more = later.seconds + 10.0
    assert later.timings["scoring_s"] == pytest.approx(1.0 + more, abs=1e-3)
    assert later.timings["finish_s"] == pytest.approx(0.25 + more, abs=1e-3)
    assert until_now(before.updated(timings=None)).timings is None


def test_the_profile_is_that_of_all_rows(make: Make, tmp_path: Path) -> None:
    """Merged from the units, in any order of their records, it is bitwise that of the whole."""
    scored = make()
    scored.finish(scored.addresses[::-1])
    found = scored.spec.output.read(layout.run_file(scored.spec.identity.run, "profile.parquet"))
    rows = published(tmp_path / "out").drop_columns(["model_version"]).combine_chunks()
    assert found == content(profile_of(rows.to_batches(), scored.spec.scoring.hints))


def test_of_several_attempts_the_first_counts(make: Make, tmp_path: Path) -> None:
    """A unit that was scored three times is recorded and published once, and leaves no litter."""
    scored = make({"output.partition_by": ["part"]}, attempts=3)
    records = [decode_record(scored.spec.output.read(path))[0] for path in scored.addresses]
    assert {record.attempt[-8:] for record in records} == {"00000000"}
    staged = [path.name for path in (tmp_path / "out/_batchscore/staging/small").iterdir()]
    assert sorted(staged) == sorted({record.attempt for record in records})
    scored.finish()
    assert published(tmp_path / "out")["id"].to_pylist() == list(range(500))


def _standing(output: Path) -> dict[str, bytes]:
    """All that readers of the slice see."""
    tree = read_tree(output)
    names = ("data/", "_batchscore/slices/small/current", "_batchscore/slices/small/_SUCCESS")
    return {path: data for path, data in tree.items() if path.startswith(names)}


@pytest.mark.parametrize(
    ("changes", "spoil", "status", "words"),
    [
        ({}, "missing", "failed", "1 planned unit without a record"),
        ({}, "damaged", "failed", "run its job again"),
        ({"input.filters": [["id", ">", 900]]}, "", "held", "0 rows to score"),
        ({"input.path": "nan", "rejects.max_ratio": 0.01}, "", "failed", "5 of 100 rows were rej"),
    ],
    ids=["missing record", "damaged record", "no rows", "rejects"],
)
def test_what_does_not_pass_leaves_the_old_snapshot(
    make: Make, tmp_path: Path, changes: dict[str, Any], spoil: str, status: str, words: str
) -> None:
    """The outcome is written and returned, not raised, and what was published before stays."""
    make(GO_ON).end()
    table = make_rows(100).drop_columns(["a"])
    spoiled = [float("nan")] * 5 + [0.0] * 95
    write_shard(tmp_path / "nan/0.parquet", table.append_column("a", [spoiled]))
    output = tmp_path / "out"
    before = _standing(output)
    for path in (tmp_path / "in").glob("*.parquet"):
        os.utime(path, (1, 1))
    scored = make({**GO_ON, **changes})
    if spoil == "damaged":
        scored.spec.output.write(scored.addresses[0], b"PAR1")
    manifest = scored.finish(scored.addresses[1:] if spoil == "missing" else None)
    assert manifest["status"] == status
    details = [c["detail"] for c in manifest.get("checks", []) if not c["passed"]]
    assert words in manifest.get("error", " ".join(details))
    assert (
        scored.spec.output.read_json(layout.run_file(scored.spec.identity.run, "manifest.json"))
        == manifest
    )
    assert (manifest["files"], manifest["run"]) == ([], scored.spec.identity.run)
    assert _standing(output) == before


def test_no_rows_are_published_as_empty_where_allowed(make: Make, tmp_path: Path) -> None:
    """With allow_empty the old files are retired and the snapshot is an empty list."""
    make().end()
    scored = make({"input.filters": [["id", ">", 900]], "input.allow_empty": True, **ANY_ROWS})
    manifest = scored.finish()
    assert (manifest["status"], manifest["rows"]["filtered"]) == ("empty", 500)
    assert len(manifest["replaced"]) == 2
    assert snapshot(scored.spec.output, "small") == []
    assert published_run(scored.spec.output, "small") == scored.spec.identity.run
    assert not list(tmp_path.glob("out/data/**/*.parquet"))


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Scored]:
    """An output with a published run, and another one that replaces it up to its last step."""
    changes = {"output.partition_by": ["part"], "rejects.max_ratio": 0.5, **GO_ON}
    job = write_job(tmp_path, changes)
    Scored(job).end()
    table = make_rows(200, 300).drop_columns(["a"])
    write_shard(
        tmp_path / "in/1.parquet",
        table.append_column("a", pa.array([float("nan")] * 3 + [1.0] * 197, pa.float32())),
    )
    return tmp_path, Scored(job)


def _outcome(output: Path, run: str) -> dict[str, Any]:
    """What a run leaves, without the times."""
    tree = read_tree(output)
    path = layout.run_file(run, "manifest.json")
    manifest = read_manifest(Store(str(output)), run).document
    times = ("finished", "seconds", "phases", "limited_by", "timings")
    timeless = {k: v for k, v in manifest.items() if k not in times}
    return {k: v for k, v in tree.items() if k != path and "/lease/" not in k} | {
        "manifest": timeless
    }


def _whole(folder: Path, scored: Scored) -> tuple[dict[str, Any], int]:
    """The outcome of a last step that nothing disturbs, and the changes that it makes."""
    shutil.copytree(folder / "out", folder / "whole")
    store = FaultyStore(str(folder / "whole"))
    finish_run(replace(scored.spec, output=store), scored.addresses)
    return _outcome(folder / "whole", scored.spec.identity.run), int(store.__dict__["changes"])


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_last_step_killed_anywhere_is_repeated_to_the_same_end(
    prepared: tuple[Path, Scored], done: bool
) -> None:
    """Killed before or after any change and done again, files, lists and manifest are the same."""
    folder, scored = prepared
    expected, changes = _whole(folder, scored)
    assert expected["manifest"]["rows"]["rejected"] == 3
    assert (len(expected["manifest"]["replaced"]), len(expected["manifest"]["files"])) == (3, 6)
    assert changes > 15
    for at in range(changes):
        output = folder / f"killed-{at}"
        shutil.copytree(folder / "out", output)
        with pytest.raises(Killed):
            finish_run(
                replace(scored.spec, output=FaultyStore(str(output), at, done)), scored.addresses
            )
        finish_run(replace(scored.spec, output=Store(str(output))), scored.addresses)
        assert _outcome(output, scored.spec.identity.run) == expected, f"killed at change {at}"


def test_a_last_step_can_be_done_again_and_at_the_same_time(
    prepared: tuple[Path, Scored],
) -> None:
    """Four at once, and one more, all return, and leave what a single one leaves."""
    folder, scored = prepared
    expected, _ = _whole(folder, scored)
    for round_ in range(8):
        output = folder / f"round-{round_}"
        shutil.copytree(folder / "out", output)
        spec = replace(scored.spec, output=Store(str(output)))
        statuses: list[str] = []

        def finish(spec: RunSpec = spec, statuses: list[str] = statuses) -> None:
            statuses.append(finish_run(spec, scored.addresses).status)

        threads = [threading.Thread(target=finish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finish()
        assert statuses == ["published"] * 5
        assert _outcome(output, scored.spec.identity.run) == expected


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.randoms())
def test_merging_does_not_depend_on_order(units: list[str], chance: Any) -> None:
    """However addresses arrive, and however often, each unit has one record, profiled once."""
    store = Store(f"memory://finish-{uuid.uuid4().hex}")
    for n, unit in enumerate(units):
        made = UnitRecord(unit, f"{unit}-{n}", "r", (), n, 0, n, 0, {}, None, (), (), {})
        profile = profile_of([pa.record_batch({"x": [float(n)]})])
        store.write(f"{unit}.parquet", encode_record(made, profile))
    addresses = [f"{unit}.parquet" for unit in units] * 2
    merged = profile_of([])
    found = merge_records(store, addresses, merged)
    assert sorted(found) == sorted(units)
    assert sum(column.count for column in merged.columns.values()) == len(units)
    chance.shuffle(addresses)
    again = profile_of([])
    assert merge_records(store, addresses, again) == found
    assert write_table(again, {}) == write_table(merged, {})
