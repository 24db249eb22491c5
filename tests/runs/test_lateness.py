"""Test which jobs are late, of outputs whose nights came, did not come, or are held."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from batchscore.runs import layout
from batchscore.runs.history import read_history
from batchscore.runs.lateness import Late, find_late, hours
from batchscore.runs.lease import acquire
from batchscore.runs.publication import Publication, journal_path
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.series import Series, find_series
from batchscore.runs.snapshot import MARKER
from batchscore.runs.underway import Activity, find_activities
from batchscore.storage.store import Store
from tests.factory import run_cli
from tests.nights import HOUR, add_night

HELD: dict[str, Any] = {"checks": [{"name": "rejects", "passed": False, "detail": "90 of 500"}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output without any run."""
    return Store(str(tmp_path / "out"))


def jobs(store: Store) -> list[Series]:
    """The jobs of an output."""
    active = [each for each in find_activities(store, None) if isinstance(each, Activity)]
    return find_series(store, read_history(store), {each.run: each.state for each in active})


def late(store: Store, hours_old: float = 26) -> list[Late]:
    """The jobs of an output whose newest slice is older."""
    return find_late(jobs(store), hours_old * HOUR)


def test_a_night_that_did_not_come_is_named_with_slice_and_date(store: Store) -> None:
    """The newest slice by its date counts, and how long ago it was published."""
    add_night(store, "2026-11-28", 51)
    run = add_night(store, "2026-11-29", 27)
    (found,) = late(store)
    assert (found.job, found.slice) == ("flights", "flights,date=2026-11-29")
    assert found.why == (
        f"the newest published slice is flights,date=2026-11-29, of run {run}, published 27 h ago; "
        "at most 26 h were expected; no run came after it"
    )
    assert late(store, 28) == []


def test_a_backfill_does_not_hide_a_night_that_did_not_come(store: Store) -> None:
    """A slice of an earlier date that is published today makes nothing newer."""
    add_night(store, "2026-11-29", 30)
    add_night(store, "2026-01-05", 0.1)
    assert [each.slice for each in late(store)] == ["flights,date=2026-11-29"]


@pytest.mark.parametrize(
    ("status", "facts", "words"),
    [
        ("held", HELD, "is held (rejects: 90 of 500); release or discard it"),
        ("failed", {"error": "disk full"}, "is failed (disk full)"),
    ],
)
def test_a_night_that_is_held_or_failed_is_late_at_once(
    store: Store, status: str, facts: dict[str, Any], words: str
) -> None:
    """The one before may be young enough; it is named all the same, and so is the reason."""
    before = add_night(store, "2026-11-29", 24)
    run = add_night(store, "2026-11-30", 0.5, status, **facts)
    (found,) = late(store)
    assert found.slice == "flights,date=2026-11-30"
    assert found.why == (
        f"run {run} of slice flights,date=2026-11-30, which ended 30 min ago, {words}; the newest "
        f"published slice is flights,date=2026-11-29, of run {before}, published 24 h ago"
    )


def test_a_failed_night_of_a_backfill_is_nobodys_alarm(store: Store) -> None:
    """Neither is a try that failed before the one that published, or one that is tried again."""
    add_night(store, "2026-11-30", 3, "failed", error="no disk")
    add_night(store, "2026-11-30", 2)
    add_night(store, "2026-01-05", 1, "failed", error="no input")
    assert late(store) == []


@pytest.mark.parametrize("status", ["failed", "held", "interrupted", "revoked"])
def test_a_job_that_never_published_is_late(store: Store, status: str) -> None:
    """Whatever its runs came to; the last one is named."""
    run = add_night(store, "2026-11-30", 1, status)
    (found,) = late(store)
    assert found.why.startswith(f"nothing is published; run {run} of slice ")
    assert f"is {status}" in found.why


def test_a_slice_without_rows_is_a_publication(store: Store) -> None:
    """A night on which there was nothing to score came all the same."""
    add_night(store, "2026-11-30", 2, "empty")
    assert late(store) == []


def test_each_value_of_a_parameter_that_is_no_date_is_a_job_of_its_own(store: Store) -> None:
    """A region that stopped is not hidden by the others."""
    for region, ago in (("eu", 30), ("us", 2)):
        add_night(store, "2026-11-30", ago, params={"region": region})
    assert [each.job for each in jobs(store)] == ["flights region=eu", "flights region=us"]
    assert [each.job for each in late(store)] == ["flights region=eu"]


