"""Test what an output tells of what is under way in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from batchscore.cli.render.status import status, waiting
from batchscore.runs import holder, layout
from batchscore.runs.history import read_history
from batchscore.runs.lease import acquire
from batchscore.runs.progress import Pulse, request_stop
from batchscore.runs.publication import journal_path
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.underway import Activity, Undecided, find_activities, find_undecided
from batchscore.storage.store import Store
from tests.manifests import make_manifest

RUN, SLICE = "20261120-aaaa", "job,date=1"
_LEASES = layout.slice_file(SLICE, "lease")
FACTS = {
    "job": "job",
    "slice": SLICE,
    "score": "s",
    "started": "2026-11-20T01:00:00+00:00",
    "engine": "direct",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty output."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    return store


def open_run(store: Store, **facts: Any) -> None:
    """Write the plan of a run that is to score 30 rows in two units."""
    plan = RunPlan({**FACTS, **facts}, 0, [], [], [], [], {"u": 20, "v": 10}, [], [], None, [])
    store.write(layout.plan_file(RUN), encode_plan(plan))


def write_manifest(store: Store, run: str, **facts: Any) -> None:
    """Write the manifest of a run that has ended."""
    manifest = make_manifest(run=run, **facts)
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)


def look(store: Store, slice_: str | None = None) -> Activity:
    """The one thing that is under way."""
    (found,) = find_activities(store, slice_)
    assert isinstance(found, Activity)
    return found


@contextmanager
def rewritten(store: Store, **facts: Any) -> Iterator[None]:
    """Let the lease file say something else while the block is worked on.

    The disk dates it as its holder does.
    """
    path = layout.slice_file(SLICE, "lease/00000001.json")
    before = store.read(path)
    store.write_json(path, {**json.loads(before), **facts})
    if "renewed" in facts:
        os.utime(store.path(path), (datetime.fromisoformat(facts["renewed"]).timestamp(),) * 2)
    yield
    store.write(path, before)


def test_a_run_is_seen_from_its_start_to_its_end(store: Store) -> None:
    """Each state follows from what lies in the output; nothing is written."""
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("starting", lambda: None),
        ("starting", lambda: open_run(store)),
        ("scoring", lambda: Pulse(store, RUN).add(12, rejected=2)),
        ("finishing", lambda: Pulse(store, RUN).add(19)),
        ("stopping", lambda: request_stop(store, RUN, "etl@host")),
        ("publishing", lambda: store.write(journal_path(SLICE, RUN), b"{}")),
        ("ending", lambda: store.remove(journal_path(SLICE, RUN))),
    ]
    assert find_activities(store, None) == []
    with acquire(store, SLICE, "run", RUN):
        for state, step in steps:
            step()
            if state == "ending":
                write_manifest(store, RUN)
            found = look(store)
            assert (found.state, found.slice, found.run) == (state, SLICE, RUN)
    assert (found.rows, found.total, found.rejected, found.workers) == (30, 30, 2, 2)
    assert (found.engine, found.pid, found.problem) == ("direct", os.getpid(), "")
    assert find_activities(store, SLICE) == []


def test_speed_and_time_left_come_from_the_stores_clock(store: Store, tmp_path: Path) -> None:
    """12 of 30 rows within 4 s of opening the run are 3 rows a second, and 6 s for the rest."""
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        assert (look(store).rows_per_s, look(store).left_s) == (None, None)
        Pulse(store, RUN).add(12)
        (counts,) = (tmp_path / layout.progress(RUN)).iterdir()
        os.utime(tmp_path / layout.plan_file(RUN), (1_000_000, 1_000_000))
        os.utime(counts, (1_000_004, 1_000_004))
        assert (look(store).rows_per_s, look(store).left_s) == (3.0, 6.0)


@pytest.mark.parametrize(
    "facts",
    [
        {"machine": "elsewhere", "renewed": "2026-11-20T01:00:00+00:00"},
        {"started": "1"},
    ],
)
def test_a_run_that_nobody_works_on_is_lost(store: Store, facts: dict[str, Any]) -> None:
    """Its lease expired, or its process is dead; the text says so, and what to do."""
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        Pulse(store, RUN).add(12)
        with rewritten(store, **facts):
            found = look(store)
    assert (found.state, found.rows, found.left_s) == ("lost", 12, None)
    said = status([found])[-1]
    assert said.startswith(f"LOST  run {RUN} of slice {SLICE}: nobody works on it any more: ")
    assert said.endswith("run the job again, which resumes what it finished")


def test_a_run_that_renews_its_lease_late_is_silent(store: Store) -> None:
    """What its speed was says nothing of when it ends; one that waits at its engine is not late."""
    late = (datetime.now(timezone.utc) - timedelta(seconds=40)).isoformat()
    job = {"engine": "flink", "deadline": "2126-11-20T01:00:00+00:00"}
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        with rewritten(store, machine="elsewhere", renewed=late):
            silent = look(store)
        with rewritten(store, renewed=late, submission=job, batchscore_lease=2):
            waiting = look(store)
    assert (silent.state, silent.left_s) == ("silent", None)
    assert waiting.state == "submitted"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wrong_clock_loses_no_run_and_keeps_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The disk's clock says how old a renewal is that looks old, or is dated ahead."""
    then = datetime.now(timezone.utc) + timedelta(hours=hours)
    monkeypatch.setattr(holder, "utc_now", lambda: then)
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        now = datetime.now(timezone.utc).isoformat()
        with rewritten(store, machine="elsewhere", renewed=now):
            alive = look(store)
        before = (datetime.now(timezone.utc) - timedelta(seconds=90)).isoformat()
        with rewritten(store, machine="elsewhere", renewed=before):
            dead = look(store)
        assert [each for each in os.listdir(store.path(_LEASES)) if each.endswith("tmp")] == []
    assert (alive.state, alive.heartbeat_s < 5) == ("starting", True)
    assert (dead.state, 85 < dead.heartbeat_s < 95) == ("lost", True)


