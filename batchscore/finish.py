"""The last step of a run: records merged, rows reconciled, checks judged, files published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from batchscore.drift.profile import TableProfile
from batchscore.drift.storage import read_table, write_table
from batchscore.errors import BatchscoreError
from batchscore.records import UnitRecord
from batchscore.runs import layout
from batchscore.runs.publish import final_path, publish, roll_forward, snapshot
from batchscore.runs.reconcile import Rows, reconcile
from batchscore.spec import RunSpec
from batchscore.storage import Store
from batchscore.telemetry import STAGES, limiting_stage

_READ_THREADS = 16


@dataclass(frozen=True)
class Check:
    """One check before publishing: its name, whether it passed, its figures, and what it holds."""

    name: str
    passed: bool
    detail: str
    status: str


def encode_record(record: UnitRecord, profile: TableProfile) -> bytes:
    """Returns a unit's record and profile as the bytes of one file."""
    return write_table(profile, record.to_json())


def decode_record(data: bytes) -> tuple[UnitRecord, TableProfile]:
    """Reverses `encode_record`; RecordError if the bytes are damaged."""
    profile, meta = read_table(data)
    return UnitRecord.from_json(meta), profile


def finish_run(spec: RunSpec, addresses: Iterable[str]) -> dict[str, Any]:
    """Merges what units recorded, checks it, publishes, and returns the manifest it wrote.

    It can be done again, also at the same time: what flows in decides what is published. A run
    that fails a check, or whose rows do not add up, writes its outcome and returns normally; an
    exception would make the engine try it again.
    """
    done = _earlier_outcome(spec)
    if done is not None:
        return done
    store = spec.output
    plan = store.read_json(layout.run_file(spec.run, "plan.json"))
    try:
        units, profile = merge_records(store, addresses)
        shard_rows = sum(shard["rows"] for shard in plan["inputs"])
        rows = reconcile(units, plan["units"], plan["pruned_rows"], shard_rows)
    except BatchscoreError as error:
        return _write_failed(spec, plan, error)
    chosen = [record for _, record in sorted(units.items())]
    store.write(layout.run_file(spec.run, "profile.parquet"), write_table(profile, {}))
    checks = judge(rows, chosen, spec)
    manifest = _manifest(spec, plan, rows, chosen, checks, profile)
    if manifest["status"] in ("published", "empty"):
        moves = [(f.staged, final_path(f, spec.run, r.unit)) for r in chosen for f in r.files]
        publish(store, spec.slice, spec.run, moves, manifest)
    else:
        store.write_json(layout.run_file(spec.run, "manifest.json"), manifest)
    return manifest


def _earlier_outcome(spec: RunSpec) -> dict[str, Any] | None:
    """Returns the manifest that this step wrote before, its publication finished, or None."""
    roll_forward(spec.output, spec.slice)
    path = layout.run_file(spec.run, "manifest.json")
    if not spec.output.exists(path):
        return None
    manifest: dict[str, Any] = spec.output.read_json(path)
    return manifest


def merge_records(
    store: Store, addresses: Iterable[str]
) -> tuple[dict[str, UnitRecord], TableProfile]:
    """Returns one record a unit, and their profiles as one; some are in memory at a time.

    Of several attempts at a unit the first by address counts, so that all who merge agree on it.
    """
    chosen: dict[str, UnitRecord] = {}
    merged = TableProfile.empty()
    paths = sorted(addresses)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for start in range(0, len(paths), _READ_THREADS):
            for data in pool.map(store.read, paths[start : start + _READ_THREADS]):
                record, profile = decode_record(data)
                if record.unit not in chosen:
                    chosen[record.unit] = record
                    merged.merge(profile)
    return chosen, merged


