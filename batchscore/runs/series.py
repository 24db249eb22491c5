"""What an output tells of each of its jobs: the runs of its slices, and the newest published one.

Slices that differ in dates alone are one job here: the nights of one schedule.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from batchscore.errors import RecordError
from batchscore.messages.wording import one_line
from batchscore.runs import layout
from batchscore.runs.history import Unreadable
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.publication import pending
from batchscore.runs.snapshot import MARKER, published_run
from batchscore.storage.store import Store

_DATE = re.compile(r"\d{4}-(\d{2}(-\d{2}([T ].{1,20})?)?|W\d{2})")
_LOST = "killed"
_UNDONE = ("held", "failed", _LOST)


@dataclass(frozen=True)
class RunFacts:
    """One run, as lists of runs show it.

    Args:
        run: Its name.
        slice: Its slice.
        dates: The dates among its parameters, such as `2026-11-30`; empty without any.
        status: Of its manifest; what it does if it is under way; `killed` if nobody works on it.
        started: When its command started, ISO 8601 in UTC.
        finished: When it ended, ISO 8601 in UTC; empty if it did not.
        age_s: Seconds since it ended, or since it started if it did not end.
        seconds: How long it took; None if it did not end.
        cpu_s: CPU seconds of its processes; None if that is not known.
        rows: Rows of the input; None if that is not known.
        scored: Of these, rows with a score.
        rejected: Of these, rows that were rejected.
        verdict: Of drift: `ok`, `warn`, `fail`, `insufficient_data` and so on; None without one.
        why: Why it published nothing; empty if it published.
    """

    run: str
    slice: str
    dates: str
    status: str
    started: str
    finished: str
    age_s: float
    seconds: float | None = None
    cpu_s: float | None = None
    rows: int | None = None
    scored: int | None = None
    rejected: int | None = None
    verdict: str | None = None
    why: str = ""

    @property
    def is_undone(self) -> bool:
        """Whether it was to publish, and somebody has to see to it."""
        return self.status in _UNDONE


@dataclass(frozen=True)
class NewestSlice:
    """The newest slice of a job of which rows are published.

    Args:
        slice: The slice: of those with dates the one with the latest, else the last published one.
        dates: The dates among its parameters; empty without any.
        run: The run that published it.
        age_s: Seconds since it was published, by the store's clock where the store tells.
    """

    slice: str
    dates: str
    run: str
    age_s: float


@dataclass(frozen=True)
class Series:
    """A job of an output, with those of its parameters that are no dates.

    Args:
        output: The output's address.
        job: The job's name, and these parameters: `flights region=eu`.
        runs: Its runs, the newest first.
        newest: Its newest published slice; None if nothing of it is published.
    """

    output: str
    job: str
    runs: tuple[RunFacts, ...] = ()
    newest: NewestSlice | None = None

    @property
    def last(self) -> RunFacts | None:
        """The newest run; None without any."""
        return self.runs[0] if self.runs else None

    @property
    def concern(self) -> RunFacts | None:
        """The last run of the newest slice if it is held, failed or was killed; else None.

        A run of an earlier date, as of a backfill, is none.
        """
        dated = max(self.runs, key=lambda each: each.dates, default=None)
        found = next((each for each in self.runs if dated and each.dates == dated.dates), None)
        late = self.newest is not None and found is not None and found.dates < self.newest.dates
        return found if found is not None and found.is_undone and not late else None


@dataclass
class StoreClock:
    """What time it is at a store, which is asked once.

    Args:
        store: The store.
    """

    store: Store
    _ahead: float | None = field(default=None, init=False)

    def age(self, path: str) -> float | None:
        """Returns the seconds since a file was written; None where the store does not tell."""
        then = self.store.written(path)
        if then is None:
            return None
        if self._ahead is None:
            self._ahead = 0.0
            with suppress(OSError):  # such as a disk that this user may not write to
                age = self.store.age(path)
                self._ahead = 0.0 if age is None else then + age - time.time()
        return max(0.0, self.now() - then)

    def now(self) -> float:
        """Returns this moment in Unix seconds: by this machine's clock until `age` was asked."""
        return time.time() + (self._ahead or 0.0)


