"""What `batchscore check` does: a plan, one batch through all stages, and what a run would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from batchscore.commands.notify import program_of
from batchscore.commands.prepared import all_flags, engine_of, prepared, with_process
from batchscore.commands.workers_check import WorkersChecked, check_workers
from batchscore.engines.registry import find_engine
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    HeldError,
    InvalidError,
    RecordError,
    RetryError,
)
from batchscore.finish.judge import judge_ages, judge_values, judge_volume
from batchscore.job import ColumnCheck, load_job
from batchscore.messages.wording import counted
from batchscore.models.process.current import ended
from batchscore.phases import (
    BEAM,
    INPUT,
    JOB,
    LOADING,
    PHASES,
    PLANNING,
    PUBLISHED,
    PUBLISHING,
    SCORING,
    START_UP,
    Stopwatch,
)
from batchscore.plan import Plan, Work, keeping_kernels, make_plan, settle
from batchscore.plan.elsewhere import seen_here
from batchscore.plan.estimate import estimate_seconds
from batchscore.plan.newest import newest_bound
from batchscore.plan.places import probe_output, require_bucket
from batchscore.plan.plan import day_end
from batchscore.plan.rehearsal import Rehearsal, rehearse
from batchscore.runs.checks import Check, check_golden, check_rejects, check_schema, worst
from batchscore.runs.history import read_manifest, runs_before
from batchscore.runs.holder import describe_holder, holder
from batchscore.runs.publication import pending
from batchscore.runs.reconcile import Rows
from batchscore.units.tallies import Tally, merge_tallies

_EXIT_CODES = {
    "ok": 0,
    "failed": FailedError.exit_code,
    "held": HeldError.exit_code,
    "retry": RetryError.exit_code,
}


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        plan: What the job comes to.
        work: What of it is done, and what a run would do.
        rehearsal: What became of one batch; None where no row is left to score.
        checks: Checks of a run that the batch or the plan can judge.
        estimate: Seconds that a run is expected to take, by phase; None if it would score nothing.
            Without an earlier run nothing tells how long starting workers and publishing take.
        held_by: Who holds the slice at the moment, or None.
        pending: A run whose publication was started and not finished, or None.
        workers: What workers elsewhere found; None if the engine has none, or no row was tried.
        later: What a run would fail with if it scored; None if nothing was found, or if that is
            what this command ends with.
    """

    plan: Plan
    work: Work
    rehearsal: Rehearsal | None
    checks: tuple[Check, ...]
    estimate: dict[str, float] | None
    held_by: str | None
    pending: str | None
    workers: WorkersChecked | None = None
    later: str | None = None

    @property
    def status(self) -> str:
        """How a run would end: `ok`, or `failed`, `held` or `retry`."""
        if self.held_by is not None:
            return "retry"
        if self.work.unchanged:
            return "ok"
        if self.work.held or (self.rehearsal is None and not self.plan.spec.scoring.allow_empty):
            return "held"
        return worst(self.failed) or "ok"

    @property
    def failed(self) -> list[Check]:
        """The checks that a run would not pass."""
        golden = self.rehearsal.golden if self.rehearsal else ()
        return [c for c in (*self.work.checks, *golden, *self.checks) if not c.passed]

    @property
    def seconds(self) -> float | None:
        """Seconds that a run is expected to take; None if it would score nothing."""
        return None if self.estimate is None else sum(self.estimate.values())

    @property
    def exit_code(self) -> int:
        """The exit code that a run would end with."""
        return _EXIT_CODES[self.status]

    @property
    def warnings(self) -> list[str]:
        """What a run would not fail for, and should be put right."""
        program = program_of(self.plan.loaded)
        problems = [program.problem] if program is not None and program.problem else []
        return problems + (self.workers.differences if self.workers else [])

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        plan, work = self.plan, self.work
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "slice": plan.spec.slice,
            "output": plan.spec.output.address,
            "shards": len(plan.shards),
            "rows": sum(shard.rows for shard in plan.shards),
            "pruned_rows": plan.pruned_rows,
            "bytes": plan.input_bytes,
            "units": len(work.units),
            "unit_rows": work.unit_rows,
            "reused_units": len(work.reused),
            "reused_rows": work.reused_rows,
            "changes": asdict(work.changes),
            "checks": [asdict(check) for check in (*work.checks, *self.checks)],
            "bad_shards": [{"path": b.path, "reason": b.reason} for b in plan.bad_files],
            "warnings": self.warnings,
            "held_by": self.held_by,
            "pending": self.pending,
            "references": [each.title for each in plan.references.chosen],
            "reference_on_fail": [
                each.on_fail or plan.spec.scoring.drift.on_fail for each in plan.references.chosen
            ],
            "reference_notes": list(plan.references.notes),
            "workers": plan.workers,
            "choices": plan.choices,
            "estimated_seconds": self.seconds,
            "estimated_phases": self.estimate,
            "published_by": work.base.run if work.base and work.unchanged else None,
            "batch": None if self.rehearsal is None else _jsonable(asdict(self.rehearsal)),
            "seen_by_workers": None if self.workers is None else asdict(self.workers),
            "later": self.later,
        }


