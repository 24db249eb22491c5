"""What of a plan is done, and what is left: compared with the ledger and what is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batchscore.errors import InvalidError, RecordError
from batchscore.messages.wording import counted, one_line
from batchscore.models.backends.facts import DEFAULT_KERNELS
from batchscore.plan.changes import Changes, changed_facts, find_changes, judge_changes
from batchscore.plan.fingerprint import fingerprint, score_hash
from batchscore.plan.format2_facts import (
    is_earlier,
    named_neighbours,
    respell_code,
    without_neighbours,
)
from batchscore.plan.legacy_facts import complete, is_legacy, legacy_score, respell
from batchscore.plan.model import weights_facts
from batchscore.plan.plan import Plan
from batchscore.plan.rescoring import explain_facts, explain_work
from batchscore.runs import layout
from batchscore.runs.checks import Check
from batchscore.runs.contents import describe, files_of, find_damage, sidecars_of
from batchscore.runs.history import published_manifest, read_manifest
from batchscore.runs.ledger import finished_units, read_heads
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_units import published_records
from batchscore.runs.revoked import Revocation, revocations
from batchscore.runs.snapshot import Listing, read_listing
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Piece, Unit, make_unit, pack_units

UNIT_ROWS = 1_000_000

ShardKey = tuple[str, int, str]
_Damage = Mapping[str, tuple[UnitRecord, dict[str, str]]]


@dataclass(frozen=True)
class Work:
    """What a run has to do, and what it finds done.

    Args:
        base: The manifest of what is published, or None.
        score: The name under which what is scored as this job scores is known.
        kept: Published units that stay as they are.
        resumed: Units that were finished and never published.
        units: What is to be scored.
        changes: What changed since the slice was published.
        checks: One for each kind of change; a run whose job holds one does not score. One more,
            passed, where published files are gone.
        unchanged: What is published is what a run would publish.
        revoked: Runs that were taken back and had scored as this job does.
        damaged: What is wrong with files of finished units that are scored again, by path.
        again: Why published rows are scored again, a phrase each; empty where none is.
    """

    base: Manifest | None
    score: str
    kept: dict[str, UnitRecord]
    resumed: dict[str, UnitRecord]
    units: tuple[Unit, ...]
    changes: Changes
    checks: tuple[Check, ...]
    unchanged: bool
    revoked: tuple[str, ...] = ()
    damaged: dict[str, str] = field(default_factory=dict)
    again: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether the job holds a change, so that nothing is to be scored."""
        return not all(check.passed for check in self.checks)

    @property
    def reused(self) -> tuple[UnitRecord, ...]:
        """Records of the units that need not be scored."""
        return (*self.kept.values(), *self.resumed.values())

    @property
    def reused_rows(self) -> int:
        """Rows of units that need not be scored."""
        return sum(record.planned for record in self.reused)

    @property
    def kernels(self) -> str | None:
        """The kernels that reused units were scored with; None if there are no such units."""
        return next((record.kernels for record in self.reused), None)

    @property
    def unit_rows(self) -> int:
        """Rows that the units to score read."""
        return sum(unit.rows for unit in self.units)

    @property
    def most_rows(self) -> int:
        """Rows that may be scored or rejected in all, if the filter keeps all rows to score."""
        return self.unit_rows + sum(record.scored + record.rejected for record in self.reused)


def settle(plan: Plan, rescore: bool = False, read: bool = False) -> Work:
    """Finds what is published and what is finished, and cuts the rest into units; writes nothing.

    Args:
        rescore: Reuses nothing but what an earlier `--rescore` of the same state finished.
        read: Reads the files of finished units, whose bytes another run wrote, and compares their
            SHA-256; without, only their size.

    Raises:
        RecordError: A manifest, a record, or the slice's snapshot is damaged.
    """
    base, published = _standing(plan, rescore)
    changed = _changed_since(plan, base) if base else ()
    reasons = _reasons(plan, base, changed) if base and published else ()
    plan = scored_as(plan, _known_score(plan, base, changed))
    spec = plan.spec
    missing = _missing_files(plan, base, published, rescore)
    alike = base is not None and base.score == plan.score and not rescore
    whole = {
        unit: record
        for unit, record in published.items()
        if alike and not _lacks(record, missing) and not missing & {*_records(plan, record)}
    }
    left = _groups(plan.pieces)
    kept = _take(whole, left, spec.scoring.max_bad_shards)
    finished = finished_units(spec.output, spec.slice, plan.score)
    salt = f"again {base.run if base else None}" if rescore else ""
    if salt:
        finished &= {unit.id for unit in _cut(plan.pieces, left, salt, set())}
    heads, damage = _usable(plan, finished - set(published), read)
    resumed = _take(_alike_kernels(heads, kept), left, spec.scoring.max_bad_shards)
    revoked = _revoked_alike(plan)
    damaged = _again(plan, _not_revoked(damage, revoked), left)
    units = _cut(plan.pieces, left, salt, {*finished, *published})
    if units:
        damaged |= _damaged_records(plan, finished - {*published, *heads, *damage})
    same = alike and base is not None and base.fingerprint == plan.fingerprint
    unchanged = same and not units and not resumed
    changes, checks = _changes(plan, base, changed, reasons, published, rescore)
    checks = (*checks, *_tell_missing(missing), *_tell_damaged(damaged))
    checks = (*checks, *([] if rescore else _judge_revoked(revoked, units, resumed)))
    runs = tuple(each.run for each in revoked)
    done = (base, plan.score, kept, resumed)
    lost = bool(missing or damaged)
    again = explain_work(reasons, rescore, changes.rewritten, lost) if base else ()
    return Work(*done, units, changes, checks, unchanged, runs, damaged, again)


