"""Test runs that need no launcher: who may take their slice, and what workers do in its place.

The engine of these tests works in this process, as `direct` does, and says what the test wants.
A test of the engine `flink` does the same on a cluster.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchscore import transforms
from batchscore.commands import unwatched
from batchscore.commands.follow import Followed, follow_on
from batchscore.commands.run import begin
from batchscore.commands.stop import Stop
from batchscore.commands.tidy import repair
from batchscore.commands.unwatched import has_ended, take
from batchscore.engines.direct import DirectEngine
from batchscore.engines.protocol import Handle, Metrics
from batchscore.errors import FailedError, RetryError, StoppedError
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan, settle, share_out
from batchscore.plan.readiness import verify
from batchscore.runs import layout
from batchscore.runs.failures import recorded
from batchscore.runs.history import read_manifest
from batchscore.runs.holder import Holder, encode_lease, last_holder, lease_path, utc_now
from batchscore.runs.lease import Lease, holds
from batchscore.runs.progress import read_counts, request_stop
from batchscore.runs.submission import JobState, Submission
from batchscore.storage.store import Store
from batchscore.worker import unattended
from batchscore.worker.spec import RunSpec
from batchscore.worker.unattended import RejectedSoFar, is_over
from tests import factory
from tests.engines.test_registry import install
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

JOB = Submission("elsewhere", name="small", address="here")


class Engine(DirectEngine):
    """An engine whose runs go on without their launchers, as it says."""

    name = "elsewhere"
    retries = True
    state: JobState = "alive"
    error = ""
    cancelled: list[str] = []  # noqa: RUF012 - of all instances

    def submission(self, plan: Plan, flags: Any) -> Submission:
        """Every plan has the same job."""
        return JOB

    def job_state(self, submission: Submission) -> JobState:
        """What the test says."""
        return type(self).state

    def job_error(self, submission: Submission) -> str:
        """What the test says."""
        return type(self).error

    def cancel(self, submission: Submission) -> bool:
        """A cancelled job has ended."""
        self.cancelled.append(submission.job or submission.name)
        type(self).state = "ended"
        return True


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs the engine; a unit has one shard."""
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, "elsewhere", f"{__name__}:Engine")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", 300)
    monkeypatch.setattr(Engine, "state", "alive")
    monkeypatch.setattr(Engine, "error", "")
    Engine.cancelled.clear()
    yield
    sys.path_importer_cache.pop(str(packages), None)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of two units on that engine."""
    runtime = {"engine": "elsewhere", "workers": 1}
    return factory.write_job(tmp_path / "job", {"runtime": runtime, "output.retention_days": 0})


def output(job: Path) -> Store:
    """The job's output."""
    return Store(str(job.parent / "out"))


def holder(job: Path) -> Holder:
    """Who took the job's slice last."""
    found = last_holder(output(job), "small")
    assert found is not None
    return found


def read_tree(store: Store) -> dict[str, bytes]:
    """Every file of an output, apart from what late workers log and count."""
    left = (f"{layout.HOME}/logs", f"{layout.HOME}/work", f"{layout.HOME}/staging")
    found = factory.read_tree(Path(store.address))
    return {path: data for path, data in found.items() if not path.startswith(left)}


