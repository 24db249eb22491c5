"""The last step of a run: records merged, rows reconciled, checks judged, files published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from batchscore.drift.table import TableProfile
from batchscore.errors import BatchscoreError, RecordError, RetryError, StoppedError
from batchscore.finish.accounting import unit_usage
from batchscore.finish.drift_gate import judge_drift
from batchscore.finish.drift_policy import policy_of
from batchscore.finish.judge import judge
from batchscore.finish.nights import read_nights
from batchscore.finish.recount import complete_tallies
from batchscore.finish.repeated import find_repeated, repeated_checks
from batchscore.job import UserFunction
from batchscore.phases import Units, by_phase, rounded, split, start_up_steps, times
from batchscore.runs import layout
from batchscore.runs.checks import Check, outcome
from batchscore.runs.column_checks import check_columns, columns_to_json
from batchscore.runs.contents import (
    describe,
    files_of,
    find_damage,
    settled_rejects,
    sidecars_of,
)
from batchscore.runs.halvings import fewest_rows
from batchscore.runs.history import read_manifest, read_raw
from batchscore.runs.lease import holds, lost, require_lease
from batchscore.runs.ledger import merge_records
from batchscore.runs.manifest_model import Manifest, build_manifest
from batchscore.runs.manifest_units import encode_units, final_path, is_published, published_records
from batchscore.runs.profiles import Reference, read_run_profile, save_profile
from batchscore.runs.publication import Publication
from batchscore.runs.publish import publish, roll_forward
from batchscore.runs.reconcile import Rows, reconcile
from batchscore.runs.revoked import encode_revocations, lifted, revocations, revoked_path
from batchscore.runs.run_plan import RunPlan, read_plan
from batchscore.runs.segments import compact
from batchscore.runs.submission import SUBMITTED
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store, encode_json
from batchscore.telemetry import BETWEEN, PARALLEL, STAGES, Setting, add_up, explain
from batchscore.units.record import UnitRecord
from batchscore.units.tallies import Tally, merge_tallies
from batchscore.worker.spec import RunSpec

_REASONS = 50
HELD = "held.json"


@dataclass(frozen=True)
class Result:
    """All units of a run, scored by it or before it.

    Args:
        plan: What the run was planned to do.
        base: The manifest of what is published, or None.
        records: Records of all units, in the order of their names.
        fresh: Names of those that this run scored.
        profile: Profile of all units' rows.
        new: Profile of the rows that are not published yet; None where no others are kept.
        rows: Where every row went.
        tallies: What each check of columns counted, by the check's key.
        drift: How the profile differs from its references.
    """

    plan: RunPlan
    base: Manifest | None
    records: tuple[UnitRecord, ...]
    fresh: frozenset[str]
    profile: TableProfile
    new: TableProfile | None
    rows: Rows
    tallies: dict[str, Tally]
    drift: dict[str, Any] = field(default_factory=dict)


def finish_run(
    spec: RunSpec, addresses: Iterable[str], doomed: BatchscoreError | None = None
) -> Manifest:
    """Merges what units recorded, checks it, publishes, and returns the manifest it wrote.

    It can be done again, also at the same time: what flows in decides what is published. A run
    that fails a check, or whose rows do not add up, writes its outcome and returns normally; an
    exception would make the engine try it again.

    Args:
        spec: The run.
        addresses: Where the records of its units are.
        doomed: What went wrong before, so that some units are missing; None if nothing did.

    Raises:
        RetryError: A process that was stopped keeps a lock, or another run published meanwhile.
    """
    done = _earlier_outcome(spec)
    if done is not None:
        return done
    try:
        plan = read_plan(spec.output, spec.identity.run)
    except FileNotFoundError as error:
        # Closed by who took the slice over, or by this step, done twice at the same time.
        done = _earlier_outcome(spec)
        if done is not None:
            return done
        raise lost(spec.slice, spec.identity.run, published=False) from error
    try:
        if doomed is not None:
            raise doomed
        require_lease(spec.output, spec.slice, spec.identity.lease, spec.identity.run)
        result = _gather(spec, plan, sorted(set(addresses)))
        checks = judge(spec, result.rows, result.records, _bad_shards(result), result.base)
        # Ages are taken at the end of the job's day, or at the run's start.
        moment = datetime.fromisoformat(plan.day_end or plan.started)
        checks += check_columns(
            spec.scoring.target.checks, result.tallies, spec.scoring.checks, moment
        )
        references = [Reference.from_json(each) for each in plan.references]
        policy = policy_of(spec.scoring.drift, spec.output, spec.slice, spec.job, plan.started)
        drift, drift_checks = judge_drift(
            spec, references, result.profile, result.new, policy, partial(read_nights, spec)
        )
        repeated = find_repeated(spec, result.profile)
        drift["notes"] = [*plan.reference_notes, *([repeated.sentence] if repeated else [])]
        drift_checks += repeated_checks(spec, repeated)
        return _conclude(spec, replace(result, drift=drift), [*checks, *drift_checks])
    except RetryError:
        raise  # the command ends with 4: the same one may succeed later
    except BatchscoreError as error:
        return _write_failed(spec, plan, error)


def _earlier_outcome(spec: RunSpec) -> Manifest | None:
    """Returns the manifest that this step wrote before, its publication finished, or None."""
    if _is_held(spec):
        roll_forward(spec.output, spec.slice, partial(_is_held, spec))
    written = spec.output.exists(layout.run_file(spec.identity.run, "manifest.json"))
    return read_manifest(spec.output, spec.identity.run) if written else None


def _is_held(spec: RunSpec) -> bool:
    return holds(spec.output, spec.slice, spec.identity.lease)


def _gather(spec: RunSpec, plan: RunPlan, addresses: Sequence[str]) -> Result:
    base = read_manifest(spec.output, plan.base) if plan.base else None
    kept = _kept_records(base, plan.kept)
    resumed = [layout.record(spec.slice, spec.identity.score, unit) for unit in plan.resumed]
    new = TableProfile.empty()
    made = merge_records(spec.output, [*addresses, *resumed], new)
    profile = _kept_profile(spec, base, kept) if kept else new
    if kept:
        profile.merge(new)
    _check_files(spec, made, plan.resumed)
    records = complete_tallies(spec, {**kept, **_settle_rejects(spec.output, made)})
    planned = {
        **plan.units,
        **{u: r.planned for u, r in records.items() if u not in plan.units},
    }
    reused = sum(record.planned for unit, record in records.items() if unit not in plan.units)
    shard_rows = plan.shard_rows
    rows = reconcile(records, planned, plan.pruned_rows, shard_rows, reused)
    ordered = tuple(record for _, record in sorted(records.items()))
    fresh = frozenset(plan.units)
    tallies = _tallies(spec, ordered)
    return Result(plan, base, ordered, fresh, profile, new if kept else None, rows, tallies)


def _tallies(spec: RunSpec, records: Sequence[UnitRecord]) -> dict[str, Tally]:
    keys = [check.key for check in spec.scoring.target.checks]
    # What was not counted cannot be counted again where a function made the column.
    known = {key: [r.tallies[key] for r in records if key in r.tallies] for key in keys}
    return {key: merge_tallies(found) for key, found in known.items()}


def _kept_records(base: Manifest | None, kept: Sequence[str]) -> dict[str, UnitRecord]:
    published = published_records(base) if base and kept else {}
    return {unit: published[unit] for unit in kept}


def _kept_profile(
    spec: RunSpec, base: Manifest | None, kept: Mapping[str, UnitRecord]
) -> TableProfile:
    """Returns the profile of published units that stay: the base's own where all of them do."""
    if base is not None and kept and len(kept) == len(base.units or ()):
        # Where it is gone or damaged, the units' own records hold all of it.
        with suppress(RecordError):
            return read_run_profile(spec.output, base)
    profile = TableProfile.empty()
    merge_records(
        spec.output,
        [layout.record(spec.slice, spec.identity.score, u) for u in kept],
        profile,
    )
    return profile