def _jsonable(facts: dict[str, Any]) -> dict[str, Any]:
    example = {name: _plain(value) for name, value in facts["example"].items()}
    return {**facts, "example": example}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, list, type(None))) else str(value)


def check_job(
    path: str,
    params: Sequence[str],
    overrides: Sequence[str],
    probe: bool,
    clock: Stopwatch | None = None,
    flags: Sequence[str] = (),
) -> Checked:
    """Plans a job and rehearses one batch; writes nothing, but for `probe` one object for a moment.

    Args:
        path: Path of the job file.
        params: Parameters as `NAME=VALUE`.
        overrides: Overrides as `KEY=VALUE`.
        probe: Whether to put an object into the output, and remove it.
        clock: Has measured the command's time so far; by default its time starts with this call.
        flags: Beam options.

    Raises:
        InvalidError: Something is wrong before any work.
        FailedError: The batch cannot be scored.
        RetryError: The input is not ready.
    """
    clock = clock or Stopwatch()
    clock.enter(JOB)
    loaded = load_job(path, params, overrides)
    engine = find_engine(loaded.job.runtime.engine)
    if flags:
        with clock.during(BEAM):
            engine.parse_flags(all_flags(loaded.job.runtime, flags))
    clock.enter(INPUT)
    plan = make_plan(loaded)
    clock.enter(PUBLISHED)
    store, slice_ = plan.spec.output, plan.spec.slice
    by, publication = holder(store, slice_), pending(store, slice_)
    work = settle(plan)
    if probe:
        probe_output(store)
    else:
        require_bucket(store)
    scores = by is None and not work.held and not work.unchanged
    tried = _try(plan, work, clock, flags, scores)
    return Checked(
        tried.plan,
        work,
        tried.rehearsal,
        tuple(_judge(tried, work)),
        None if tried.scoring is None else _estimate(tried, _phases_before(plan, work)),
        describe_holder(store, slice_, by) if by else None,
        publication.run if publication else None,
        tried.workers,
        tried.later,
    )


class _Tryout(NamedTuple):
    plan: Plan
    rehearsal: Rehearsal | None
    scoring: float | None
    spent: Mapping[str, float]
    workers: WorkersChecked | None
    later: str | None


@ended()
def _try(plan: Plan, work: Work, clock: Stopwatch, flags: Sequence[str], scores: bool) -> _Tryout:
    """Loads the model and the functions, scores one batch, and tells how long all take.

    Args:
        scores: Whether a run would do so, too. If not, it would not meet their errors, so these
            are findings of the check and do not end it.
    """
    try:
        plan = engine_of(plan).place(keeping_kernels(plan, work), work.units)
        plan = with_process(plan, plan.workers)
        plan = prepared(plan, work.units, clock, all_flags(plan.loaded.job.runtime, flags))
        spent = clock.spent()
        mine = seen_here(plan)
        rehearsal = rehearse(mine, work)
        scoring = estimate_seconds(mine, work, rehearsal)
        workers = _elsewhere(plan, work, flags) if scores else None
        return _Tryout(plan, rehearsal, scoring, spent, workers, None)
    except BatchscoreError as error:
        if scores:
            raise
        later = f"a run that scores would end with exit code {error.exit_code}: {error}"
        return _Tryout(plan, None, None, clock.spent(), None, later)


def _elsewhere(plan: Plan, work: Work, flags: Sequence[str]) -> WorkersChecked | None:
    """Has the engine's workers try a few rows, if they share nothing but the output with us."""
    engine = engine_of(plan)
    if not engine.ships or engine.start_seconds:
        return None
    return check_workers(plan, work.units, all_flags(plan.loaded.job.runtime, flags))


def _estimate(tried: _Tryout, before: Mapping[str, float]) -> dict[str, float]:
    """Returns the seconds of a run by phase, as far as they are known.

    Args:
        tried: What this command took, since a run starts the same way, and how long scoring takes.
        before: Seconds of an earlier run, which also started workers and published.
    """
    known = {phase: tried.spent[phase] for phase in (START_UP, PLANNING, LOADING)}
    known[SCORING] = tried.scoring or 0.0
    if not before:
        return known
    return {
        **known,
        LOADING: max(known[LOADING], before[LOADING]),
        PUBLISHING: before[PUBLISHING],
    }


def _phases_before(plan: Plan, work: Work) -> Mapping[str, float]:
    """Returns the phases of the last run of the slice, or of the one before; empty if unknown."""
    spec, last = plan.spec, work.base
    if last is None:
        runs = runs_before(spec.output, spec.slice, spec.job, most=1, same_weekday=False)
        with suppress(InvalidError, RecordError):
            last = read_manifest(spec.output, runs[0]) if runs else None
    phases = (last.phases if last else None) or {}
    # A run that scored nothing has started no workers.
    return phases if {*PHASES} <= {*phases} and phases[SCORING] else {}