def keeping_kernels(plan: Plan, work: Work) -> Plan:
    """Returns the plan with the kernels of reused units, where the job leaves the choice."""
    asked = plan.loaded.job.runtime.kernels
    if asked == DEFAULT_KERNELS:
        return plan
    execution = replace(plan.spec.execution, kernels=work.kernels or asked)
    return replace(plan, spec=replace(plan.spec, execution=execution))


def scored_as(plan: Plan, score: str) -> Plan:
    """Returns the plan with the name under which what is scored as it scores is known."""
    if score == plan.score:
        return plan
    bad = [(each.path, each.size, each.mark) for each in plan.bad_files]
    made = fingerprint(score, plan.pieces, bad)
    return replace(plan, score=score, fingerprint=made)


def _changed_since(plan: Plan, manifest: Manifest) -> tuple[str, ...]:
    """Names what decides scores and differs from a run's; only spelled differently is the same."""
    return changed_facts(*_comparable(plan, manifest))


def _reasons(plan: Plan, manifest: Manifest, changed: tuple[str, ...]) -> tuple[str, ...]:
    facts, before = _comparable(plan, manifest)
    return explain_facts(changed, facts, before, plan.spec.scoring.model, manifest.model)


def _comparable(plan: Plan, manifest: Manifest) -> tuple[dict[str, str], dict[str, str]]:
    """Returns what decides the job's scores, and what decided those of a run, in the same words."""
    before = manifest.score_facts
    facts = plan.score_facts | named_neighbours(before, plan.score_facts, plan.loaded.base)
    before = without_neighbours(before, facts)
    if is_legacy(before):
        facts, before = respell(facts, plan.loaded.job, plan.spec), complete(before)
    if is_earlier(manifest.score_facts) and not changed_facts(facts, before):
        facts = {**facts, **weights_facts(plan.spec.scoring.model)}
    return facts, before


def _known_score(plan: Plan, base: Manifest | None, changed: Sequence[str]) -> str:
    """Returns the score of what is published, where the job still scores so; else the job's own.

    A killed run of an earlier version may have finished units though it published nothing. Its
    facts lie in no manifest yet, so they are found by the hash that it would have today.
    """
    if base is not None and not changed:
        return str(base.score)
    store, slice_ = plan.spec.output, plan.spec.slice
    earlier = (score for score in _earlier_scores(plan) if finished_units(store, slice_, score))
    found = next(earlier, None)
    if found is None or weights_facts(plan.spec.scoring.model):
        return score_hash(plan.score_facts)
    return found


def _earlier_scores(plan: Plan) -> Iterator[str]:
    """Yields the hashes under which earlier versions kept the job's units, the latest first."""
    paths = {each.path for each in plan.shards} | {each.path for each in plan.bad_files}
    facts = respell_code(plan.score_facts, plan.loaded, paths)
    if facts is not None:
        yield score_hash(facts)
        yield legacy_score(facts, plan.loaded.job, plan.spec)


def _changes(
    plan: Plan,
    base: Manifest | None,
    changed: tuple[str, ...],
    reasons: tuple[str, ...],
    published: Mapping[str, UnitRecord],
    rescore: bool,
) -> tuple[Changes, tuple[Check, ...]]:
    if base is None:
        return Changes(), ()
    bad = {(unit, bad.path) for unit, r in published.items() for bad in r.bad_shards}
    before = [
        piece
        for unit, record in published.items()
        for piece in record.pieces
        if (unit, piece.shard.path) not in bad
    ]
    # Where nothing is published, nothing would be scored again.
    score = changed if published else ()
    changes = find_changes(score, plan.pieces, before, plan.shards)
    changes = replace(changes, reasons=reasons)
    cost = _cost(plan, base, published, changes)
    on_change = plan.loaded.job.on_change
    if rescore:  # but what is gone from the input is not scored by force
        forced = {
            "model": "rescore",
            "explain": "rescore",
            "rewritten_shards": "rescore",
            "late_shards": "add",
        }
        on_change = on_change.model_copy(update=forced)
    return changes, tuple(judge_changes(changes, on_change, cost))


