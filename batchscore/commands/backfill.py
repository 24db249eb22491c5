"""Scores many dates of a job side by side, and publishes them in their order."""

from __future__ import annotations

import logging
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batchscore.commands.date_pool import DatePool, Said
from batchscore.commands.date_worker import Assignment, DateEnd
from batchscore.commands.dates import DatedJob, Replaced, Request, has_published
from batchscore.commands.in_order import InOrder
from batchscore.commands.prepared import all_flags, engine_of, with_process
from batchscore.commands.stop import Stop
from batchscore.engines.direct import preloads
from batchscore.engines.workers import start_server
from batchscore.errors import (
    BatchscoreError,
    DeviceError,
    InputError,
    InvalidError,
    ModelError,
    OutputError,
    RetryError,
)
from batchscore.models.process.current import ended, host_for
from batchscore.models.process.host import Host
from batchscore.plan import Plan, Work, keeping_kernels, make_plan, settle
from batchscore.plan.readiness import verify
from batchscore.plan.settled import Settled, settled_by
from batchscore.system.imports import uncollected
from batchscore.system.resources import count_cores
from batchscore.worker.scoring import backend_for

KEPT = "kept"
"""Status of a date that was published before the backfill."""
LEFT = "left"
"""Status of a date that a stopped backfill did not come to, or stopped."""
_PUBLISHED = ("published", "empty", "unchanged", KEPT)
_LOOK_SECONDS = 0.5
_USUAL_MOST = 4
_MOST_REFUSED = 3
_LOGS = ("batchscore", "apache_beam")
_FOR_ALL = (OutputError, DeviceError, ModelError)
_log = logging.getLogger("batchscore.run")


@dataclass(frozen=True)
class SoFar:
    """How far a backfill is, in dates; `before` of those published were so before it."""

    published: int
    held: int
    failed: int
    before: int
    all: int
    seconds: float


@dataclass(frozen=True)
class Backfilled:
    """What a backfill came to.

    Args:
        job: The job's name.
        over: The parameter that has the date.
        outputs: The address of each date's output; the same for all, unless its path has the date.
        outcomes: What became of each date, in their order.
        replaced: What was to be replaced.
        seconds: Seconds that it took.
        rescored: Whether published dates were to be scored again.
        for_all: A date that failed as each date would, which ended the backfill; else None.
        signal: The signal that stopped it, or None.
    """

    job: str
    over: str
    outputs: Mapping[str, str]
    outcomes: tuple[DateEnd, ...]
    replaced: tuple[Replaced, ...]
    seconds: float
    rescored: bool = False
    for_all: DateEnd | None = None
    signal: int | None = None

    def of_status(self, kind: str) -> list[DateEnd]:
        """Returns the dates of a kind: `published`, `held`, `later`, `failed` or `left`."""
        return [each for each in self.outcomes if kind_of(each) == kind]

    @property
    def output(self) -> str:
        """The address of the output; of several that of their folder, or else the first one's."""
        found = sorted(set(self.outputs.values()))
        folders = {each.rpartition("/")[0] for each in found}
        return found[0] if len(found) == 1 or len(folders) > 1 else folders.pop()

    @property
    def exit_code(self) -> int:
        """The exit code: of an interrupt, else of the worst that became of a date."""
        if self.for_all is not None and self.for_all.status == InvalidError.status:
            return InvalidError.exit_code
        if self.signal is not None and self.of_status(LEFT):
            return 128 + self.signal
        codes = {"failed": 1, "held": 3, "later": RetryError.exit_code}
        return next((code for kind, code in codes.items() if self.of_status(kind)), 0)

    @property
    def status(self) -> str:
        """How it ended, in a word."""
        words = {0: "published", 1: "failed", 2: "invalid", 3: "held", 4: "retry"}
        return words.get(self.exit_code, "interrupted")

    def to_json(self) -> dict[str, Any]:
        """Returns it as `--json` prints it."""
        kinds = ("published", "held", "later", "failed", LEFT)
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "job": self.job,
            "over": self.over,
            "output": self.output,
            "seconds": round(self.seconds, 3),
            "counts": {kind: len(self.of_status(kind)) for kind in kinds},
            "dates": [_to_json(each, self.outputs[each.date]) for each in self.outcomes],
            "replaced": [asdict(each) for each in self.replaced],
            **({"error": self.for_all.reason} if self.for_all else {}),
        }


def kind_of(outcome: DateEnd) -> str:
    """Returns what a table has an outcome under."""
    if outcome.status in _PUBLISHED:
        return "published"
    if outcome.status in ("held", LEFT):
        return outcome.status
    return "later" if outcome.status == RetryError.status else "failed"


