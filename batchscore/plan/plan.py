"""Everything that can fail before a worker starts: a job to a run's units, schema and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchscore.job import LoadedJob
from batchscore.models.folder import Model
from batchscore.plan.auto import choose_batch_rows, choose_workers, count_cores
from batchscore.plan.columns import read_filters, read_schema, written_columns
from batchscore.plan.fingerprint import fingerprint, package_versions
from batchscore.plan.inputs import Footer, find_shards, keep_row_groups, read_footers
from batchscore.plan.model import model_inputs, resolve_model
from batchscore.plan.places import check_apart, check_ready, check_unpublished, check_writable
from batchscore.runs import layout
from batchscore.spec import RunSpec
from batchscore.stages.block import TILE_ROWS
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.storage import Store
from batchscore.units import Shard, Unit, pack_units

UNIT_ROWS = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What a run would do; nothing of it was written anywhere.

    Args:
        loaded: the job.
        spec: what workers are told; its run's name is still empty.
        units: what is to be scored.
        shards: all of the input.
        pruned_rows: rows of row groups that the filter excludes by their statistics.
        input_bytes: size of all shards.
        workers: processes.
        choices: what `auto` came to, and why, by key of the job file.
        fingerprint: changes whenever the published rows could.
    """

    loaded: LoadedJob
    spec: RunSpec
    units: tuple[Unit, ...]
    shards: tuple[Shard, ...]
    pruned_rows: int
    input_bytes: int
    workers: int
    choices: dict[str, str]
    fingerprint: str

    @property
    def unit_rows(self) -> int:
        """Rows that the units read."""
        return sum(unit.rows for unit in self.units)


def make_plan(loaded: LoadedJob) -> Plan:
    """Plans a run of a job, without torch: `verify` tries model, device and functions.

    Raises:
        InvalidError: something is wrong with the job, its input, model or output.
        RetryError: the input is not ready.
    """
    job = loaded.job
    check_apart(job.output.path, job.input.path)
    check_writable(Store(job.output.path))
    check_ready(job.input.ready, job.input.path)
    footers = _read_input(loaded)
    model = resolve_model(job.model, loaded.base)
    schema = read_schema(job, footers, model)
    pieces = keep_row_groups(footers, schema, read_filters(job)) if footers else []
    units = tuple(pack_units(pieces, UNIT_ROWS))
    addresses = [job.output.path, job.model.path, *job.input.path]
    workers, why_workers = choose_workers(job.runtime.workers, units, addresses)
    batch_rows, why_rows = choose_batch_rows(job.runtime.batch_rows, footers, schema)
    source = Source(schema, read_filters(job), batch_rows, threads=workers == 1)
    inputs = model_inputs(job, model, schema, footers)
    spec = _make_spec(loaded, source, model, inputs, max(1, count_cores() // workers))
    return Plan(
        loaded=loaded,
        spec=spec,
        units=units,
        shards=tuple(footer.shard for footer in footers),
        pruned_rows=sum(f.shard.rows for f in footers) - sum(p.rows for p in pieces),
        input_bytes=sum(footer.shard.size for footer in footers),
        workers=workers,
        choices={"workers": why_workers, "batch_rows": why_rows},
        fingerprint=fingerprint(loaded, spec, units),
    )


def _make_spec(
    loaded: LoadedJob,
    source: Source,
    model: Model,
    inputs: tuple[InputColumns, ...],
    tile_threads: int,
) -> RunSpec:
    job = loaded.job
    return RunSpec(
        run="",
        slice=layout.slice_id(job.name, loaded.params),
        base=loaded.base,
        output=Store(job.output.path),
        source=source,
        model=model,
        inputs=inputs,
        preprocess=job.preprocess,
        postprocess=job.postprocess,
        target=written_columns(job, source.schema, model.version),
        device=job.runtime.device,
        tile_threads=tile_threads,
        max_reject_ratio=job.rejects.max_ratio,
        allow_empty=job.input.allow_empty,
    )


def _read_input(loaded: LoadedJob) -> list[Footer]:
    found = find_shards(loaded.job.input.path, loaded.job.input.allow_empty)
    check_unpublished(loaded.job.output.path, (shard.path for shard in found))
    return read_footers(found)


def plan_facts(plan: Plan, started: str) -> dict[str, Any]:
    """Returns what the last step of a run needs of its plan, JSON-able."""
    job, spec = plan.loaded.job, plan.spec
    facts = {
        "job": job.name,
        "slice": spec.slice,
        "params": {name: str(value) for name, value in plan.loaded.params.items()},
        "engine": job.runtime.engine,
        "device": plan.choices["device"],
        "workers": plan.workers,
        "batch_rows": spec.source.batch_rows,
        "tile_rows": TILE_ROWS,
        "started": started,
        "job_sha256": plan.loaded.text_sha256,
        "fingerprint": plan.fingerprint,
        "model": {
            "name": spec.model.name,
            "version": spec.model.version,
            "identity": spec.model.identity,
            "sha256": dict(spec.model.sha256),
        },
        "packages": package_versions(),
    }
    shards = [{"path": s.path, "size": s.size, "mark": s.mark, "rows": s.rows} for s in plan.shards]
    return {
        "facts": facts,
        "units": {unit.id: unit.rows for unit in plan.units},
        "pruned_rows": plan.pruned_rows,
        "inputs": shards,
    }
