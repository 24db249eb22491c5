"""Test that a run is followed, and stopped, by its output alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchscore.cli.app import outcome
from batchscore.commands import follow, unwatched
from batchscore.commands.follow import Followed, cancel_run, find_run, wait_for
from batchscore.errors import FailedError, InvalidError, RetryError
from batchscore.runs import layout
from batchscore.runs.actor import actor
from batchscore.runs.lease import Lease, acquire
from batchscore.runs.progress import Progress, Pulse, read_stop, request_stop
from batchscore.runs.publication import journal_path
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.submission import Submission
from batchscore.storage.store import Store
from tests import factory
from tests.endings import begin, said_in
from tests.manifests import make_manifest
from tests.waiting import wait_until

RUN, SLICE = "20261120-aaaa", "job,date=1"
SLEEPY = """import time


def sleep(batch):
    time.sleep(0.06)
    return batch
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty output, at which is looked often; no engine answers."""
    monkeypatch.setattr(follow, "_LOOK_SECONDS", 0.01)
    for module in (follow, unwatched):
        monkeypatch.setattr(module, "ask", lambda _: "unknown")
    store = Store(str(tmp_path))
    layout.claim_output(store)
    return store


@pytest.fixture
def lease(store: Store) -> Iterator[Lease]:
    """The lease of a run that is open, of which 12 of 30 rows are scored."""
    with acquire(store, SLICE, "run", RUN) as lease:
        open_run(store)
        Pulse(store, RUN).add(12)
        yield lease


def open_run(store: Store, run: str = RUN, slice_: str = SLICE) -> None:
    """Write the plan of a run that is to score 30 rows."""
    facts = {"slice": slice_, "score": "s", "started": "2026-11-20T01:00:00+00:00"}
    plan = RunPlan(facts, 0, [], [], [], [], {"u": 30}, [], [], None, [])
    store.write(layout.plan_file(run), encode_plan(plan))


def end_run(store: Store, status: str, run: str = RUN, **facts: Any) -> None:
    """Write the manifest of a run that ended long ago."""
    ended = {"slice": SLICE, "finished": "2026-11-20T02:00:00+00:00", **facts}
    manifest = make_manifest(run=run, status=status, **ended)
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)


def lose(store: Store, lease: Lease) -> None:
    """Let the lease be that of a process that has died."""
    path = layout.slice_file(SLICE, f"lease/{lease.number:08d}.json")
    store.write_json(path, {**store.read_json(path), "started": "1"})


def submit(store: Store, lease: Lease, **facts: Any) -> Submission:
    """Let the lease name the job of an engine."""
    path = layout.slice_file(SLICE, f"lease/{lease.number:08d}.json")
    job = {"engine": "flink", "job": "c0ffee", "name": "n", "address": "host:8081", **facts}
    store.write_json(path, {**store.read_json(path), "batchscore_lease": 2, "submission": job})
    return Submission(**job)


def ignore(_: Progress) -> None:
    """Watches nothing."""


@pytest.mark.parametrize(
    ("status", "facts", "code"),
    [
        ("published", {}, 0),
        ("empty", {}, 0),
        ("failed", {"error": "boom"}, 1),
        ("held", {"checks": [{"name": "rows", "passed": False, "detail": "none"}]}, 3),
        ("interrupted", {"error": "stopped"}, 130),
        ("interrupted", {"error": "stopped", "stopped": 143}, 143),
        ("interrupted", {"error": "stopped", "stopped": 0}, 130),
        ("discarded", {}, 1),
        ("revoked", {}, 1),
    ],
)
def test_a_run_that_has_ended_ends_at_once_with_its_code(
    store: Store, status: str, facts: dict[str, Any], code: int
) -> None:
    """What was taken back since is no success; a manifest cannot make a stopped run one."""
    if "stopped" in facts:
        at = "2026-11-20T02:00:00+00:00"
        facts = {**facts, "stopped": {"by": "a@b", "at": at, "exit_code": facts["stopped"]}}
    end_run(store, status, **facts)
    found = outcome(wait_for(find_run(store, None, RUN), ignore))
    assert found["exit_code"] == code
    assert found.get("error", "") == facts.get("error", "rows: none" if code == 3 else "")


def test_a_run_is_followed_until_its_slice_is_given_back(store: Store, lease: Lease) -> None:
    """The watcher sees its rows; the manifest of a moment ago may still be completed."""
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            end_run(store, "published", finished=now)
        if len(seen) == 5:
            lease.release()

    assert wait_for(find_run(store, SLICE, None), watch).status == "published"
    assert {(each.rows, each.total) for each in seen} == {(12, 30)}
    assert [each.state for each in seen] == [*["scoring"] * 3, *["ending"] * 2]


def test_a_launcher_that_died_on_its_way_out_is_not_waited_for(store: Store, lease: Lease) -> None:
    """The run ended long ago, and its outcome is final."""
    end_run(store, "published")
    assert wait_for(find_run(store, None, RUN), ignore).status == "published"


def test_a_timeout_says_how_far_the_run_is(store: Store, lease: Lease) -> None:
    """The run goes on."""
    with pytest.raises(RetryError) as caught:
        wait_for(find_run(store, None, RUN), ignore, timeout=0.05)
    assert str(caught.value) == (
        f"run {RUN} has not ended after 0.05 s (scoring, 12 of 30 rows); it goes on"
    )
    assert read_stop(store, RUN) is None


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_a_timeout_is_a_number_of_seconds(store: Store, seconds: str) -> None:
    """Anything else is refused before the output is read."""
    done = factory.run_cli("wait", store.address, "--timeout", seconds)
    assert done.exit_code == 2
    assert "'--timeout'" in done.stderr


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_that_nobody_works_on_is_closed(store: Store, lease: Lease, asked: bool) -> None:
    """Its manifest says that it was killed, or who had cancelled it."""
    followed = find_run(store, None, RUN)
    if asked:
        request_stop(store, RUN, "etl@host")
    lose(store, lease)
    found = wait_for(followed, ignore)
    status, why, code = "failed", "killed, or lost with its machine; 0 units were finished", 1
    if asked:
        status, why, code = (
            "interrupted",
            "cancelled by etl@host; nothing was published. Run the",
            143,
        )
    assert (found.status, found.exit_code) == (status, code)
    assert found.why.startswith(why)
    assert not store.exists(layout.work(RUN))
    assert store.read_json(layout.run_file(RUN, "manifest.json"))["status"] == status


def test_a_run_that_cannot_be_closed_is_named(store: Store, lease: Lease) -> None:
    """The message for whoever may only read says that nobody works on it."""

    def refuse(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "Permission denied")

    lose(store, lease)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "create_new", refuse)
        with pytest.raises(FailedError, match="nobody works on it any more, and it could not"):
            wait_for(find_run(store, None, RUN), ignore)


def test_a_run_whose_output_is_removed_is_not_closed(store: Store, lease: Lease) -> None:
    """Nothing is written in its place, which would keep the next run out."""
    followed = find_run(store, None, RUN)
    store.remove(layout.HOME)
    with pytest.raises(InvalidError, match=r"its output .* was removed"):
        wait_for(followed, ignore)
    assert store.names() == []


def test_an_output_that_cannot_be_written_cancels_nothing(store: Store, lease: Lease) -> None:
    """The message says what is missing, before any work."""

    def refuse(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "Permission denied")

    followed = find_run(store, None, RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "create_new", refuse)
        with pytest.raises(InvalidError, match=r"cannot be written .* grant the permission"):
            cancel_run(followed, ignore)


def test_clocks_that_differ_close_no_run(store: Store, lease: Lease) -> None:
    """A lease that looks expired by this machine's clock, and not by the store's, is alive."""
    path = layout.slice_file(SLICE, "lease/00000001.json")
    old = {"machine": "elsewhere", "renewed": "2026-11-20T01:00:00+00:00"}
    store.write_json(path, {**store.read_json(path), **old})
    with pytest.raises(RetryError, match="has not ended"):
        wait_for(find_run(store, None, RUN), ignore, timeout=0.1)
    assert not store.exists(layout.run_file(RUN, "manifest.json"))


def test_a_run_that_was_never_opened_is_no_run(store: Store) -> None:
    """It had nothing to do, or something was wrong before any work."""
    with acquire(store, SLICE, "run", RUN):
        followed = find_run(store, None, None)
    assert followed == Followed(store, SLICE, RUN)
    with pytest.raises(InvalidError, match="ended before it was opened"):
        wait_for(followed, ignore)


def test_of_several_runs_one_must_be_named(store: Store, lease: Lease) -> None:
    """With a job file there is one slice; without a run under way the newest is meant."""
    end_run(store, "published", "20261119-bbbb", slice="job,date=0")
    with acquire(store, "job,date=2", "run", "20261120-bbbb"):
        with pytest.raises(InvalidError, match=r"2 runs are under way \(20261120-aaaa of slice"):
            find_run(store, None, None)
        assert find_run(store, "job,date=2", None).run == "20261120-bbbb"
        assert find_run(store, None, "20261120-bbbb").slice == "job,date=2"
    assert find_run(store, "job,date=0", None).run == "20261119-bbbb"
    with pytest.raises(InvalidError, match="belongs to slice 'job,date=1', not to 'job,date=0'"):
        find_run(store, "job,date=0", RUN)


@pytest.mark.parametrize("run", ["20200101-0000", "", "../runs/x", "a\0b", ".."])
def test_an_unknown_run_is_an_error(store: Store, lease: Lease, run: str) -> None:
    """The newest runs are named."""
    with pytest.raises(InvalidError, match="has no such run; the newest are none"):
        find_run(store, None, run)


def test_a_damaged_lease_or_manifest_is_named(store: Store, lease: Lease) -> None:
    """It is no failure of the run, whose exit code `wait` would have."""
    followed = find_run(store, None, RUN)
    store.write(layout.slice_file(SLICE, "lease/00000001.json"), b"{")
    for call in (wait_for, cancel_run):
        with pytest.raises(InvalidError, match=r"cannot be followed; lease .* damaged"):
            call(followed, ignore)
    lease.release()
    store.remove(layout.slice_file(SLICE, "lease"))
    store.write(layout.run_file(RUN, "manifest.json"), b"{")
    with pytest.raises(InvalidError, match=r"cannot be followed; manifest .* damaged"):
        wait_for(followed, ignore)


def test_a_run_that_has_ended_is_not_cancelled(store: Store, lease: Lease) -> None:
    """What is published, or about to be, can be taken back; what was killed is closed."""
    followed = find_run(store, None, RUN)
    store.write(journal_path(SLICE, RUN), b"{}")
    with pytest.raises(InvalidError, match="is being published, which cannot be cancelled"):
        cancel_run(followed, ignore)
    store.remove(journal_path(SLICE, RUN))
    lose(store, lease)
    with pytest.raises(InvalidError, match=r"is failed \(killed, or lost with its machine; 0 unit"):
        cancel_run(followed, ignore)
    end_run(store, "published")
    with pytest.raises(InvalidError, match=r"is published, and only .* `batchscore rollback"):
        cancel_run(followed, ignore)
    assert read_stop(store, RUN) is None


@pytest.mark.parametrize("status", ["published", "held", "failed"])
def test_a_run_may_end_before_it_can_stop(store: Store, lease: Lease, status: str) -> None:
    """That nothing is published is what was asked for; else the message says what to do."""

    def watch(_: Progress) -> None:
        end_run(store, status)

    followed = find_run(store, None, RUN)
    if status == "failed":
        assert cancel_run(followed, watch).status == "failed"
        return
    with pytest.raises(FailedError, match=f"is {status}, since it ended before it could stop; "):
        cancel_run(followed, watch)


def test_a_run_that_does_not_stop_in_time_goes_on(
    store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request stays, and somebody can wait for what comes of it."""
    monkeypatch.setattr(follow, "_CANCEL_SECONDS", 0.05)
    with pytest.raises(RetryError, match=r"stopping, 12 of 30 rows\); it goes on until it notices"):
        cancel_run(find_run(store, None, RUN), ignore)
    found = read_stop(store, RUN)
    assert found is not None
    assert found.by == actor()