def _check_files(spec: RunSpec, made: Mapping[str, UnitRecord], resumed: Collection[str]) -> None:
    """Raises RecordError where files of units are gone or damaged.

    Workers of this run wrote those of the units that it scored: their size is compared. Those of
    resumed units may have changed since the launcher read them, however long this run scored.
    """
    theirs = [record for unit, record in made.items() if unit in resumed]
    mine = [record for unit, record in made.items() if unit not in resumed]
    staged = {f.staged: final_path(f, spec.identity.run, r.unit) for r in theirs for f in r.files}
    moved = {**settled_rejects(made.values()), **staged}
    scored = {path: digest for r in theirs for path, digest in files_of(r).items()}
    read = scored | _sidecars(spec.output, theirs)
    damage = find_damage(spec.output, read, read=True, moved=moved)
    damage |= find_damage(spec.output, _sidecars(spec.output, mine), read=False, moved=moved)
    if damage:
        raise RecordError(
            f"{describe(damage)}; nothing was published. Run the job again: it scores damaged "
            "units again"
        )


def _sidecars(store: Store, records: Iterable[UnitRecord]) -> dict[str, Digest | None]:
    found = [sidecars_of(store, record) for record in records]
    return {path: digest for each in found for path, digest in each.items()}


def _settle_rejects(store: Store, made: Mapping[str, UnitRecord]) -> dict[str, UnitRecord]:
    """Moves units' rejected rows to their places for good."""
    places = {unit: layout.rejects(r.run, unit) for unit, r in made.items() if r.rejects_file}
    store.move_all([(str(made[unit].rejects_file), place) for unit, place in places.items()])
    settled = {unit: replace(made[unit], rejects_file=place) for unit, place in places.items()}
    return {**made, **settled}


