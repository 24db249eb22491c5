"""A process that scores one date after another with a model that it loads once."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from batchscore.commands.launched import Launch, Run, is_cancelled, stopped
from batchscore.commands.prepared import all_flags
from batchscore.commands.run import carry_out
from batchscore.commands.stop import Stop
from batchscore.commands.unwritable import cannot_write
from batchscore.engines.direct import DirectEngine
from batchscore.engines.local import SharedModel
from batchscore.errors import BatchscoreError, DeviceError, ModelError
from batchscore.finish.finish import finish_run
from batchscore.job import load_job
from batchscore.models.process.current import use
from batchscore.models.process.host import Host
from batchscore.phases import INPUT, JOB, MODEL, PUBLISHED, Stopwatch
from batchscore.plan import Plan, Work, make_plan
from batchscore.plan.readiness import prove_rows, verify
from batchscore.plan.reference import find_references
from batchscore.plan.settled import Settled
from batchscore.plan.worker_count import placed
from batchscore.runs import layout
from batchscore.runs.failures import describe
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Progress, read_stop
from batchscore.runs.run_plan import encode_plan
from batchscore.storage.retries import persistently
from batchscore.system import json_lines
from batchscore.units.unit import Unit
from batchscore.worker.golden import ensure_golden
from batchscore.worker.kept import keep_models
from batchscore.worker.scoring import load_plain, postprocess_step, preprocess_step

_LOOK_SECONDS = 1.0
_DESERTED = 65
_WHY = "1, next to those of other dates"


@dataclass(frozen=True)
class Assignment:
    """What all dates of a backfill share.

    Args:
        job: The job file.
        params: The job's other parameters, as `NAME=VALUE`.
        overrides: Keys of the job file, as `KEY=VALUE`.
        over: The parameter that has the date.
        rescore: Scores all rows again.
        settled: How the model is called.
        threads: A worker's share of the cores.
        scope: Names what workers share in the model's process.
        log_levels: Of the logs of the launcher, by name.
    """

    job: str
    params: tuple[str, ...]
    overrides: tuple[str, ...]
    over: str
    rescore: bool
    settled: Settled
    threads: int
    scope: str
    log_levels: Mapping[str, int]

    def given(self, date: str) -> tuple[str, ...]:
        """Returns all parameters of a date's run."""
        return (*self.params, f"{self.over}={date}")


@dataclass(frozen=True)
class DateEnd:
    """What became of a date.

    Args:
        date: The date.
        status: `published`, `empty`, `unchanged` or `held`; or how it went wrong.
        run: Its run; empty if it has none.
        rows: Where its rows went.
        reason: Why it was not published; empty if it was.
        seconds: From its start to its end, with what it waited for its turn.
        for_all: Whether each date would fail so: the model is refused, or the output is full.
    """

    date: str
    status: str
    run: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    for_all: bool = False


class OneWorker(DirectEngine):
    """Scores in this process, with its share of the cores."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with one worker, next to which others score other dates."""
        return placed(plan, 1, _WHY, self._threads)