def test_who_cannot_ask_the_disk_loses_no_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that may not write takes an old lease for silent, since its clock may be wrong."""
    monkeypatch.setattr(Store, "age", _refused)
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        with rewritten(store, machine="elsewhere", renewed="2026-11-20T01:00:00+00:00"):
            assert look(store).state == "silent"


def _refused(*_: object) -> float:
    raise PermissionError("read-only")


def test_a_command_that_is_no_run_is_under_way_too(store: Store) -> None:
    """A decision holds the slice as a run does."""
    with acquire(store, SLICE, f"release {RUN}"):
        found = look(store)
        assert look(store, SLICE) == found
        assert find_activities(store, "job,date=2") == []
    assert (found.state, found.run, found.command) == ("working", "", f"release {RUN}")


def test_a_job_of_an_engine_is_named(store: Store) -> None:
    """Until its first worker has renewed the lease it is submitted; it needs no launcher."""
    job = {"engine": "flink", "job": "c0ffee", "name": "n", "address": "host:8081"}
    later = "2126-11-20T01:00:00+00:00"
    facts = {"batchscore_lease": 2, "machine": "elsewhere", "renewed": "2026-11-20T01:00:00+00:00"}
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        waiting = {**job, "deadline": later, "detached": True}
        with rewritten(store, **facts, submission=waiting):
            found = look(store)
        with rewritten(store, **facts, submission={**waiting, "deadline": None}):
            late = look(store)
    assert (found.state, found.job, found.address) == ("submitted", "c0ffee", "host:8081")
    assert late.state == "lost"
    assert status([found])[-1] == (
        f"run {RUN}: flink job c0ffee at host:8081, and no launcher watches it"
    )


def test_hostile_names_command_no_terminal(store: Store) -> None:
    """Whoever can write into the output can put neither a path nor a control code into a line."""
    names = {"user": "a\x1b[31m\nb", "host": "h" * 500, "command": "run\x1b[2J", "run": "../.."}
    with acquire(store, SLICE, "run", RUN):
        with rewritten(store, **names):
            found = look(store)
        open_run(store, engine="\x1b[31m" * 50)
        waits = Undecided("s\x1b", "r", "failed", "", "w\x1b\n" * 999)
        lines = [*status([found, look(store)]), *waiting([("out\n\x1b", waits)])]
    assert (found.state, found.run) == ("working", "")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 600


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"number": 2}'])
def test_a_damaged_lease_hides_no_other_slice(store: Store, content: bytes) -> None:
    """The slice is named as damaged, and the others are shown."""
    with acquire(store, SLICE, "run", RUN):
        store.write(layout.slice_file("job,date=0", "lease/00000001.json"), content)
        damaged, other = find_activities(store, None)
    assert isinstance(damaged, Undecided)
    assert (damaged.slice, damaged.status) == ("job,date=0", "damaged")
    assert "lease/00000001.json: damaged" in damaged.why
    assert isinstance(other, Activity)


def test_a_damaged_plan_is_named(store: Store) -> None:
    """Who works on the run is known all the same."""
    with acquire(store, SLICE, "run", RUN):
        store.write(layout.plan_file(RUN), b"{")
        found = look(store)
    assert (found.state, found.total) == ("starting", None)
    assert "plan.json: damaged" in found.problem
    assert status([found])[-1].startswith(f"DAMAGED  run {RUN}: plan ")


def test_only_the_last_run_of_a_slice_waits_for_a_person(store: Store) -> None:
    """A failure that a later run made good is history."""
    check = {"name": "rejects", "passed": False, "detail": "9 of 10 rows"}
    runs: list[tuple[str, str, dict[str, Any]]] = [
        ("a", "failed", {"error": "boom"}),
        ("a", "published", {}),
        ("b", "published", {}),
        ("b", "held", {"checks": [check]}),
        ("c", "interrupted", {"error": "cancelled by etl@host"}),
        ("d", "discarded", {}),
    ]
    for day, (slice_, how, facts) in enumerate(runs, 1):
        started = f"2026-11-{day:02}T01:00:00+00:00"
        facts = {"status": how, "started": started, "finished": started, **facts}
        write_manifest(store, f"202611{day:02}-aaaa", slice=slice_, **facts)
    found = find_undecided(read_history(store))
    assert [(each.slice, each.status, each.why) for each in found] == [
        ("b", "held", "rejects: 9 of 10 rows"),
        ("c", "interrupted", "cancelled by etl@host"),
    ]
    assert find_undecided(read_history(store, "a")) == []
    assert [*waiting([("", each) for each in found])] == [
        "HELD  run 20261104-aaaa of slice b at 2026-11-04T01:00:00: rejects: 9 of 10 rows; "
        "release or discard it",
        "INTERRUPTED  run 20261105-aaaa of slice c at 2026-11-05T01:00:00: cancelled by etl@host",
    ]


def test_a_unit_without_progress_is_named(store: Store) -> None:
    """By what its worker writes while it waits."""
    with acquire(store, SLICE, "run", RUN):
        open_run(store)
        doing = {"unit": "ab12", "shards": "shard 0.parquet", "since": 900.0, "advanced": 1_000.0}
        worker = {"rows": 5, "rejected": 0, "host": "node-7", "pid": 41, "units": [doing]}
        path = f"{layout.progress(RUN)}/0.json"
        for at, named in ((1_200.0, 0), (1_300.0, 1)):
            store.write_json(path, {**worker, "at": at})
            lines = [line for line in status([look(store)]) if line.startswith("STALLED")]
            assert len(lines) == named
    assert "unit ab12 (shard 0.parquet): no batch was finished for 300 seconds" in lines[0]
    assert "on worker node-7, process 41" in lines[0]