def judge(rows: Rows, records: Sequence[UnitRecord], spec: RunSpec) -> list[Check]:
    """Returns every check of a run whose rows were reconciled."""
    kept = rows.scored + rows.rejected
    ratio = rows.rejected / kept if kept else 0.0
    reasons = Counter[str]()
    for record in records:
        reasons.update(record.reject_reasons)
    worst = "".join(f"; most often {reason}" for reason, _ in reasons.most_common(1))
    equation = f"{rows.input:,} = {rows.scored:,} + {rows.rejected:,} + {rows.filtered:,}"
    return [
        Check("rows", True, f"input {equation} scored, rejected, filtered", "failed"),
        Check(
            "rejects",
            ratio <= spec.max_reject_ratio,
            f"{rows.rejected:,} of {kept:,} rows were rejected, {ratio:.4%}; "
            f"rejects.max_ratio allows {spec.max_reject_ratio:.4%}{worst}",
            "failed",
        ),
        Check(
            "scored",
            rows.scored > 0 or not kept,
            f"{rows.scored:,} of {kept:,} rows were scored{worst}",
            "failed",
        ),
        Check(
            "not_empty",
            kept > 0 or spec.allow_empty,
            f"{kept:,} rows to score"
            + ("" if kept else "; input.allow_empty: true would publish an empty result"),
            "held",
        ),
    ]


def _status(rows: Rows, checks: Sequence[Check]) -> str:
    failed = [check.status for check in checks if not check.passed]
    if failed:
        return "failed" if "failed" in failed else "held"
    return "published" if rows.scored else "empty"


def _manifest(
    spec: RunSpec,
    plan: dict[str, Any],
    rows: Rows,
    records: Sequence[UnitRecord],
    checks: Sequence[Check],
    profile: TableProfile,
) -> dict[str, Any]:
    seconds = _stage_seconds(records)
    files = _file_facts(spec, records)
    status = _status(rows, checks)
    published = status in ("published", "empty")
    old = set(snapshot(spec.output, spec.slice)) - {str(file["path"]) for file in files}
    head = _head(spec, plan, status)
    limit = limiting_stage(seconds, head["seconds"], head["workers"]) if records else None
    return {
        **head,
        "rows": asdict(rows),
        "columns": [list(c) for c in next((r.columns for r in records if r.scored), ())],
        "files": files if published else [],
        "replaced": sorted(old) if published else [],
        "rejects": _rejects(spec, records),
        "checks": [asdict(check) for check in checks],
        "profile": profile.summary(),
        "stage_seconds": seconds,
        "limited_by": limit,
        "units": [_unit_facts(record) for record in records],
        "inputs": plan["inputs"],
    }


def _file_facts(spec: RunSpec, records: Sequence[UnitRecord]) -> list[dict[str, Any]]:
    return [
        {
            "path": final_path(file, spec.run, record.unit),
            "rows": file.rows,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "unit": record.unit,
        }
        for record in records
        for file in record.files
    ]


def _head(spec: RunSpec, plan: dict[str, Any], status: str) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    started = datetime.fromisoformat(plan["facts"]["started"])
    return {
        "batchscore_manifest": 1,
        "run": spec.run,
        "status": status,
        **plan["facts"],
        "finished": now.isoformat(timespec="milliseconds"),
        "seconds": round((now - started).total_seconds(), 3),
    }


def _write_failed(spec: RunSpec, plan: dict[str, Any], error: BatchscoreError) -> dict[str, Any]:
    manifest = failed_manifest(spec, plan, "failed", str(error))
    spec.output.write_json(layout.run_file(spec.run, "manifest.json"), manifest)
    return manifest


def failed_manifest(
    spec: RunSpec, plan: dict[str, Any], status: str, message: str
) -> dict[str, Any]:
    """Returns the manifest of a run that ended without a result, and why."""
    head = _head(spec, plan, status)
    rows = asdict(Rows(sum(shard["rows"] for shard in plan["inputs"]), 0, 0, 0))
    return {**head, "error": message, "rows": rows, "files": [], "inputs": plan["inputs"]}


def _stage_seconds(records: Sequence[UnitRecord]) -> dict[str, float]:
    return {
        stage.name: round(sum(r.seconds.get(stage.name, 0.0) for r in records), 4)
        for stage in STAGES
    }


def _rejects(spec: RunSpec, records: Sequence[UnitRecord]) -> dict[str, Any]:
    """Moves rejected rows to their place for good and tells what they are."""
    reasons = Counter[str]()
    files = []
    for record in records:
        reasons.update(record.reject_reasons)
        if record.rejects_file is not None:
            path = f"{layout.HOME}/rejects/{spec.run}/{record.unit}.parquet"
            spec.output.move(record.rejects_file, path)
            files.append(path)
    return {"reasons": dict(reasons), "files": files}


def _unit_facts(record: UnitRecord) -> dict[str, Any]:
    facts = record.to_json()
    return {
        key: facts[key] for key in ("unit", "attempt", "read", "filtered", "scored", "rejected")
    }