def _cost(plan: Plan, base: Manifest, published: Mapping[str, UnitRecord], changes: Changes) -> str:
    """Says how many rows going on would score, and how long by what the published run took."""
    rows = sum(piece.rows for piece in plan.pieces)
    if not changes.score:
        left = _groups(plan.pieces)
        rows -= sum(
            r.planned for r in _take(published, left, plan.spec.scoring.max_bad_shards).values()
        )
    scored = base.rows.input - base.rows.reused
    words = f"a run would score {counted(rows, 'row')}"
    if rows and scored:
        words += f" in about {_seconds_for(rows / scored, base):,.0f} s"
    return words


def _seconds_for(share: float, base: Manifest) -> float:
    """Returns about how long a run takes for some share of the rows that another one scored."""
    phases = base.phases or {}
    # Earlier versions counted no start-up, which does not depend on the rows.
    scoring = phases.get("scoring", base.seconds)
    return float(base.seconds - scoring + scoring * share)


def _revoked_alike(plan: Plan) -> list[Revocation]:
    """Returns what was taken back of runs that had scored as this job does."""
    spec = plan.spec
    found = [each for each in revocations(spec.output, spec.slice) if each.shards]
    return [each for each in found if each.score == plan.score or _ran_alike(plan, each.run)]


def _not_revoked(damage: _Damage, revoked: Sequence[Revocation]) -> _Damage:
    """Returns the damaged units that were not taken back, which moved the files of the others."""
    shards = {shard for each in revoked for shard in each.shards}
    return {
        unit: found
        for unit, found in damage.items()
        if not shards.issuperset(map(_key, found[0].pieces))
    }


def _ran_alike(plan: Plan, run: str) -> bool:
    try:
        return not _changed_since(plan, read_manifest(plan.spec.output, run))
    except (InvalidError, RecordError, KeyError):
        return False  # what is not known of it holds nothing


def _judge_revoked(
    revoked: Sequence[Revocation],
    units: Sequence[Unit],
    resumed: Mapping[str, UnitRecord],
) -> list[Check]:
    """Holds what was taken back: shards that would be published again as they were scored then."""
    found = [*(unit.pieces for unit in units), *(record.pieces for record in resumed.values())]
    shards = {_key(piece) for pieces in found for piece in pieces}
    return [
        Check(
            "revoked",
            False,
            f"run {each.run} published the same shards scored the same way, and {each.by} "
            f"took it back at {each.at}{_because(each.reason)}; change the model, the job "
            "or these shards, or publish them anyway with --rescore",
            "held",
        )
        for each in revoked
        if shards & {*each.shards}
    ][:1]


def _tell_missing(missing: set[str]) -> list[Check]:
    if not missing:
        return []
    detail = (
        f"missing: {counted(len(missing), 'published file')} or records of their units "
        f"({min(missing)}, …); these units are scored again"
    )
    return [Check("missing_files", True, detail, "held")]


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _standing(plan: Plan, rescore: bool) -> tuple[Manifest | None, dict[str, UnitRecord]]:
    """Returns what is published; `--rescore` does without it where it cannot be read."""
    spec = plan.spec
    try:
        base = published_manifest(spec.output, spec.slice)
        return base, published_records(base) if base else {}
    except RecordError:
        if not rescore:
            raise
        return None, {}


def _missing_files(
    plan: Plan, base: Manifest | None, published: Mapping[str, UnitRecord], rescore: bool
) -> set[str]:
    """Returns published files, and records and sidecars of their units, that are gone."""
    spec = plan.spec
    listing = _listing(plan, rescore)
    files = set(base.paths if base else ())
    strange = [*listing.wrong, *sorted(files.symmetric_difference(listing.files))]
    if strange and not rescore:
        raise RecordError(
            f"slice {spec.slice!r} of {spec.output.address}: its current.txt and the manifest of "
            f"what is published differ, in {one_line(repr(strange[0]))} among "
            "others; one was changed by hand: "
            "restore it, or score the slice again with --rescore"
        )
    alike = base is not None and base.score == plan.score
    kept = [path for r in published.values() for path in _records(plan, r)] if alike else []
    return spec.output.missing([*files, *kept])


def _listing(plan: Plan, rescore: bool) -> Listing:
    """Reads what `current.txt` lists; `--rescore` does without where it cannot be read."""
    try:
        return read_listing(plan.spec.output, plan.spec.slice)
    except RecordError:
        if not rescore:
            raise
        return Listing(None, ())