@pytest.mark.parametrize(
    ("detached", "dead", "seconds"),
    [(True, False, 99.0), (False, True, 99.0), (False, False, 0.0)],
)
def test_the_engine_ends_what_no_launcher_ends(
    store: Store,
    lease: Lease,
    monkeypatch: pytest.MonkeyPatch,
    detached: bool,
    dead: bool,
    seconds: float,
) -> None:
    """Its job is cancelled at once if no launcher is there, else when that was too slow."""
    asked: list[Submission] = []

    def cancel(job: Submission) -> bool:
        asked.append(job)
        end_run(store, "failed", error="the job was cancelled")
        return True

    monkeypatch.setattr(follow, "cancel_job", cancel)
    monkeypatch.setattr(follow, "_LAUNCHER_SECONDS", seconds)
    job = submit(store, lease, detached=detached)
    if dead:
        lose(store, lease)
    assert cancel_run(find_run(store, None, RUN), ignore).status == "failed"
    assert asked == [job]


@pytest.mark.parametrize("state", ["ended", "gone"])
def test_a_job_that_its_engine_has_ended_closes_its_run(
    store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """The launcher may be dead on another machine; its lease decides when the slice is free."""
    submit(store, lease, deadline="2126-11-20T01:00:00+00:00")
    for module in (follow, unwatched):
        monkeypatch.setattr(module, "ask", lambda _: state)
    followed = find_run(store, None, RUN)
    with pytest.raises(RetryError, match="has not ended"):
        wait_for(followed, ignore, timeout=0.1)
    path = layout.slice_file(SLICE, "lease/00000001.json")
    old = {"machine": "elsewhere", "renewed": "2026-11-20T01:00:00+00:00"}
    store.write_json(path, {**store.read_json(path), **old})
    os.utime(store.path(path), (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(unwatched, "_cancel", lambda _: None)
    found = wait_for(followed, ignore)
    assert (found.status, found.exit_code) == ("failed", 1)


def test_a_launcher_that_watches_ends_its_job_itself(
    store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is left alone for a while, so that the launcher's message is the run's."""
    submit(store, lease)
    monkeypatch.setattr(follow, "cancel_job", lambda _: pytest.fail("too early"))
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            end_run(store, "interrupted", error="cancelled")

    assert cancel_run(find_run(store, None, RUN), watch).why == "cancelled"


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 50 batches that take three seconds."""
    folder = tmp_path_factory.mktemp("sleepy")
    (folder / "sleepy.py").write_text(SLEEPY)
    runtime = {"batch_rows": 10, "workers": 1}
    changes = {"preprocess": {"function": "sleepy.py:sleep"}, "runtime": runtime}
    return factory.write_job(folder, changes)


@pytest.mark.slow
def test_a_run_of_another_process_is_cancelled_and_followed(sleepy: Path) -> None:
    """Its command ends with 143 and who cancelled it; `wait` ends with what `run` ends with."""
    output = sleepy.parent / "out"
    process = begin("run", sleepy, log=sleepy.parent)
    wait_until(lambda: any(output.glob("_batchscore/work/*/progress/*.json")))
    (found,) = factory.run_json("status", output)["under_way"]
    assert (found["state"], found["engine"], found["pid"]) == ("scoring", "direct", process.pid)
    done = factory.run_cli("cancel", output, found["run"])
    assert done.exit_code == 0, done.output
    words = f"cancelled by {actor()}; nothing was published. The same command scores what is left"
    assert [words in text for text in (done.stdout, said_in(sleepy.parent))] == [True, True]
    process.join()
    assert process.exitcode == 143
    late = factory.run_cli("wait", sleepy, found["run"], "--json")
    assert (late.exit_code, json.loads(late.stdout)["stopped"]["by"]) == (143, actor())
    assert not (output / "data").exists()

    said = sleepy.parent / "printed.txt"
    said.touch()
    process = begin("run", sleepy, log=sleepy.parent, stdout=str(said))
    wait_until(lambda: factory.run_json("status", output)["under_way"])
    done = factory.run_cli("wait", sleepy)
    process.join()
    assert (done.exit_code, process.exitcode, done.stdout) == (0, 0, said.read_text())


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_closed_by_who_waits(sleepy: Path) -> None:
    """`wait` says so and ends with 1; one that is interrupted leaves the run alone."""
    output = sleepy.parent / "out"
    process = begin("run", sleepy, "--rescore", log=sleepy.parent)
    work = output / "_batchscore/work"
    wait_until(lambda: any(work.glob("*/progress/*.json")))
    (run,) = (path.name for path in work.iterdir())
    log = sleepy.parent / "second"
    log.mkdir()
    waiting = begin("wait", output, log=log)
    wait_until(lambda: f"waiting for run {run} of slice small" in said_in(log))
    os.kill(waiting.pid or 0, signal.SIGINT)
    waiting.join()
    assert waiting.exitcode == 130
    assert f"this command stopped waiting; run {run} goes on" in said_in(log)
    process.kill()
    done = factory.run_cli("wait", output, run)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"FAILED run {run} ")
    assert "killed, or lost with its machine; 0 units were finished and kept" in done.stdout
    assert factory.run_json("status", output)["undecided"][0]["run"] == run