def _to_json(each: DateEnd, output: str) -> dict[str, Any]:
    found = {"date": each.date, "status": each.status, "run": each.run or None, "output": output}
    return {**found, "rows": each.rows, "reason": each.reason or None, "seconds": each.seconds}


@ended()
def backfill(
    request: Request,
    over: str,
    dates: Sequence[DatedJob],
    replaced: Sequence[Replaced],
    tell: Callable[[SoFar, DateEnd | None], None],
    stop: Stop,
) -> Backfilled:
    """Scores dates side by side, and judges and publishes them in their order.

    A date is a run of its own, with its own slice and lease. One that is held or fails leaves the
    others alone.

    Args:
        request: What is asked for.
        over: The parameter that has the date.
        dates: All dates, as `find_dates` returns them.
        replaced: What is to be replaced.
        tell: Called about twice a second, and with each date that was not published.
        stop: Stops all dates once its signal is set.

    Raises:
        InvalidError: Each date would be refused: job, model, device, output or functions are wrong.
    """
    started = time.monotonic()
    ahead = [each for each in dates if each.published is None or request.rescore]
    outcomes = {each.date: DateEnd(each.date, KEPT, each.published or "") for each in dates}
    outcomes |= {each.date: DateEnd(each.date, LEFT) for each in ahead}
    keeping = _Gathering(outcomes, len(dates), started, tell)
    if ahead:
        _score(request, over, ahead, keeping, stop)
    job = dates[0].loaded.job
    return Backfilled(
        job.name,
        over,
        {each.date: each.store.address for each in dates},
        tuple(keeping.outcomes.values()),
        tuple(replaced),
        time.monotonic() - started,
        request.rescore,
        keeping.for_all,
        stop.signal,
    )


@dataclass
class _Gathering:
    """What became of dates so far."""

    outcomes: dict[str, DateEnd]
    all: int
    started: float
    tell: Callable[[SoFar, DateEnd | None], None]
    for_all: DateEnd | None = None

    def note(self, outcome: DateEnd) -> None:
        """Notes what became of a date."""
        self.outcomes[outcome.date] = outcome
        self.for_all = self.for_all or (outcome if outcome.for_all else None)
        self.look(None if kind_of(outcome) == "published" else outcome)

    def look(self, outcome: DateEnd | None = None) -> None:
        """Tells how far the backfill is."""
        kinds = [kind_of(each) for each in self.outcomes.values()]
        counts = (kinds.count("published"), kinds.count("held"))
        failed = kinds.count("failed") + kinds.count("later")
        before = sum(each.status == KEPT for each in self.outcomes.values())
        spent = time.monotonic() - self.started
        self.tell(SoFar(*counts, failed, before, self.all, spent), outcome)


def _score(
    request: Request, over: str, ahead: Sequence[DatedJob], keeping: _Gathering, stop: Stop
) -> None:
    count = _side_by_side(request, ahead)
    found = try_model(ahead, request.rescore, count)
    if isinstance(found, Settled):
        if request.side_by_side is None and found.gpus:
            count = min(len(found.gpus), len(ahead))
        days, alone = [each.date for each in ahead], not has_published(ahead[0])
        line = InOrder(days, count, alone, one_by_one=not ahead[0].store.is_conditional)
        assignment = assign(request, over, found, count)
        _Directing(assignment, line, keeping, stop, _host_of(found)).run(found.gpus)
        return
    for error in found:
        keeping.note(error)


def _side_by_side(request: Request, ahead: Sequence[DatedJob]) -> int:
    """Returns how many dates are scored at the same time."""
    asked = request.side_by_side
    if not ahead[0].store.is_conditional:
        if (asked or 1) > 1:
            raise InvalidError(
                f"--side-by-side {asked}: dates side by side need a store with conditional puts, "
                f"which {ahead[0].store.address} has not; give --side-by-side 1"
            )
        return 1
    return min(asked or min(_USUAL_MOST, count_cores()), len(ahead))