def _judge(tried: _Tryout, work: Work) -> list[Check]:
    """Judges what a run would judge of all rows, as far as one batch and the plan allow."""
    plan, rehearsal = tried.plan, tried.rehearsal
    if work.unchanged or work.held or tried.later is not None:
        return []
    if rehearsal is None:
        return judge_volume(plan.spec, Rows(0, 0, 0, 0), work.base)
    base = work.base.columns if work.base else None
    checks = [
        *check_schema(rehearsal.columns if rehearsal.scored else (), base),
        *rehearsal.checks,
    ]
    batch = f"in the first {counted(rehearsal.rows, 'row')}: "
    in_batch = [replace(each, detail=batch + each.detail) for each in checks]
    found = [*_volume(plan, work), *_rejects(plan, work, rehearsal), *in_batch]
    found += [*_ages(plan, work, rehearsal), *_golden(tried)]
    return [*found, *_reused(plan, work, {check.name for check in found if not check.passed})]


def _golden(tried: _Tryout) -> list[Check]:
    """Judges what workers made of the golden rows; on their devices, not on this machine's."""
    made = [each.golden for each in tried.workers.found if each.golden] if tried.workers else []
    if not made:
        return []
    tolerance = tried.plan.spec.scoring.model.tolerance
    checks = check_golden([each["gaps"] for each in made], tolerance, made[0]["rows"])
    return [replace(each, detail=f"on workers: {each.detail}") for each in checks]


def _ages(plan: Plan, work: Work, rehearsal: Rehearsal) -> list[Check]:
    """Returns the check of ages where statistics show that every value is too old."""
    if not rehearsal.example:
        return []
    bounds = {
        check.key: bound
        for check in plan.spec.scoring.target.checks
        # A score counts before a column of its name.
        if check.kind == "fresh" and check.column not in rehearsal.example
        if (bound := _newest(plan, work, check)) is not None
    }
    end = day_end(plan.loaded)
    moment = datetime.fromisoformat(end) if end else datetime.now(timezone.utc)
    found = judge_ages(plan.spec, bounds, moment)
    return [replace(c, detail=f"at best, by the shards' statistics: {c.detail}") for c in found]


def _newest(plan: Plan, work: Work, check: ColumnCheck) -> Tally | None:
    """Returns how new a column may be: by what was counted before, else by statistics."""
    known = [r.tallies[check.key] for r in work.reused if check.key in r.tallies]
    uncounted = [record for record in work.reused if check.key not in record.tallies]
    groups = [*(unit.pieces for unit in work.units), *(record.pieces for record in uncounted)]
    pieces = [piece for group in groups for piece in group]
    bound = newest_bound(check.column, pieces, plan.spec.scoring.source)
    return None if bound is None else merge_tallies([*known, bound])


def _reused(plan: Plan, work: Work, known: Collection[str]) -> list[Check]:
    """Returns the checks that rows scored before fail, which a run publishes with the others."""
    found = judge_values(plan.spec, work.reused)
    failed = [check for check in found if not check.passed and check.name not in known]
    return [replace(c, detail=f"in rows that were scored before: {c.detail}") for c in failed]


def _rejects(plan: Plan, work: Work, rehearsal: Rehearsal) -> list[Check]:
    """Judges rejects as a run judges those of all rows: of the batch, and of rows scored before.

    Where some were scored before, all rows to score count as if they were like the batch.
    """
    words, rejected, kept = "in the first", rehearsal.rows - rehearsal.scored, rehearsal.rows
    if work.reused:
        words = "if all rows to score are like the first"
        rejected = round(rejected / kept * work.unit_rows) + sum(r.rejected for r in work.reused)
        kept = work.most_rows
    rows = Rows(kept, 0, kept - rejected, rejected)
    found = check_rejects(rows, Counter(rehearsal.reject_reasons), plan.spec.scoring.rejects)
    batch = f"{words} {counted(rehearsal.rows, 'row')}: "
    return [replace(check, detail=batch + check.detail) for check in found]


def _volume(plan: Plan, work: Work) -> list[Check]:
    """Judges the number of rows, of which a filter may leave fewer than the plan knows."""
    spec, filtered = plan.spec, plan.spec.scoring.source.filters is not None
    if filtered:
        bounds = spec.scoring.checks.rows.model_copy(update={"max_ratio": None})
        checks = spec.scoring.checks.model_copy(update={"rows": bounds})
        spec = replace(spec, scoring=replace(spec.scoring, checks=checks))
    found = judge_volume(spec, Rows(work.most_rows, 0, work.most_rows, 0), work.base)
    return [check for check in found if not (filtered and check.passed)]
