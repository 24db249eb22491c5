"""What is under way in an output: who works on which slice, and how far that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from batchscore.errors import RecordError
from batchscore.messages.wording import one_line
from batchscore.runs import layout
from batchscore.runs.history import Unreadable, over_slices
from batchscore.runs.holder import RENEWAL_SECONDS, Holder, last_holder, silence
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Counts, read_counts
from batchscore.runs.publication import journal_path
from batchscore.runs.run_plan import read_plan
from batchscore.runs.stalls import stalled
from batchscore.runs.submission import Submission
from batchscore.storage.store import Store

# A lease is renewed three times within so many seconds.
_SILENT_SECONDS = 3 * RENEWAL_SECONDS
_UNDECIDED = ("held", "failed", "interrupted")


@dataclass(frozen=True)
class Activity:
    """What somebody does, or did until it was killed, in a slice whose lease was not given back.

    Args:
        slice: The slice.
        run: The run; empty for a command that is no run.
        command: What was started: `run`, `release RUN` and so on.
        state: `submitted`, `starting`, `scoring`, `finishing`, `publishing`, `ending` or
            `stopping`; `working` for a command that is no run; `silent` if the lease should have
            been renewed, and `lost` if it is certain that nobody works on it any more.
        engine: The engine; empty if that is not known yet.
        job: The engine's own id of the job; empty if it has none.
        address: Where the engine can be asked; empty if that is not known.
        detached: Whether no launcher watches the run.
        workers: Worker processes that have counted rows.
        by: Who started it, as `user@host`.
        pid: The process that holds the slice.
        since: When the slice was taken, ISO 8601 in UTC.
        heartbeat_s: Seconds since the lease was last renewed.
        rows: Rows that came to their end.
        total: Rows of all units that the run scores; None if that is not known yet.
        rejected: Rows that were rejected.
        rows_per_s: Rows a second since the run was opened; None before the first one.
        left_s: Seconds that the rest takes at this speed; None if that is not known.
        stalled: A sentence for each unit of which no batch was finished for minutes.
        problem: What is wrong with the run's documents; empty if nothing is.
    """

    slice: str
    run: str
    command: str
    state: str
    by: str
    pid: int
    since: str
    heartbeat_s: float
    engine: str = ""
    job: str = ""
    address: str = ""
    detached: bool = False
    workers: int = 0
    rows: int = 0
    total: int | None = None
    rejected: int = 0
    rows_per_s: float | None = None
    left_s: float | None = None
    stalled: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Undecided:
    """A slice whose last run published nothing.

    Args:
        slice: The slice.
        run: The run; empty where the slice's lease cannot be read.
        status: `held`, `failed` or `interrupted`; `damaged` where a document cannot be read.
        finished: When it ended, ISO 8601 in UTC; empty if that is not known.
        why: Which checks did not pass, or the error.
    """

    slice: str
    run: str
    status: str
    finished: str
    why: str


def find_activities(store: Store, slice_: str | None) -> list[Activity | Undecided]:
    """Returns what is under way in an output, or in one slice; of a damaged lease, why.

    This is a look, by the store's clock where this machine's may be wrong.
    """
    found = over_slices(store, slice_, _look)
    return [each for each in found if each is not None]


def _look(store: Store, slice_: str) -> Activity | Undecided | None:
    try:
        last = last_holder(store, slice_)
    except RecordError as error:
        return Undecided(slice_, "", "damaged", "", str(error))
    return None if last is None or last.released else describe_activity(store, slice_, last)


def describe_activity(store: Store, slice_: str, last: Holder) -> Activity:
    """Returns what the holder of a slice does.

    Args:
        store: The output.
        slice_: The slice.
        last: Who took it last, and did not give it back.
    """
    age, is_certain = silence(store, slice_, last)
    run = last.run if "/" not in last.run and last.run not in (".", "..") else ""
    known = Activity(
        slice=slice_,
        run=one_line(run),
        command=one_line(last.command),
        state="starting" if run else "working",
        by=one_line(f"{last.user}@{last.host}"),
        pid=last.pid,
        since=last.since,
        heartbeat_s=round(age, 1),
    )
    known = _with_submission(known, last.submission) if last.submission else known
    found = _with_progress(store, known) if run else known
    if last.is_over or (age > last.patience and is_certain):
        return replace(found, state="lost", rows_per_s=None, left_s=None)
    if age > last.patience or (age > _SILENT_SECONDS and found.state != "submitted"):
        return replace(found, state="silent", rows_per_s=None, left_s=None)
    return found


def _with_submission(known: Activity, submission: Submission) -> Activity:
    return replace(
        known,
        state="starting" if submission.deadline is None else "submitted",
        engine=one_line(submission.engine, 32),
        job=one_line(submission.job or submission.name),
        address=one_line(submission.address),
        detached=submission.detached,
    )


def _with_progress(store: Store, known: Activity) -> Activity:
    try:
        engine, total = _planned(store, known.run)
    except FileNotFoundError:
        return known
    except RecordError as error:
        return replace(known, problem=str(error))
    counts = read_counts(store, known.run)
    # A worker that was killed counted rows that another one counts again.
    rows = min(counts.rows, total)
    speed = _speed(store, known.run, rows)
    return replace(
        known,
        state=_state(store, known, counts, total),
        engine=known.engine or engine,
        workers=counts.workers,
        rows=rows,
        total=total,
        rejected=counts.rejected,
        stalled=stalled(counts.processes),
        rows_per_s=speed,
        left_s=round((total - rows) / speed, 1) if speed else None,
    )


@lru_cache(maxsize=64)
def _planned(store: Store, run: str) -> tuple[str, int]:
    """Returns a run's engine, and the rows that it is to score.

    Who waits for a run looks each second, and its plan lists all of its input. It never changes.
    """
    plan = read_plan(store, run)
    return one_line(plan.facts.get("engine", ""), 32), sum(plan.units.values())


def _state(store: Store, known: Activity, counts: Counts, total: int) -> str:
    if store.exists(journal_path(known.slice, known.run)):
        return "publishing"
    if store.exists(layout.run_file(known.run, "manifest.json")):
        return "ending"
    if counts.stop_requested:
        return "stopping"
    if counts.rows >= total:
        return "finishing"
    return "scoring" if counts.workers else known.state


def _speed(store: Store, run: str, rows: int) -> float | None:
    """Returns rows a second, by the clock of the store alone."""
    folder = layout.progress(run)
    with suppress(FileNotFoundError):  # the run ends at this moment
        start = store.written(layout.plan_file(run))
        signs = [store.written(f"{folder}/{name}") for name in store.names(folder)]
        seconds = max((sign - start for sign in signs if sign and start), default=0.0)
        return round(rows / seconds, 1) if rows and seconds > 0 else None
    return None


def find_undecided(history: Iterable[Manifest | Unreadable]) -> list[Undecided]:
    """Returns the slices whose last run is held, failed or was stopped, by name.

    Args:
        history: What is known of an output's runs, the newest first.
    """
    newest: dict[str, Manifest] = {}
    for each in history:
        if isinstance(each, Manifest):
            newest.setdefault(each.slice, each)
    return [*_undecided(newest)]


def _undecided(newest: dict[str, Manifest]) -> Iterator[Undecided]:
    for name, manifest in sorted(newest.items()):
        if manifest.status in _UNDECIDED:
            ended = manifest.finished or ""
            yield Undecided(name, manifest.run, manifest.status, ended, manifest.why)
