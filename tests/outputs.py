"""Outputs made without an engine: units scored by a formula, and published as a run does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.drift.table import TableProfile
from batchscore.plan.fingerprint import fingerprint
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.runs.ledger import enter
from batchscore.runs.manifest_model import decode_manifest
from batchscore.runs.manifest_units import encode_units, final_path, is_published, published_records
from batchscore.runs.profiles import save_profile
from batchscore.runs.publication import Publication
from batchscore.runs.publish import Held, publish
from batchscore.runs.reconcile import Rows
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.snapshot import published_run, snapshot
from batchscore.stages.block import Block, reject_rows
from batchscore.stages.read import Source, read_unit
from batchscore.stages.trial import Trial
from batchscore.stages.write import Attempt, Target, UnitWriter
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit
from tests.factory import plan_units

SCORE = "5c0e" * 16
RUN = "20261120-aaaa"
MODEL = {"name": "small", "version": "1.0", "identity": "cafe" * 16}


def score_unit(
    store: Store,
    unit: Unit,
    source: Source,
    target: Target,
    slice_: str,
    run: str,
    score: str = SCORE,
) -> UnitRecord:
    """Score `id / 2`, reject the rows whose column `bad` is true, and enter the unit's record."""
    attempt = f"{unit.id}-{'00000000' if score == SCORE else score[:8]}"
    folder, ledger = f"{layout.staging(slice_)}/{attempt}", layout.ledger(slice_, score)
    profile = TableProfile.empty()
    made = Attempt(unit, attempt, run, folder, ledger)
    writer = UnitWriter(store, made, target, profile.update, Trial(passed=True))
    *blocks, last = read_unit(unit, source)
    for block in blocks:
        writer.add(_score(block))
    assert last.end is not None
    record = writer.finish(last.end)
    assert enter(store, layout.record(slice_, score, unit.id), record, profile)
    if record.rejects_file is None:
        return record
    store.move(record.rejects_file, layout.rejects(run, unit.id))
    return replace(record, rejects_file=layout.rejects(run, unit.id))


def _score(block: Block) -> Block:
    score = pc.divide(block.batch.column("id").cast(pa.float64()), 2.0)
    scored = replace(block, values=pa.record_batch([score], names=["score"]))
    return reject_rows(scored, block.batch.column("bad"), "infer", "NonFiniteScore", "NaN")


def publish_records(
    store: Store,
    slice_: str,
    run: str,
    records: Sequence[UnitRecord],
    held: Held = lambda: True,
    **facts: Any,
) -> dict[str, Any]:
    """Publish units as a run; return its manifest, which has `facts` too."""
    manifest, publication = plan_publication(store, slice_, run, records, **facts)
    publish(store, slice_, publication, held)
    return manifest


def plan_publication(
    store: Store, slice_: str, run: str, records: Sequence[UnitRecord], **facts: Any
) -> tuple[dict[str, Any], Publication]:
    """Return the manifest of a run of units, and how it is published onto what there is."""
    units, files, shards = encode_units(records, run)
    read = sum(r.read for r in records)
    counts = [sum(getattr(r, name) for r in records) for name in ("filtered", "scored", "rejected")]
    manifest = {
        "run": run,
        "slice": slice_,
        "status": "published",
        "started": "2026-11-20T01:00:00+00:00",
        "finished": "2026-11-20T01:02:00+00:00",
        "seconds": 120.0,
        "base": None,
        "score": SCORE,
        "score_facts": {},
        "fingerprint": "",
        "job_sha256": "beef" * 16,
        "model": MODEL,
        "rows": asdict(Rows(read, *counts)),
        "columns": [list(c) for c in next((r.columns for r in records if r.scored), ())],
        **{"units": units, "files": files, "shards": shards, **facts},
    }
    paths = tuple(sorted(file["path"] for file in files))
    before = tuple(snapshot(store, slice_))
    moves = tuple(
        (file.staged, final_path(file, run, record.unit))
        for record in records
        for file in record.files
        if not is_published(file)
    )
    save_profile(store, run, TableProfile.empty())
    documents = ((layout.run_file(run, "manifest.json"), manifest),)
    # As a run does it, also where the list was changed by hand.
    base = published_run(store, slice_)
    old = read_manifest(store, base).paths if facts.get("base") and base else ()
    retire = tuple(sorted({*before, *old} - set(paths)))
    return manifest, Publication(run, base, before, paths, moves, retire, documents)


def publish_shards(
    folder: Path,
    slice_: str = "small",
    run: str = RUN,
    scored_by: str = RUN,
    unit_rows: int = 40,
    filters: Any = None,
    **target: Any,
) -> dict[str, Any]:
    """Publish the shards in `in` to the output `out`, with an id that is unique."""
    store = Store(str(folder / "out"))
    layout.claim_output(store)
    units, schema = plan_units([folder / "in"], unit_rows, filters)
    given = {"partition_by": (), "unique": ("id",), **target}
    written = Target(tuple(schema.names), model_version="1.0", **given)
    source = Source(schema, filters, batch_rows=7)
    records = [score_unit(store, unit, source, written, slice_, scored_by) for unit in units]
    return publish_records(store, slice_, run, records)


def rename_shards(output: Path, rename: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Give the shards of what is published the names and marks of an earlier version."""
    for path in output.glob("_batchscore/runs/*/manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("inputs", "shards"):
            manifest[name] = [rename(shard) for shard in manifest[name]]
        records = published_records(decode_manifest(manifest, manifest["run"])).values()
        pieces = [piece for record in records for piece in record.pieces]
        manifest["fingerprint"] = fingerprint(manifest["score"], pieces, [])
        path.write_text(json.dumps(manifest))


def write_plan(store: Store, run: str, facts: dict[str, Any]) -> None:
    """Writes the plan of a run without units, as one that is killed at once leaves it."""
    facts = {"score": "", **facts}
    plan = RunPlan(facts, 0, [], [], [], [], {}, [], [], None, [])
    store.write(layout.plan_file(run), encode_plan(plan))