def _records(plan: Plan, record: UnitRecord) -> list[str]:
    own = layout.record(plan.spec.slice, plan.score, record.unit)
    return [path for path in (own, record.rows_file, record.keys_file) if path is not None]


def _lacks(record: UnitRecord, missing: set[str]) -> bool:
    return any(file.staged in missing for file in record.files)


def _alike_kernels(
    heads: Mapping[str, UnitRecord], kept: Mapping[str, UnitRecord]
) -> dict[str, UnitRecord]:
    """Returns those of finished units that were scored with one choice of kernels."""
    kernels = next((record.kernels for record in (*kept.values(), *heads.values())), None)
    return {unit: record for unit, record in heads.items() if record.kernels == kernels}


def _groups(pieces: Iterable[Piece]) -> dict[ShardKey, set[int]]:
    return {_key(piece): set(piece.row_groups) for piece in pieces}


def _key(piece: Piece) -> ShardKey:
    return piece.shard.path, piece.shard.size, piece.shard.mark


def _take(
    records: Mapping[str, UnitRecord], left: dict[ShardKey, set[int]], max_bad: int
) -> dict[str, UnitRecord]:
    """Returns the records all of whose row groups are left to do, and takes these out of `left`."""
    taken = {}
    for unit, record in records.items():
        fits = all(left.get(_key(p), set()).issuperset(p.row_groups) for p in record.pieces)
        if fits and record.pieces and (max_bad or not record.bad_shards):
            taken[unit] = record
            for piece in record.pieces:
                left[_key(piece)] -= set(piece.row_groups)
    return taken


def _usable(
    plan: Plan, units: set[str], read: bool
) -> tuple[dict[str, UnitRecord], dict[str, tuple[UnitRecord, dict[str, str]]]]:
    """Returns the records of finished units whose files are as they were written.

    The second mapping has the records of the others, each with what is wrong with its files.
    """
    spec = plan.spec
    heads = read_heads(spec.output, spec.slice, plan.score, units)
    expected = {
        unit: {**files_of(record), **sidecars_of(spec.output, record)}
        for unit, record in heads.items()
    }
    every = {path: digest for each in expected.values() for path, digest in each.items()}
    damage = find_damage(spec.output, every, read)
    wrong = {
        unit: {path: damage[path] for path in paths if path in damage}
        for unit, paths in expected.items()
    }
    usable = {unit: record for unit, record in heads.items() if not wrong[unit]}
    return usable, {unit: (heads[unit], each) for unit, each in wrong.items() if each}


def _again(plan: Plan, damage: _Damage, left: Mapping[ShardKey, set[int]]) -> dict[str, str]:
    """Returns what is wrong with the files of those units whose row groups are left to do."""
    records = {unit: record for unit, (record, _) in damage.items()}
    rest = {key: set(groups) for key, groups in left.items()}
    taken = _take(records, rest, plan.spec.scoring.max_bad_shards)
    return {path: wrong for unit in taken for path, wrong in damage[unit][1].items()}


def _damaged_records(plan: Plan, units: Iterable[str]) -> dict[str, str]:
    """Returns the records that no longer say which row groups are finished, by path."""
    spec = plan.spec
    paths = (layout.record(spec.slice, plan.score, unit) for unit in sorted(units))
    return dict.fromkeys(paths, "is damaged")


def _tell_damaged(damaged: Mapping[str, str]) -> list[Check]:
    if not damaged:
        return []
    detail = f"files of finished units changed ({describe(damaged)}); these units are scored again"
    return [Check("damaged_files", True, detail, "held")]


def _cut(
    pieces: Sequence[Piece], left: Mapping[ShardKey, set[int]], salt: str, taken: set[str]
) -> tuple[Unit, ...]:
    """Cuts the row groups that are left into units, none of whose names is taken."""
    rest = [part for piece in pieces for part in _rest(piece, left[_key(piece)])]
    units = [make_unit(unit.pieces, salt) for unit in pack_units(rest, UNIT_ROWS)]
    tries = 0
    while any(unit.id in taken for unit in units):
        tries += 1
        units = [
            make_unit(unit.pieces, f"{salt} {tries}") if unit.id in taken else unit
            for unit in units
        ]
    return tuple(units)


def _rest(piece: Piece, left: set[int]) -> list[Piece]:
    if len(left) == len(piece.row_groups):
        return [piece]
    keep = [index for index, group in enumerate(piece.row_groups) if group in left]
    if not keep:
        return []
    groups = (piece.row_groups, piece.starts, piece.sizes)
    row_groups, starts, sizes = (tuple(each[i] for i in keep) for each in groups)
    return [replace(piece, row_groups=row_groups, starts=starts, sizes=sizes)]
