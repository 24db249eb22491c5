"""Test that a lease tells the job of an engine, and how long it may wait for its first worker."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import RecordError, RetryError
from batchscore.runs.holder import (
    EXPIRY_SECONDS,
    Holder,
    encode_lease,
    holder,
    last_holder,
    lease_path,
    utc_now,
)
from batchscore.runs.lease import acquire
from batchscore.runs.submission import JobState, Submission, without_secrets
from batchscore.storage.store import Store
from batchscore.system.processes import machine

SLICE = "job,date=2026-11-20"
BEFORE = {"number", "run", "command", "user", "host", "pid", "started", "machine"}
BEFORE |= {"since", "renewed", "released"}
"""What a lease of an earlier version says."""


def moment(seconds: float) -> str:
    """A moment so many seconds from now."""
    return (utc_now() + timedelta(seconds=seconds)).isoformat()


def lease(renewed: float, submission: Submission | None) -> Holder:
    """A lease of a process that is dead, or of a machine that cannot be asked."""
    process = ("run", "me", "there", 2**22 + 1, "1", "elsewhere")
    return Holder(1, "r1", *process, moment(renewed), moment(renewed), False, submission)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output."""
    return Store(str(tmp_path))


def write(store: Store, found: Holder) -> dict[str, Any]:
    """Writes a lease at the moment of its renewal; returns what people read in it."""
    store.write(lease_path(SLICE, 1), encode_lease(found))
    os.utime(
        store.path(lease_path(SLICE, 1)), (datetime.fromisoformat(found.renewed).timestamp(),) * 2
    )
    facts: dict[str, Any] = json.loads(store.read(lease_path(SLICE, 1)))
    return facts


def test_a_submission_is_read_as_it_was_written(store: Store) -> None:
    """A lease that has one is of a form that earlier versions refuse by name."""
    job = Submission("flink", "a1b2", "batchscore-x", "flink:8081", moment(60), detached=True)
    found = lease(0, job)
    facts = write(store, found)
    assert last_holder(store, SLICE) == found
    assert (facts["batchscore_lease"], set(facts) - {"batchscore_lease", "submission"}) == (
        2,
        BEFORE,
    )
    assert facts["submission"]["job"] == "a1b2"


def test_a_lease_without_one_has_the_form_that_earlier_versions_read(store: Store) -> None:
    """A run of one machine writes what it always wrote."""
    found = lease(0, None)
    assert set(write(store, found)) == BEFORE
    assert last_holder(store, SLICE) == found


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [({"job": 1}, "job"), ({"deadline": "soon"}, "deadline"), ({"detached": "no"}, "detached")],
)
def test_a_wrong_fact_of_a_submission_is_damage(
    store: Store, changed: dict[str, Any], wrong: str
) -> None:
    """No fact is taken for what it is not."""
    facts = write(store, lease(0, Submission("flink")))
    facts["submission"] |= changed
    store.write_json(lease_path(SLICE, 1), facts)
    with pytest.raises(RecordError, match=f"damaged .its submission.{wrong}|damaged .its {wrong}"):
        last_holder(store, SLICE)


def test_a_job_may_wait_for_its_first_worker_until_its_deadline(store: Store) -> None:
    """The lease is over a minute after its last renewal, or when its deadline has passed."""
    waiting = Submission("flink", deadline=moment(600))
    write(store, lease(-1200, waiting))
    assert holder(store, SLICE) is not None
    write(store, lease(-1800, replace(waiting, deadline=moment(-1))))
    assert holder(store, SLICE) is None
    write(store, lease(-EXPIRY_SECONDS - 1, replace(waiting, deadline=None)))
    assert holder(store, SLICE) is None
    write(store, lease(-EXPIRY_SECONDS + 5, replace(waiting, deadline=moment(-1))))
    assert holder(store, SLICE) is not None


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("flink:8081", "flink:8081"),
        ("http://flink:8081/", "http://flink:8081"),
        ("https://me:secret@flink/a?token=x#y", "https://flink/a"),
        ("me:secret@flink:8081", "flink:8081"),
        ("http://me:p@ss@flink:8081", "http://flink:8081"),
    ],
)
def test_no_secret_of_an_address_is_stored(address: str, plain: str) -> None:
    """User, password, query and fragment are left out."""
    assert without_secrets(address) == plain


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("localhost:8081", ""),
        ("http://127.0.0.1:8081/flink", ""),
        ("https://[::1]:8081", ""),
        ("flink:8081", "flink:8081"),
        ("localhost.example.org:8081", "localhost.example.org:8081"),
    ],
)
def test_loopback_is_asked_on_the_machine_that_named_it(address: str, asked: str) -> None:
    """Elsewhere another Flink may listen there, which knows no such job."""
    job = Submission("flink", "a1b2", address=address)
    there = lease(0, job)
    assert there.machine != machine()
    assert there.job == replace(job, address=asked)
    assert replace(there, machine=machine()).job == job


def test_a_job_that_waits_is_not_taken_for_lost_where_another_flink_answers(store: Store) -> None:
    """Its deadline decides there, as it does where nobody answers."""

    def ask(job: Submission) -> JobState:
        return "gone" if job.address else "unknown"

    job = Submission("flink", "a1b2", address="localhost:8081", deadline=moment(600), detached=True)
    write(store, lease(-2 * EXPIRY_SECONDS, job))
    with pytest.raises(RetryError, match="no worker has started yet"):
        acquire(store, SLICE, "run", "r2", ask)