def _bad_shards(result: Result) -> list[tuple[str, str]]:
    found = {bad.path: bad.reason for bad in result.plan.read_bad_files()}
    found |= {bad.path: bad.reason for record in result.records for bad in record.bad_shards}
    return sorted(found.items())


def _conclude(spec: RunSpec, result: Result, checks: Sequence[Check]) -> Manifest:
    """Writes a run's outcome; one that passed its checks is published."""
    store, run = spec.output, spec.identity.run
    # A late step of a run whose slice was taken over leaves the run's files as they are.
    require_lease(store, spec.slice, spec.identity.lease, run)
    profiles = save_profile(store, run, result.profile, result.new)
    status = outcome(result.rows, checks)
    manifest = _manifest(spec, result, checks, status).updated(**profiles)
    good = manifest.updated(status="published" if result.rows.scored else "empty")
    base = read_raw(store, result.base.run) if result.base else None
    compacted = compact(store, good, base)
    publication = _publication(spec, result, good, compacted)
    if status in ("published", "empty"):
        # Workers of this run wrote these files, or it has just read them.
        publish(store, spec.slice, publication, partial(_is_held, spec), known=True)
        return good
    if status == "held":
        store.write_json(layout.run_file(run, HELD), publication.to_json())
    nothing: dict[str, Any] = {"status": status, "files": [], "replaced": []}
    written = compacted.updated(**nothing)
    return _write_outcome(spec, written, manifest.updated(**nothing))


def _publication(
    spec: RunSpec, result: Result, manifest: Manifest, compacted: Manifest
) -> Publication:
    moves = [
        (file.staged, final_path(file, spec.identity.run, record.unit))
        for record in result.records
        for file in record.files
        if not is_published(file)
    ]
    return Publication(
        run=spec.identity.run,
        base=result.plan.base,
        before=tuple(result.plan.before),
        files=tuple(sorted(manifest.paths)),
        moves=tuple(moves),
        retire=tuple(manifest.replaced),
        documents=(
            (layout.run_file(spec.identity.run, "manifest.json"), compacted.document),
            *_lifted(spec, result),
        ),
    )


def _lifted(spec: RunSpec, result: Result) -> list[tuple[str, Any]]:
    """Returns the slice's revocations, those lifted that this run publishes all the same."""
    revoked = revocations(spec.output, spec.slice)
    shards = {p.shard.path for r in result.records for p in r.pieces if r.unit in result.fresh}
    left = [
        lifted(each)
        if each.run in result.plan.revoked and shards & {path for path, *_ in each.shards}
        else each
        for each in revoked
    ]
    return [(revoked_path(spec.slice), encode_revocations(left))] if left != revoked else []