class Opened:
    """A run that its launcher left before any unit was scored.

    Args:
        job: Its job file.
    """

    def __init__(self, job: Path) -> None:
        plan = verify(make_plan(load_job(str(job))))
        store = plan.spec.output
        layout.claim_output(store)
        self.run = layout.new_run_id(store)
        self.lease: Lease = take(store, plan.spec.slice, "run", self.run)
        self.lease.submit(JOB)
        work = settle(plan)
        opened = begin(
            share_out(plan, work.units), work, self.run, self.lease.number, submission=JOB
        )
        self.spec: RunSpec = opened.spec
        self.units = work.units
        self.lease.note_job("a1b2", detached=True)

    def score(self, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
        """Does what workers do, and something else before a unit's end; returns addresses."""
        read, before = transforms.ReadUnits(self.spec), transforms.PreprocessBlocks(self.spec)
        after, write = transforms.PostprocessBlocks(self.spec), transforms.WriteUnits(self.spec)
        for step in (read, before, after, write):
            step.setup()
        handler = transforms.NetworkHandler(self.spec)
        model, addresses = handler.load_model(), list[str]()
        try:
            for block in (each for unit in self.units for each in read.process(unit)):
                (inputs,) = before.process(block)
                (outputs,) = handler.run_inference(inputs, model)
                (scores,) = after.process(outputs)
                if scores.end is not None:
                    meanwhile()
                addresses += write.process(scores)
            return addresses + [each.value for each in write.finish_bundle()]
        finally:
            for step in (read, before, after, write):
                step.teardown()

    def finish(self, addresses: list[str]) -> dict[str, Any]:
        """Does the last step; returns the manifest."""
        last = transforms.Finish(self.spec)
        last.setup()
        (found,) = last.process(addresses)
        last.teardown()
        return found


def succeed(store: Store) -> Lease:
    """Takes the slice, whose job has ended, and closes its run."""
    Engine.state = "ended"
    lease = take(store, "small", "run", "later")
    repair(store, "small", lease.is_held)
    return lease


def test_the_last_step_does_what_a_launcher_does(job: Path) -> None:
    """It removes what is replaced and what the run worked with, and gives the slice back."""
    runs = [factory.run_json("run", job, "--rescore") for _ in range(3)]
    assert [found["status"] for found in runs] == ["published"] * 3, runs
    found = [m["value"] for m in runs[2]["beam_metrics"] if m["name"] == "num_inferences"]
    assert (sum(found), holder(job).released) == (500, True)
    store = output(job)
    # What the last run replaced may not be older than this very moment.
    assert {*store.names(layout.RETIRED)} <= {runs[2]["run"]}
    assert store.names(f"{layout.HOME}/work") == []
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_run_that_was_left_is_published_by_its_workers(job: Path) -> None:
    """Each step done twice, too; the manifest counts the seconds of the publication."""
    opened = Opened(job)
    store, spec = output(job), opened.spec
    assert (holder(job).submission or JOB).deadline is not None
    addresses = opened.score()
    wait_until(lambda: holder(job).submission == replace(JOB, job="a1b2", detached=True))
    found = opened.finish(addresses)
    assert found["status"] == "published"
    assert holder(job).released
    assert not store.exists(layout.work(opened.run))
    before = read_tree(store)
    assert opened.finish(addresses)["status"] == "published"
    assert opened.score() == []
    assert read_tree(store) == before
    assert is_over(spec)
    assert len(factory.published(Path(store.address))) == 500


def test_who_comes_next_asks_the_engine(job: Path) -> None:
    """A run, a rollback and a release end with 4 as long as the job is alive, and name it."""
    done = factory.run_json("run", job)
    opened = Opened(job)
    expected = f"held by run {opened.run} (engine elsewhere, job a1b2)"
    for command in (("run", job, "--rescore"), ("rollback", job, "--undo", done["run"])):
        found = factory.run_json(*command)
        assert (found["exit_code"], found["status"]) == (4, "retry"), found
        assert expected in found["error"]
        assert f"`batchscore cancel {output(job).address} {opened.run}`" in found["error"]
    assert Engine.cancelled == []
    Engine.state = "ended"
    again = factory.run_json("run", job, "--rescore")
    assert (again["status"], again["exit_code"]) == ("published", 0), again
    closed = read_manifest(output(job), opened.run)
    assert closed.status == "failed"
    assert "engine elsewhere ended its job, or lost it; run again; 0 units were finished" in str(
        closed.error
    )


def test_a_job_that_cannot_be_asked_is_cancelled_once_its_lease_is_over(job: Path) -> None:
    """Until then nobody takes the slice, whose lease workers renew."""
    opened = Opened(job)
    Engine.state = "unknown"
    with pytest.raises(RetryError, match="engine elsewhere, job a1b2"):
        take(output(job), "small", "run")
    assert Engine.cancelled == []
    then = (utc_now() - timedelta(seconds=90)).isoformat()
    old = replace(JOB, job="a1b2", detached=True)
    store, number = output(job), opened.lease.number
    expired = replace(holder(job), renewed=then, submission=old)
    path = Path(store.path(lease_path("small", number)))
    path.write_bytes(encode_lease(expired))
    os.utime(path, (path.stat().st_mtime - 90,) * 2)
    take(store, "small", "run").release()
    assert Engine.cancelled == ["a1b2"]


def test_what_workers_met_is_why_a_run_failed(job: Path) -> None:
    """Whoever comes after the job's end finds it in the manifest, and what is kept."""
    opened = Opened(job)
    opened.score()
    with pytest.raises(FailedError), recorded(opened.spec.output, opened.run):
        raise FailedError("shard 1 has a hole")
    ended = factory.run_json("wait", output(job).address, opened.run)
    assert (ended["exit_code"], ended["status"]) == (1, "failed")
    assert ended["error"] == "shard 1 has a hole; 2 units were finished and kept"
    assert Engine.cancelled == ["a1b2"]
    assert holder(job).released
    assert factory.run_json("run", job)["reused_units"] == 2


def test_what_the_engine_says_is_why_a_run_failed_whose_workers_wrote_nothing(job: Path) -> None:
    """A cause in a worker's trace reads as the worker would say it; else the last cause counts."""
    for trace, why in (
        (
            "java.lang.X\nCaused by: java.io.IOException: no slots\n",
            "java.io.IOException: no slots",
        ),
        (
            "Traceback:\nbatchscore.errors.StepError: bad block\n",
            "bad block; 0 units were finished",
        ),
    ):
        opened = Opened(job)
        Engine.state, Engine.error = "ended", trace
        ended = factory.run_json("wait", output(job).address, opened.run)
        assert (ended["exit_code"], ended["status"]) == (1, "failed"), ended
        assert why in ended["error"]


def test_an_error_that_comes_again_ends_the_run_without_a_launcher(job: Path) -> None:
    """The worker that meets it has the others stop, and the last step writes the manifest."""
    opened = Opened(job)
    with pytest.raises(FailedError), unattended.recording(opened.spec):
        raise FailedError("shard 1 has a hole")
    assert read_counts(opened.spec.output, opened.run).stop_requested
    assert is_over(opened.spec)
    assert opened.score() == []
    found = opened.finish([])
    assert (found["status"], found["error"]) == ("failed", "shard 1 has a hole")
    assert holder(job).released
    assert factory.run_json("run", job)["status"] == "published"


def test_a_cancelled_run_ends_though_its_engine_was_not_asked(job: Path) -> None:
    """The next attempt reads nothing, and its last step writes down who cancelled it."""
    opened = Opened(job)
    request_stop(output(job), opened.run, "ada@lab")
    assert is_over(opened.spec)
    assert opened.score() == []
    found = opened.finish([])
    assert (found["status"], found["stopped"]["by"]) == ("interrupted", "ada@lab")
    assert found["error"].startswith("cancelled by ada@lab; nothing was published")
    assert holder(job).released
    ended = factory.run_json("wait", output(job).address, opened.run)
    assert (ended["exit_code"], ended["status"]) == (143, "interrupted")
    assert factory.run_json("run", job)["status"] == "published"


def test_too_many_rejects_end_the_run_without_a_launcher(job: Path) -> None:
    """Those of finished units count, each once, however often a worker looks."""
    factory.change_job(job.parent, {"rejects.max_ratio": 0.5})
    opened = Opened(job)
    spec = replace(opened.spec, execution=replace(opened.spec.execution, max_rejects=0))
    sofar = RejectedSoFar(spec)
    opened.score()
    sofar.check()
    assert not is_over(spec)
    sofar._rejected = dict.fromkeys(sofar._rejected, 3)
    sofar.check()
    assert is_over(spec)
    found = opened.finish([])
    assert found["status"] == "failed"
    assert found["error"].startswith("6 rows were rejected so far, more than the 0 that rejects.")


@pytest.mark.parametrize("published", [True, False])
def test_a_late_worker_changes_nothing(job: Path, published: bool) -> None:
    """Once another run has the slice, the old one records no unit and publishes nothing."""
    opened = Opened(job)
    store, (first, *rest) = output(job), opened.units
    opened.units = tuple(rest)
    addresses, before = opened.score(), dict[str, bytes]()

    def take_over() -> None:
        succeed(store).release()
        if published:
            assert factory.run_json("run", job)["status"] == "published"
        before.update(read_tree(store))

    opened.units = (first,)
    with pytest.raises(StoppedError, match="does not hold its slice any more"):
        opened.score(take_over)
    assert opened.score() == []
    assert opened.finish(addresses)["status"] == "failed"
    assert read_tree(store) == before


STEPS = ("judge", "save_profile", "compact")
CASES = [(step, held) for step in STEPS for held in (True, False)]
CASES += [("publish", False), ("_write_outcome", True)]


@pytest.mark.parametrize(("step", "held"), CASES)
def test_a_last_step_that_lost_its_slice_writes_nothing_more(
    job: Path, step: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may take the slice before each thing that it writes."""
    if held:
        factory.change_job(job.parent, {"checks.score_range": [0.9, 1]})
    opened = Opened(job)
    store, addresses = output(job), opened.score()
    taken: list[Lease] = []
    module = "batchscore.finish.finish"
    do: Callable[..., Any] = getattr(sys.modules[module], step)

    def late(*given: Any, **options: Any) -> Any:
        if not taken:
            taken.append(succeed(store))
        return do(*given, **options)

    monkeypatch.setattr(f"{module}.{step}", late)
    found = opened.finish(addresses)
    assert found["status"] == "failed"
    assert read_manifest(store, opened.run).status == "failed"
    assert store.names("data") == []
    assert holds(store, "small", taken[0].number)
    taken[0].release()
    factory.change_job(job.parent, {"checks.score_range": None})
    assert factory.run_json("run", job)["status"] == "published"


def test_a_job_that_ended_is_left_to_who_watches_it(job: Path) -> None:
    """Its launcher, if it is not known to be dead, has a minute to say why."""
    opened = Opened(job)
    Engine.state = "ended"
    found = holder(job)
    assert has_ended(output(job), found)
    watched = replace(found, submission=replace(JOB, job="a1b2"))
    assert not has_ended(output(job), watched)
    assert has_ended(output(job), replace(watched, pid=2**22 + 1))
    assert not has_ended(output(job), replace(found, released=True))
    opened.lease.release()
    assert unwatched.ask(JOB) == "ended"


class Lost:
    """The handle of a pipeline that nobody says any more anything of."""

    metrics: Metrics = []  # noqa: RUF012 - it gets none
    error, lost, unheard = RuntimeError("Socket closed"), None, "Socket closed"
    job = "a1b2"

    def is_alive(self) -> bool:
        """It looks as if it had ended."""
        return False

    def join(self, timeout: float | None = None) -> None:
        """It has ended."""


def lose(run: Callable[..., Handle], over: threading.Event) -> Callable[..., Lost]:
    """Returns a `submit` whose pipeline goes on though its handle is lost, until `over`."""

    def submit(*given: Any) -> Lost:
        def go_on() -> None:
            try:
                handle = run(*given)
                while handle.is_alive():
                    handle.join(0.1)
            finally:
                Engine.state = "ended"
                over.set()

        threading.Thread(target=go_on).start()
        return Lost()

    return submit


def test_a_run_whose_engine_is_not_heard_any_more_goes_on(
    job: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its launcher follows it by its output, and ends as the run does."""
    over = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "submit", lose(DirectEngine.submit, over))
        found = factory.run_json("run", job)
    assert over.wait(60)
    assert (found["exit_code"], found["status"]) == (0, "published"), found
    assert "engine elsewhere is not heard any more (Socket closed)" in caplog.text
    assert holder(job).released
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_run_that_is_followed_is_stopped_or_left(job: Path) -> None:
    """As one that is watched: it is cancelled at its engine, or goes on."""
    opened = Opened(job)
    stop, followed = Stop(), Followed(output(job), "small", opened.run)
    stop.leave = True
    assert follow_on(followed, lambda _: None, stop) is None
    stop.leave, stop.signal = False, signal.SIGINT
    ended = follow_on(followed, lambda _: None, stop)
    assert ended is not None
    assert (ended.status, Engine.cancelled) == ("interrupted", ["a1b2"])


def test_a_run_that_ends_with_its_launcher_cannot_be_left(job: Path) -> None:
    """`--detach` is refused before any work, with what to do."""
    found = factory.run_json("run", job, "--engine", "direct", "--detach")
    assert (found["exit_code"], found["status"]) == (2, "invalid"), found
    assert found["error"].startswith("--detach: workers of engine direct are processes of this")
    assert "choose an engine whose workers are elsewhere, such as flink" in found["error"]
    assert not (job.parent / "out").exists()