def test_a_job_without_dates_has_the_age_of_its_last_publication(store: Store) -> None:
    """Its one slice is published again each night."""
    add_night(store, "", 40)
    marker = store.path(layout.slice_file("flights", MARKER))
    assert [each.slice for each in late(store)] == ["flights"]
    os.utime(marker)
    assert late(store) == []


def test_ages_are_by_the_clock_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock may be hours ahead, or behind: the store says how old a file is."""
    add_night(store, "2026-11-30", 2)
    monkeypatch.setattr(Store, "age", lambda *_: 30 * HOUR)
    (found,) = jobs(store)
    assert found.newest is not None
    assert found.newest.age_s == pytest.approx(30 * HOUR, abs=60)


def test_an_output_that_may_not_be_written_is_dated_by_this_machine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's clock cannot be asked there."""

    def refuse(*_: object) -> float:
        raise PermissionError("read-only")

    add_night(store, "2026-11-30", 2)
    monkeypatch.setattr(Store, "age", refuse)
    (found,) = jobs(store)
    assert found.newest is not None
    assert found.newest.age_s == pytest.approx(2 * HOUR, abs=60)


def test_a_run_that_is_under_way_is_the_last_run_and_no_concern(store: Store) -> None:
    """Its age is since its start; the slice before decides whether the job is late."""
    add_night(store, "2026-11-29", 2)
    slice_, run = "flights,date=2026-11-30", "20261120-aaaa"
    started = datetime.now(timezone.utc).isoformat()
    facts = {"slice": slice_, "job": "flights", "params": {"date": "2026-11-30"}, "score": "s"}
    plan = RunPlan({**facts, "started": started}, 0, [], [], [], [], {}, [], [], None, [])
    with acquire(store, slice_, "run", run):
        store.write(layout.plan_file(run), encode_plan(plan))
        (found,) = jobs(store)
        assert found.last is not None
        assert (found.last.run, found.last.status, found.concern) == (run, "finishing", None)
        assert late(store) == []
    (found,) = jobs(store)
    assert found.concern is not None
    assert found.concern.status == "killed"


def test_a_slice_that_is_being_published_counts_as_what_was_before(store: Store) -> None:
    """The marker is gone for that moment; readers still see what was there."""
    run = add_night(store, "", 2)
    journal = Publication("r", run, (), ("data/f",), (), (), (), run)
    store.write_json(journal_path("flights", "r"), journal.to_json())
    store.remove(layout.slice_file("flights", MARKER))
    (found,) = jobs(store)
    assert found.newest is not None
    assert found.newest.run == run
    assert found.newest.age_s == pytest.approx(2 * HOUR, abs=60)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 s"), (720, "12 min"), (26 * HOUR, "26 h"), (1.6 * HOUR, "96 min"), (9e5, "10 days")],
)
def test_ages_are_put_as_people_say_them(seconds: float, words: str) -> None:
    """In the unit that has few digits."""
    assert hours(seconds) == words


def test_the_command_ends_with_3_and_says_why(store: Store) -> None:
    """For people and as JSON; without `--max-age` it ends with 0, whatever it finds."""
    add_night(store, "2026-11-29", 27)
    found = run_cli("status", store.address, "--max-age", "26h")
    assert found.exit_code == 3
    assert found.stdout.startswith("LATE  flights: the newest published slice is flights,date=2026")
    document = json.loads(run_cli("status", store.address, "--max-age", "1d", "--json").stdout)
    assert (document["exit_code"], document["max_age_s"]) == (3, 86_400)
    assert document["late"][0]["slice"] == "flights,date=2026-11-29"
    assert document["jobs"][0]["last"]["scored"] == 9
    assert run_cli("status", store.address, "--max-age", "28h").exit_code == 0
    assert run_cli("status", store.address).exit_code == 0


def test_an_age_without_a_unit_is_refused(store: Store) -> None:
    """The message shows what is expected."""
    found = run_cli("status", store.address, "--max-age", "26")
    assert found.exit_code == 2
    assert "expected minutes, hours or days, such as 90m, 26h or 2d, found '26'" in found.output