def find_series(
    store: Store,
    history: Sequence[Manifest | Unreadable],
    states: Mapping[str, str],
    clock: StoreClock | None = None,
) -> list[Series]:
    """Returns the jobs of an output by name, each with its runs and its newest published slice.

    Args:
        store: The output.
        history: What is known of its runs, the newest first; damaged manifests are left out.
        states: What runs under way do, by their names.
        clock: The store's clock.
    """
    clock = clock or StoreClock(store)
    groups: dict[str, list[Manifest | Unreadable]] = {}
    for each in history:
        if each.slice:
            groups.setdefault(_name(each), []).append(each)
    found = []
    for name, runs in sorted(groups.items()):
        newest = _newest_slice(store, runs, clock)
        lines = tuple(_facts(each, states, clock.now()) for each in runs)
        found.append(Series(store.address, name, lines, newest))
    return found


def named_series(store: Store, slice_: str) -> Series:
    """Returns the job of a slice of which no run is known."""
    return Series(store.address, one_line(slice_))


def _name(run: Manifest | Unreadable) -> str:
    others = [f"{k}={v}" for k, v in sorted(_params(run).items()) if not _DATE.fullmatch(v)]
    job = run.job if isinstance(run, Manifest) else run.facts.get("job", "")
    return one_line(" ".join([str(job) or run.slice, *others]), 160)


def _dates(run: Manifest | Unreadable) -> str:
    dates = [v for _, v in sorted(_params(run).items()) if _DATE.fullmatch(v)]
    return " ".join(dates)


def _params(run: Manifest | Unreadable) -> dict[str, str]:
    found = run.params if isinstance(run, Manifest) else run.facts.get("params", {})
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _newest_slice(
    store: Store, runs: Sequence[Manifest | Unreadable], clock: StoreClock
) -> NewestSlice | None:
    """Looks at slices from the latest date on, until one is published."""
    slices = {each.slice: _dates(each) for each in reversed(runs)}
    by_date: dict[str, list[str]] = {}
    for name, dates in slices.items():
        by_date.setdefault(dates, []).append(name)
    for dates in sorted(by_date, reverse=True):
        found = [each for name in by_date[dates] if (each := _published(store, name, runs, clock))]
        if found:
            newest = min(found, key=lambda each: each.age_s)
            return replace(newest, dates=dates)
    return None


def _published(
    store: Store, slice_: str, runs: Collection[Manifest | Unreadable], clock: StoreClock
) -> NewestSlice | None:
    """Returns what is published of a slice, and how old that is; None if nothing is."""
    run, age = None, None
    with suppress(RecordError, FileNotFoundError):  # `verify` says what is wrong with a slice
        run = published_run(store, slice_)
        age = clock.age(layout.slice_file(slice_, MARKER)) if run is not None else None
        # A publication takes the marker away until it is done; readers see what was before.
        if run is None and (started := pending(store, slice_)) is not None:
            run = started.predecessor
    if run is None:
        return None
    if age is None:
        ended = next((each for each in runs if each.run == run), None)
        since = ended.public_since if isinstance(ended, Manifest) else None
        age = _seconds_before(clock.now(), since or "")
    return NewestSlice(slice_, "", run, age)


def _facts(run: Manifest | Unreadable, states: Mapping[str, str], now: float) -> RunFacts:
    dates = _dates(run)
    if isinstance(run, Unreadable):
        status = states.get(run.run, run.status)
        is_lost = status in ("lost", "unfinished")
        why = run.error if is_lost else ""
        age = _seconds_before(now, run.started)
        status = _LOST if is_lost else status
        return RunFacts(run.run, run.slice, dates, status, run.started, "", age, why=why)
    rows, ended = run.rows, run.finished or ""
    return RunFacts(
        run=run.run,
        slice=run.slice,
        dates=dates,
        status=run.status,
        started=run.started,
        finished=ended,
        age_s=_seconds_before(now, ended or run.started),
        seconds=run.seconds,
        cpu_s=run.usage.cpu_seconds if run.usage else None,
        rows=rows.input,
        scored=rows.scored,
        rejected=rows.rejected,
        verdict=(run.drift or {}).get("verdict"),
        why=run.why,
    )


def _seconds_before(now: float, moment: str) -> float:
    """Returns the seconds from an ISO time to a moment; 0 for one that is ahead, or no time."""
    with suppress(ValueError):
        return max(0.0, now - datetime.fromisoformat(moment).timestamp())
    return 0.0
