"""Everything that can fail before a worker starts: a job to row groups, schema and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import pyarrow as pa

from batchscore.job import Job, LoadedJob, age_seconds
from batchscore.models.backends.facts import TILE_ROWS
from batchscore.models.loadable import Model
from batchscore.plan.annotations import annotate
from batchscore.plan.auto import choose_batch_rows
from batchscore.plan.code_files import code_files
from batchscore.plan.columns import (
    check_drift_columns,
    checked_schema,
    model_columns,
    read_filters,
    read_schema,
    uncounted,
    unseen_checks,
    written_columns,
)
from batchscore.plan.declared_scores import check_declared, output_names, score_hints
from batchscore.plan.explained import find_reasons
from batchscore.plan.fingerprint import fingerprint, package_versions, score_facts, score_hash
from batchscore.plan.footers import (
    BadFile,
    Footers,
    int96_unit,
    keep_row_groups,
    places_of,
    read_footers,
)
from batchscore.plan.hive import KeyRules
from batchscore.plan.listing import InputFile, find_shards, keep_published_paths
from batchscore.plan.model import model_inputs, resolve_model
from batchscore.plan.places import (
    check_apart,
    check_ready,
    check_unpublished,
    check_writable,
    plain_keys,
)
from batchscore.plan.published import Published, read_published
from batchscore.plan.reference import References, find_references
from batchscore.runs import layout
from batchscore.runs.actor import actor
from batchscore.runs.checks import rejects_allowed
from batchscore.runs.manifest_units import encode_shard
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.storage.store import Store
from batchscore.system.resources import count_cores
from batchscore.units.unit import Piece, Shard
from batchscore.worker.spec import Execution, Scoring, Spec


@dataclass(frozen=True)
class Plan:
    """What a job comes to, whatever was scored before; nothing of it was written anywhere.

    Args:
        loaded: The job.
        spec: What is scored, and how; a run adds its identity.
        score: Hash of all that scores depend on but the rows.
        pieces: The row groups that may hold rows to score.
        shards: All of the input that could be opened.
        bad_files: Files of the input that could not be opened and are left out.
        pruned_rows: Rows of row groups that the filter excludes by their statistics.
        input_bytes: Size of all shards.
        workers: Number of processes.
        choices: What `auto` came to, and why, by key of the job file.
        inference: How the network is called, for the manifest.
        gpus: GPUs that workers may share out, a name each; empty on the CPU.
        here: How this process computes rows to try them, if only workers have the device.
        references: What its profile is compared with.
        score_facts: All that scores depend on but the rows, by name.
        fingerprint: Changes whenever the published rows could.
    """

    loaded: LoadedJob
    spec: Spec
    score: str
    pieces: tuple[Piece, ...]
    shards: tuple[Shard, ...]
    bad_files: tuple[BadFile, ...]
    pruned_rows: int
    input_bytes: int
    workers: int
    choices: dict[str, str]
    references: References
    score_facts: dict[str, str]
    fingerprint: str
    inference: dict[str, Any] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    here: Execution | None = None


def make_plan(loaded: LoadedJob, known: Model | None = None) -> Plan:
    """Plans a run of a job, without torch: `verify` tries model, device and functions.

    Args:
        loaded: The job.
        known: Its model, if that was read before.

    Raises:
        InvalidError: Something is wrong with the job, its input, model or output.
        RetryError: The input is not ready.
    """
    job = loaded.job
    check_apart(job.output.path, job.input.path)
    check_writable(Store(job.output.path))
    check_ready(job.input.ready, job.input.path)
    found = _read_input(loaded)
    footers = found.good
    code = code_files(loaded)
    model = known or resolve_model(job.model, loaded.base, code)
    check_declared(job, model)
    schema = read_schema(job, footers, model)
    hidden = checked_schema(job, footers, model, schema)
    pieces = keep_row_groups(footers)
    batch_rows, why_rows = choose_batch_rows(job.runtime.batch_rows, footers, schema)
    int96 = int96_unit(footers, job.input.int96)
    places = places_of(footers)
    source = Source(schema, read_filters(job), batch_rows, int96=int96, places=places)
    inputs = model_inputs(job, model, schema, footers)
    scoring = make_scoring(loaded, code, source, model, inputs, Store(job.output.path))
    execution = make_execution(job, sum(piece.rows for piece in pieces))
    slice_ = layout.slice_id(job.name, loaded.params)
    spec = Spec(job.name, slice_, Store(job.output.path), scoring, execution)
    target = annotate(spec, footers)
    spec = replace(spec, scoring=_with_hidden(replace(scoring, target=target), hidden))
    scores = score_kinds(output_names(model), job.postprocess)
    if scores is not None:  # what a user's function calls its scores shows on a sample
        check_drift_columns(job, schema, scores)
    facts = score_facts(loaded, spec)
    score = score_hash(facts)
    return Plan(
        loaded=loaded,
        spec=spec,
        score=score,
        pieces=tuple(pieces),
        shards=tuple(footer.shard for footer in footers),
        bad_files=tuple(found.bad),
        pruned_rows=sum(f.shard.rows for f in footers) - sum(p.rows for p in pieces),
        input_bytes=sum(footer.shard.size for footer in footers),
        workers=1,
        choices={"batch_rows": why_rows, **uncounted(model)},
        references=find_references(loaded, model, spec.slice),
        score_facts=facts,
        fingerprint=fingerprint(score, pieces, [(b.path, b.size, b.mark) for b in found.bad]),
    )


def _with_hidden(scoring: Scoring, hidden: pa.Schema) -> Scoring:
    """Returns what is scored with columns that are read for checks alone."""
    if not hidden.names:
        return scoring
    source = replace(scoring.source, schema=pa.schema([*scoring.source.schema, *hidden]))
    target = replace(scoring.target, hidden=tuple(hidden.names))
    return replace(scoring, source=source, target=target)


def make_scoring(
    loaded: LoadedJob,
    code: Mapping[str, str],
    source: Source,
    model: Model,
    inputs: tuple[InputColumns, ...],
    output: Store,
) -> Scoring:
    """Returns what a job scores, with all columns of a schema."""
    job = loaded.job
    keys = plain_keys(output, job.output.partition_by)
    return Scoring(
        base=loaded.base,
        code=code,
        source=source,
        model=model,
        inputs=inputs,
        preprocess=job.preprocess,
        postprocess=job.postprocess,
        target=written_columns(
            job, source.schema, model.version, keys, unseen_checks(job, model, source.schema)
        ),
        rejects=job.rejects,
        checks=job.checks,
        drift=job.drift,
        model_columns=model_columns(job, model, source.schema),
        hints=score_hints(job, model),
        reasons=find_reasons(job, model, inputs, source.schema),
        allow_empty=job.input.allow_empty,
        max_bad_shards=_max_bad_shards(job),
    )


def make_execution(job: Job, rows: int) -> Execution:
    """Returns how the job asks its rows to be scored."""
    return Execution(
        device=job.runtime.device,
        precision=job.runtime.precision,
        compile=job.runtime.compile,
        kernels=job.runtime.kernels,
        call_rows=TILE_ROWS if job.runtime.micro_batch == "auto" else job.runtime.micro_batch,
        auto_rows=job.runtime.micro_batch == "auto",
        tile_threads=1,
        max_rejects=rejects_allowed(job.rejects, rows),
        fresh=True,
        model_process=False,
        model_timeout_s=age_seconds(job.runtime.model_timeout),
    )


def _max_bad_shards(job: Job) -> int:
    return job.input.max_bad_shards if job.input.on_bad_shard == "quarantine" else 0


def _read_input(loaded: LoadedJob) -> Footers:
    job = loaded.job
    found = find_shards(job.input.path, job.input.allow_empty)
    check_unpublished(job.output.path, (shard.real for shard in found))
    published = _published(loaded, found)
    rules = KeyRules(job.input.hive_types, published)
    found = keep_published_paths(found, published)
    return read_footers(found, _max_bad_shards(job), read_filters(job), job.input.int96, rules)


def _published(loaded: LoadedJob, found: Sequence[InputFile]) -> Published:
    """Returns what is published, where shards' names or hive keys' types may depend on it."""
    if not any(shard.keys or shard.is_linked for shard in found):
        return Published()
    job = loaded.job
    slice_ = layout.slice_id(job.name, loaded.params)
    return read_published(Store(job.output.path), job.name, slice_)


def plan_facts(plan: Plan, started: str) -> dict[str, Any]:
    """Returns what the last step of a run needs of its plan, JSON-able."""
    job, spec = plan.loaded.job, plan.spec
    facts = {
        "job": job.name,
        "slice": spec.slice,
        "params": {name: str(value) for name, value in plan.loaded.params.items()},
        "engine": job.runtime.engine,
        "device": plan.choices.get("device", job.runtime.device),
        "workers": plan.workers,
        "cores": count_cores(),
        "batch_rows": spec.scoring.source.batch_rows,
        "tile_rows": spec.execution.call_rows,
        "inference": plan.inference,
        "actor": actor(),
        "started": started,
        "job_sha256": plan.loaded.text_sha256,
        "fingerprint": plan.fingerprint,
        "score": plan.score,
        "score_facts": plan.score_facts,
        "model": {
            "name": spec.scoring.model.name,
            "version": spec.scoring.model.version,
            "identity": spec.scoring.model.identity,
            "sha256": dict(spec.scoring.model.sha256),
        },
        "packages": package_versions(plan.spec.scoring.model.format),
    }
    return {
        "facts": facts,
        "pruned_rows": plan.pruned_rows,
        "inputs": [encode_shard(shard) for shard in plan.shards],
        "references": [reference.to_json() for reference in plan.references.chosen],
        "reference_notes": list(plan.references.notes),
        "bad_files": [vars(bad) for bad in plan.bad_files],
        "day_end": day_end(plan.loaded),
    }


def day_end(loaded: LoadedJob) -> str | None:
    """Returns the instant after the job's day in UTC, of several the latest; None without one."""
    kinds = {name: parameter.type for name, parameter in loaded.job.params.items()}
    days = [loaded.params[name] for name, kind in kinds.items() if kind == "date"]
    dates = [day for day in days if isinstance(day, date)]
    if not dates:
        return None
    last = min(max(dates), date.max - timedelta(days=1))
    start = datetime.combine(last, time(), timezone.utc)
    return (start + timedelta(days=1)).isoformat()