def work(
    connection: Connection, assignment: Assignment, model: SharedModel | None, gpu: str | None
) -> None:
    """Is the process: does what it is sent until its launcher closes the connection."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # What user code prints must not mix with the result on standard output.
    sys.stdout = sys.stderr
    # A terminal sends Ctrl-C to workers too; the launcher is who handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, level in assignment.log_levels.items():
        logging.getLogger(name).setLevel(level)
    if model is not None:
        use(Host(*model))
    keep_models(assignment.scope)
    worker = _DateWorker(assignment, connection)
    with suppress(EOFError, OSError):
        while True:
            worker.take(*connection.recv())
    # The launcher is gone, or needs no more: what is open is resumed by the next one.
    os._exit(_DESERTED)


class _DateWorker:
    """The dates of one process: one is scored, others may wait for their turn."""

    def __init__(self, assignment: Assignment, connection: Connection) -> None:
        self._assignment, self._connection = assignment, connection
        self._sending = threading.Lock()
        self._open: dict[str, DateRun] = {}

    def take(self, what: str, about: Any) -> None:
        """Does what the launcher asks for: `score` or `judge` a date, or `stop` all of them."""
        if what == "score":
            run = self._open[about] = DateRun(self._assignment, about, self._tell)
            threading.Thread(target=self._carry_out, args=(run,), daemon=True).start()
        elif what == "judge":
            self._open[about].turn.set()
        else:
            for open_run in list(self._open.values()):
                open_run.stop.signal = about
                open_run.turn.set()

    def _carry_out(self, run: DateRun) -> None:
        outcome = run.outcome()
        self._open.pop(run.date, None)
        self._tell("ended", outcome)

    def _tell(self, what: str, about: object) -> None:
        with self._sending, suppress(OSError):
            self._connection.send((what, about))


class DateRun:
    """The run of one date, which waits for its turn before it is judged.

    Args:
        assignment: What it shares with other dates.
        date: Its date.
        tell: Takes `scored` and `judged`, with the date.
    """

    def __init__(
        self, assignment: Assignment, date: str, tell: Callable[[str, object], None]
    ) -> None:
        self._assignment, self.date, self._tell = assignment, date, tell
        self.stop, self.turn = Stop(), threading.Event()
        self._clock = Stopwatch()
        self._shares_model = False
        self._name = ""

    def outcome(self) -> DateEnd:
        """Scores, judges and publishes the date; returns what became of it."""
        try:
            return _of_manifest(self.date, self._run())
        except BatchscoreError as error:
            refused = self._shares_model and isinstance(error, (ModelError, DeviceError))
            failed = self._failed(str(error), error.status)
            return replace(failed, for_all=refused or cannot_write(error))
        except OSError as error:
            failed = self._failed(describe(error)["message"])
            return replace(failed, for_all=cannot_write(error))
        except Exception as error:
            logging.getLogger("batchscore.run").exception("date %s", self.date)
            what = f"unexpected {type(error).__name__}: {error}; this is a defect of batchscore"
            return self._failed(what)

    def _failed(self, reason: str, status: str = "failed") -> DateEnd:
        return DateEnd(self.date, status, self._name, reason=reason)

    def _run(self) -> Manifest:
        given, clock = self._assignment, self._clock
        clock.enter(JOB)
        loaded = load_job(given.job, given.given(self.date), given.overrides)
        json_lines.forget()
        json_lines.note(slice=layout.slice_id(loaded.job.name, loaded.params))
        clock.enter(INPUT)
        known = given.settled.model_of(loaded)
        self._shares_model = known is not None
        plan = make_plan(loaded, known)
        clock.enter(PUBLISHED)
        flags = all_flags(loaded.job.runtime, ())
        launch = Launch(OneWorker(given.threads), flags, dated=self)
        return carry_out(plan, launch, given.rescore, _unwatched, self.stop, clock)

    def verified(self, plan: Plan, work: Work, clock: Stopwatch) -> Plan:
        """Returns the plan with how its model is called; shows on its own rows what a run shows."""
        settled, threads = self._assignment.settled, self._assignment.threads
        with clock.during(MODEL):
            if not settled.fits(plan):
                return verify(_in_same_process(plan, settled), work.units, clock)
            plan = placed(settled.applied(plan), 1, _WHY, threads)
            preprocess_step(plan.spec)
            postprocess_step(plan.spec)
            if not work.units:
                return plan
            model = load_plain(plan.spec)
            return prove_rows(plan, work.units, clock, predictor=model, again=False)

    def opened(self, run: str) -> None:
        """Notes the name of the run."""
        self._name = run

    def judge(self, run: Run) -> None:
        """Waits for the date's turn; then compares it with what is published by now."""
        spec = run.spec
        # From here on the process may be on the next date.
        json_lines.note_in_thread(run=spec.identity.run, slice=spec.slice)
        self._tell("scored", self.date)
        self._await_turn(run)
        with persistently():
            _refresh(run)
            ensure_golden(spec)
            score, units = spec.identity.score, run.work.units
            finish_run(spec, [layout.record(spec.slice, score, unit.id) for unit in units])
        self._tell("judged", self.date)

    def _await_turn(self, run: Run) -> None:
        while not self.turn.wait(_LOOK_SECONDS):
            if read_stop(run.spec.output, run.spec.identity.run) is not None:
                is_cancelled(run, self.stop)
                break
        if self.stop.signal is not None:
            raise stopped(run, self.stop)


def _refresh(run: Run) -> None:
    """Has a run compared with what was published while it was scored and waited."""
    plan, spec = run.plan, run.spec
    found = find_references(plan.loaded, spec.scoring.model, spec.slice)
    if found == plan.references:
        return
    references = [reference.to_json() for reference in found.chosen]
    written = replace(run.written, references=references, reference_notes=list(found.notes))
    spec.output.write(layout.plan_file(spec.identity.run), encode_plan(written))


def _in_same_process(plan: Plan, settled: Settled) -> Plan:
    """Returns a plan with another model than the others' in the same place, if it can be there."""
    alike = plan.spec.scoring.model.format == settled.model.format
    own = alike and settled.execution.model_process
    execution = replace(plan.spec.execution, model_process=own)
    return replace(plan, spec=replace(plan.spec, execution=execution))


def _of_manifest(date: str, manifest: Manifest) -> DateEnd:
    reason = (manifest.why or "") if manifest.exit_code else ""
    rows = asdict(manifest.rows)
    return DateEnd(date, manifest.status, manifest.run, rows, reason, manifest.seconds)


def _unwatched(_: Progress) -> None:
    """Rows of one date are not shown."""