def _manifest(spec: RunSpec, result: Result, checks: Sequence[Check], status: str) -> Manifest:
    records, plan = result.records, result.plan
    fresh = [record for record in records if record.unit in result.fresh]
    head = _head(spec.identity.run, plan, status, _scored_at(plan, fresh))
    units, files, shards = encode_units(records, spec.identity.run)
    standing = set(plan.before) | set(result.base.paths if result.base else ())
    bad = [{"path": path, "reason": reason} for path, reason in _bad_shards(result)]
    facts = {
        **head.document,
        "inference": {
            **(head.inference or {}),
            "halved_to": fewest_rows(spec.output, spec.identity.run),
        },
        "rows": asdict(result.rows),
        "columns": [list(c) for c in next((r.columns for r in records if r.scored), ())],
        "files": files,
        "replaced": sorted(standing - {str(file["path"]) for file in files}),
        "rejects": summarize_rejects(records),
        "bad_shards": bad,
        **({"damaged": plan.damaged} if plan.damaged else {}),
        "checks": [asdict(check) for check in checks],
        **_column_checks(spec, result.tallies),
        "drift": result.drift,
        "profile": result.profile.summary(),
        **_timings(spec, head, fresh, by_phase(plan.spent)),
        "usage": unit_usage(result.rows, fresh),
        "reused_units": len(records) - len(fresh),
        "units": units,
        "shards": shards,
        "inputs": plan.inputs,
    }
    return build_manifest(**facts)