def assign(request: Request, over: str, settled: Settled, count: int) -> Assignment:
    """Returns what so many workers share."""
    return Assignment(
        request.job,
        request.params,
        request.overrides,
        over,
        request.rescore,
        settled,
        threads=max(1, count_cores() // count),
        scope=secrets.token_hex(8),
        log_levels={name: logging.getLogger(name).getEffectiveLevel() for name in _LOGS},
    )


def _host_of(settled: Settled) -> Host | None:
    execution = settled.execution
    if not execution.model_process:
        return None
    return host_for(settled.model.format, execution.model_timeout_s)


def try_model(ahead: Sequence[DatedJob], rescore: bool, workers: int) -> Settled | list[DateEnd]:
    """Tries model and functions on the first date that has rows to score.

    What is wrong with a date's own input, model or output is left to its run. If that is so for
    all dates, returns why, by date.

    Raises:
        InvalidError: Job, model, device, output or functions are wrong.
    """
    refused: list[InvalidError] = []
    missing: list[DateEnd] = []
    for each in ahead:
        try:
            plan = make_plan(each.loaded)
            work = _settled_work(plan, rescore)
            if work is not None:
                return _verified(plan, work, workers)
        except (InvalidError, RetryError) as error:
            if not isinstance(error, InvalidError) or _is_own(error, ahead):
                missing.append(DateEnd(each.date, error.status, reason=str(error)))
                continue
            refused.append(error)
            if isinstance(error, _FOR_ALL) or len(refused) == _MOST_REFUSED:
                break
    if refused:
        raise refused[0]
    if len(missing) == len(ahead):
        return missing
    return _verified(_any_plan(ahead, missing), None, workers)


def _is_own(error: InvalidError, ahead: Sequence[DatedJob]) -> bool:
    """Tells whether what is wrong is a date's own; a model's or output's path may have the date."""
    models = [each.loaded.job.model for each in ahead]
    outputs = [each.loaded.job.output.path for each in ahead]
    return (
        isinstance(error, InputError)
        or (isinstance(error, ModelError) and any(each != models[0] for each in models))
        or (isinstance(error, OutputError) and any(each != outputs[0] for each in outputs))
    )


def _any_plan(ahead: Iterable[DatedJob], missing: Iterable[DateEnd]) -> Plan:
    without = {each.date for each in missing}
    return make_plan(next(each.loaded for each in ahead if each.date not in without))


def _settled_work(plan: Plan, rescore: bool) -> Work | None:
    """Returns what a date has to score; None if that is nothing, or is not known yet."""
    try:
        work = settle(plan, rescore)
    except BatchscoreError:  # the date's run repairs it, or says what is wrong
        return None
    return work if work.units and not work.held else None


def _verified(plan: Plan, work: Work | None, workers: int) -> Settled:
    """Returns how a plan's model is called; its workers import meanwhile what they need."""
    before = plan
    if work is not None:
        plan = keeping_kernels(plan, work)
    if plan.loaded.job.runtime.options:
        engine_of(plan).parse_flags(all_flags(plan.loaded.job.runtime, ()))
    plan = with_process(plan, workers)
    start_server([*preloads(plan), "batchscore.commands.date_worker"])
    with uncollected():
        backend_for(plan.spec).prepare()
    return settled_by(before, verify(plan, work.units if work else ()))


@dataclass
class _Directing:
    """Tells workers what to do, by what they say, until all dates have ended."""

    assignment: Assignment
    line: InOrder[str]
    keeping: _Gathering
    stop: Stop
    host: Host | None
    pool: DatePool = field(init=False)

    def run(self, gpus: Sequence[str]) -> None:
        """Scores, judges and publishes all dates, or stops them."""
        shared = gpus if len(gpus) > 1 else ()
        self.pool = DatePool(self.assignment, self.line.workers, self.host, shared)
        try:
            while not self.line.is_done:
                self._look_for_stop()
                for step in self.line.next_steps():
                    self.pool.send(step.worker, step.what, step.date)
                if not self.line.is_done:
                    for said in self.pool.receive(_LOOK_SECONDS):
                        self._hear(said)
                self.keeping.look()
        finally:
            self.pool.close()

    def _look_for_stop(self) -> None:
        useless = signal.SIGTERM if self.keeping.for_all else None
        number = self.stop.signal or useless
        if number is not None and not self.line.stopped:
            self.line.stopped = True
            self.pool.send_all("stop", number)

    def _hear(self, said: Said) -> None:
        if said.what == "scored":
            self.line.scored(said.about)
        elif said.what == "judged":
            self.line.judged(said.about)
        elif said.what == "ended":
            self._end(said.about)
        else:
            self._replace(said)

    def _end(self, outcome: DateEnd) -> None:
        stopped = self.line.stopped and outcome.status == "interrupted"
        if stopped:
            outcome = DateEnd(outcome.date, LEFT, outcome.run, reason=outcome.reason)
        self.keeping.note(outcome)
        self.line.ended(outcome.date, kind_of(outcome) == "published")

    def _replace(self, said: Said) -> None:
        for date in self.line.lost(said.worker):
            reason = (
                f"{said.about} while it scored this date; if memory ran out, lower "
                "--side-by-side or runtime.batch_rows"
            )
            self.keeping.note(DateEnd(date, "failed", reason=reason))
        if not self.line.is_done:
            self.pool.replace(said.worker)
