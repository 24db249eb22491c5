"""Which dates a backfill has, what is published of each, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from batchscore.errors import InvalidError, JobFileError, RecordError
from batchscore.job import LoadedJob, declared_parameters, load_job
from batchscore.job.parameters import Parameter, printable
from batchscore.runs import layout
from batchscore.runs.history import read_raw
from batchscore.runs.snapshot import published_run
from batchscore.storage.store import Store

_THREADS = 16
_MOST_DATES = 36_600


@dataclass(frozen=True)
class Request:
    """What a backfill is asked for.

    Args:
        job: The job file.
        first: The first date.
        last: The last date.
        over: The parameter that has the date; None if the job has only one of type date.
        params: The job's other parameters, as `NAME=VALUE`.
        overrides: Keys of the job file, as `KEY=VALUE`.
        side_by_side: Dates that are scored at the same time; None: by this machine.
        rescore: Scores published dates again.
    """

    job: str
    first: str
    last: str
    over: str | None = None
    params: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    side_by_side: int | None = None
    rescore: bool = False


@dataclass(frozen=True)
class DatedJob:
    """One date of a backfill.

    Args:
        date: The date, as the job's parameter has it.
        loaded: The job with it.
        published: The run that published it, or None.
    """

    date: str
    loaded: LoadedJob
    published: str | None

    @property
    def store(self) -> Store:
        """The output."""
        return Store(self.loaded.job.output.path)

    @property
    def slice(self) -> str:
        """The slice of the date."""
        return layout.slice_id(self.loaded.job.name, self.loaded.params)


@dataclass(frozen=True)
class Replaced:
    """What a date's rescoring replaces: its run, the rows that it published, and its model."""

    date: str
    run: str
    rows: int
    model: str


def find_dates(request: Request) -> tuple[str, list[DatedJob]]:
    """Returns the parameter that has the date, and all dates with what is published of each.

    Raises:
        InvalidError: Dates, parameter or job are wrong.
    """
    days = _days(request.first, request.last)
    over = _parameter(request)
    jobs = [
        load_job(request.job, (*request.params, f"{over}={day}"), request.overrides) for day in days
    ]
    _require_shared(jobs[0])
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="dates") as pool:
        runs = pool.map(_published, jobs)
        found = zip(days, jobs, runs, strict=True)
        return over, [DatedJob(day, loaded, run) for day, loaded, run in found]


def find_replaced(dates: Iterable[DatedJob]) -> list[Replaced]:
    """Returns what rescoring would replace, by date."""
    found = [(each, each.published) for each in dates if each.published is not None]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="replaced") as pool:
        return list(pool.map(lambda one: _replaced(*one), found))


def has_published(dated: DatedJob) -> bool:
    """Tells whether anything of a date's job is published in its output."""
    first, store = layout.slice_id(dated.loaded.job.name, {}), dated.store
    names = store.names(f"{layout.HOME}/slices")
    mine = (name for name in names if name == first or name.startswith(f"{first},"))
    return any(_run_of(store, name) is not None for name in mine)


def _days(first: str, last: str) -> list[str]:
    start, end = _day("--from", first), _day("--to", last)
    if end < start:
        raise InvalidError(
            f"--from {start} --to {end}: the first date is after the last; give the earlier one as "
            "--from"
        )
    count = (end - start).days + 1
    if count > _MOST_DATES:
        raise InvalidError(
            f"--from {start} --to {end}: {count:,} dates; a backfill has at most {_MOST_DATES:,}"
        )
    return [(start + timedelta(days=number)).isoformat() for number in range(count)]


def _day(option: str, text: str) -> date:
    with suppress(ValueError):
        found = date.fromisoformat(text)
        if found.isoformat() == text:
            return found
    raise InvalidError(
        f"{option} {printable(text)}: is no date; expected one such as 2026-11-20, as YYYY-MM-DD"
    )


def _parameter(request: Request) -> str:
    declared = declared_parameters(request.job, request.overrides)
    dates = [name for name, each in declared.items() if each.type == "date"]
    over = request.over
    if over is None and len(dates) > 1:
        raise InvalidError(
            f"--over: job {request.job} has several parameters of type date: {', '.join(dates)}; "
            f"say which one the backfill counts up, such as --over {dates[0]}"
        )
    if over is None and not dates:
        raise InvalidError(
            f"job {request.job}: has no parameter of type date, which a backfill counts up; "
            f"{_listed(declared)}. Declare one under params, such as date: {{type: date}}, and use "
            "it as ${date} in input.path"
        )
    if over is not None and over not in dates:
        raise InvalidError(
            f"--over {printable(over)}: expected a parameter of type date; {_listed(declared)}"
        )
    over = over or dates[0]
    if any(each.partition("=")[0] == over for each in request.params):
        raise JobFileError(
            f"--param {over}: the backfill itself gives this parameter a value for each date; "
            "leave it out"
        )
    return over


def _listed(declared: Mapping[str, Parameter]) -> str:
    found = [f"{name} ({each.type})" for name, each in declared.items()]
    return f"its parameters are {', '.join(found)}" if found else "it declares no parameters"


def _require_shared(loaded: LoadedJob) -> None:
    """Raises InvalidError for what other processes cannot see, or another engine."""
    job = loaded.job
    if job.runtime.engine != "direct":
        raise InvalidError(
            f"runtime.engine {job.runtime.engine}: a backfill judges dates in their order, and "
            "workers of this engine judge a run as soon as it is scored; give --set "
            "runtime.engine=direct, or `batchscore run` for one date after another"
        )
    addresses: Sequence[str] = (job.output.path, job.model.path, *job.input.path)
    memory = [address for address in addresses if address.startswith("memory:")]
    if memory:
        raise InvalidError(
            f"{memory[0]}: is the memory of one process, which the workers of a backfill do not "
            "see; use a folder or a store"
        )


def _published(loaded: LoadedJob) -> str | None:
    slice_ = layout.slice_id(loaded.job.name, loaded.params)
    return _run_of(Store(loaded.job.output.path), slice_)


def _run_of(store: Store, slice_: str) -> str | None:
    with suppress(RecordError):  # the date's run says what is wrong
        return published_run(store, slice_)
    return None


def _replaced(dated: DatedJob, run: str) -> Replaced:
    with suppress(RecordError, InvalidError):
        found = read_raw(dated.store, run)
        model = f"{found.model.name} {found.model.version}"
        return Replaced(dated.date, run, found.rows.scored, model)
    return Replaced(dated.date, run, 0, "unknown")