def _column_checks(spec: RunSpec, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    wanted = spec.scoring.target.checks
    return {"column_checks": columns_to_json(wanted, tallies)} if wanted else {}


def _head(
    run: str,
    plan: RunPlan,
    status: str,
    units: Units | None = None,
    ended: datetime | None = None,
) -> Manifest:
    """Returns what a manifest says whether or not the run came to its rows."""
    spent = times(plan.started, ended)
    seconds = spent["seconds"]
    phases = rounded(split(seconds, by_phase(plan.spent), units), seconds)
    return build_manifest(
        run=run,
        status=status,
        **{**plan.facts, **spent},
        phases=phases,
        start_up_seconds=start_up_steps(plan.spent, phases),
        base=plan.base,
        rows=asdict(Rows(plan.shard_rows, 0, 0, 0)),
    )


def _scored_at(plan: RunPlan, fresh: Sequence[UnitRecord]) -> Units:
    """Returns when this run's units were scored; where it scored none, it only publishes."""
    started = datetime.fromisoformat(plan.started).timestamp()
    found = add_up(record.seconds for record in fresh)
    if "began" not in found or "ended" not in found:
        return Units(0.0, 0.0)
    return Units(found["began"] - started, found["ended"] - started)


def _write_failed(spec: RunSpec, plan: RunPlan, error: BatchscoreError) -> Manifest:
    status = error.status if isinstance(error, StoppedError) else "failed"
    manifest = failed_manifest(spec.identity.run, plan, status, str(error))
    if isinstance(error, StoppedError):
        facts = {"by": error.by, "at": manifest.finished, "exit_code": error.exit_code}
        manifest = manifest.updated(stopped=facts)
    return _write_outcome(spec, manifest, manifest)


def _write_outcome(spec: RunSpec, written: Manifest, whole: Manifest) -> Manifest:
    """Writes the manifest of a run that publishes nothing; returns it, or the one that is there.

    Who took the slice over may have published the run, or closed it.
    """
    path = layout.run_file(spec.identity.run, "manifest.json")
    if not spec.output.create_new(path, encode_json(written.document)):
        return read_manifest(spec.output, spec.identity.run)
    return whole


def failed_manifest(
    run: str, plan: RunPlan, status: str, message: str, ended: datetime | None = None
) -> Manifest:
    """Returns the manifest of a run that ended without a result, and why.

    Args:
        run: Its name.
        plan: What it was planned to do.
        status: How it ended.
        message: Why it ended so.
        ended: When it ended; now by default.
    """
    return _without_result(run, plan, status, ended).updated(error=message)


def held_manifest(run: str, plan: RunPlan, checks: Sequence[Check]) -> Manifest:
    """Returns the manifest of a run that was held before it scored anything."""
    return _without_result(run, plan, "held").updated(
        replaced=[],
        rejects=summarize_rejects(()),
        checks=[asdict(check) for check in checks],
    )


def submitted_manifest(run: str, plan: RunPlan, submission: Mapping[str, Any]) -> Manifest:
    """Returns what is known of a run that its launcher left, and how its job is found."""
    return _without_result(run, plan, SUBMITTED).updated(submission=submission)


def _without_result(
    run: str, plan: RunPlan, status: str, ended: datetime | None = None
) -> Manifest:
    units = Units(0.0, 0.0) if status == "held" else None
    return _head(run, plan, status, units, ended).updated(files=[], inputs=plan.inputs)


def _timings(
    spec: RunSpec,
    head: Manifest,
    fresh: Sequence[UnitRecord],
    before: Mapping[str, float],
) -> dict[str, Any]:
    """Returns where the time of this run's units went; nothing where it scored none."""
    if not fresh:
        return {"stage_seconds": {}, "limited_by": None, "timings": None}
    seconds = add_up(record.seconds for record in fresh)
    shown = (*STAGES, *BETWEEN, *PARALLEL)
    timings = asdict(explain(seconds, replace(_setting(spec, head, fresh), before=before)))
    return {
        "stage_seconds": _rounded({m.name: seconds.get(m.name) for m in shown}),
        "limited_by": " and ".join(timings.pop("limited_by")),
        "timings": _rounded(timings),
    }


def _rounded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was measured, to the tenth of a millisecond."""
    known = {name: fact for name, fact in facts.items() if fact is not None}
    return {k: round(fact, 4) if isinstance(fact, float) else fact for k, fact in known.items()}


def until_now(manifest: Manifest) -> Manifest:
    """Returns a run's manifest with its times up to now, its publication among them."""
    spent = times(manifest.started)
    timings = dict(manifest.timings or {})
    more = spent["seconds"] - manifest.seconds
    timings |= {k: round(timings[k] + more, 4) for k in ("scoring_s", "finish_s") if k in timings}
    phases = rounded(manifest.phases or {}, spent["seconds"])
    steps = start_up_steps(manifest.start_up_seconds, phases)
    return manifest.updated(**spent, phases=phases, start_up_seconds=steps, timings=timings or None)


def _setting(spec: RunSpec, head: Manifest, fresh: Sequence[UnitRecord]) -> Setting:
    started, finished = map(datetime.fromisoformat, (head.started, str(head.finished)))
    preprocess = spec.scoring.preprocess
    functions = [
        step.function for step in spec.scoring.postprocess if isinstance(step, UserFunction)
    ]
    return Setting(
        started.timestamp(),
        finished.timestamp(),
        workers=head.workers,
        cores=head.cores,
        device=spec.execution.device,
        precision=spec.execution.precision,
        units=len(fresh),
        batch_rows=spec.scoring.source.batch_rows,
        call_rows=spec.execution.call_rows,
        model_columns=len(spec.scoring.model_columns),
        passed_columns=len(spec.scoring.target.columns),
        files=sum(len(record.files) for record in fresh),
        partition_by=spec.scoring.target.partition_by,
        preprocess=preprocess.function if preprocess else "",
        pandas=preprocess is not None and preprocess.batch == "pandas",
        postprocess=tuple(functions),
    )


def summarize_rejects(records: Sequence[UnitRecord]) -> dict[str, Any]:
    """Returns the commonest reasons of all units, with their rows, and where the rows lie."""
    reasons = Counter[str]()
    for record in records:
        reasons.update(record.reject_reasons)
    common = dict(reasons.most_common(_REASONS))
    if len(reasons) > _REASONS:
        common["other reasons"] = reasons.total() - sum(common.values())
    return {"reasons": common, "files": [r.rejects_file for r in records if r.rejects_file]}
