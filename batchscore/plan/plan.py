"""Everything that can fail before a worker starts: a job to a run's units, schema and model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchscore import __version__
from batchscore.errors import InputError, OutputError, RetryError
from batchscore.job import LoadedJob, Preprocess, UserFunction
from batchscore.models.load import describe_device, load_network, resolve_device
from batchscore.plan.inputs import (
    Footer,
    filter_condition,
    find_shards,
    keep_row_groups,
    read_footers,
    suggest,
    unify_schemas,
)
from batchscore.plan.model import model_inputs, resolve_model
from batchscore.runs import layout
from batchscore.scoring import load_call, postprocess_step, preprocess_step
from batchscore.spec import RunSpec
from batchscore.stages.infer import DEFAULT_OUTPUT, TILE_ROWS
from batchscore.stages.postprocess import output_names
from batchscore.stages.read import Source
from batchscore.stages.write import MODEL_VERSION, Target
from batchscore.storage import Store, is_local, open_filesystem
from batchscore.units import Shard, Unit, pack_units

UNIT_ROWS = 1_000_000
MANY_ROWS = 4_000_000
BLOCK_BYTES = 16 << 20
BLOCK_ROWS = (TILE_ROWS, 65_536)
_PACKAGES = ("apache-beam", "pyarrow", "numpy", "pandas", "torch", "safetensors")


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
    """Plans a run of a job.

    Raises:
        InvalidError: something is wrong with the job, its input, model, functions or output.
        RetryError: the input is not ready.
    """
    job = loaded.job
    output = Store(job.output.path)
    check_apart(job.output.path, job.input.path)
    check_writable(output)
    check_ready(job.input.ready, job.input.path)
    footers = _read_input(loaded)
    model = resolve_model(job.model, loaded.base)
    schema = _schema(loaded, footers, model.features is not None, model)
    pieces = keep_row_groups(footers, schema, _filters(loaded)) if footers else []
    units = tuple(pack_units(pieces, UNIT_ROWS))
    workers, why_workers = _workers(job.runtime.workers, units, output)
    batch_rows, why_rows = _batch_rows(job.runtime.batch_rows, footers, schema)
    device = resolve_device(job.runtime.device)
    spec = RunSpec(
        run="",
        slice=layout.slice_id(job.name, loaded.params),
        base=loaded.base,
        output=output,
        source=Source(schema, _filters(loaded), batch_rows, threads=workers == 1),
        model=model,
        inputs=model_inputs(job, model, schema, footers),
        preprocess=job.preprocess,
        postprocess=job.postprocess,
        target=_target(loaded, schema, model.version),
        device=device,
        tile_threads=max(1, _cores() // workers),
        max_reject_ratio=job.rejects.max_ratio,
        allow_empty=job.input.allow_empty,
    )
    _check_steps(spec)
    return Plan(
        loaded=loaded,
        spec=spec,
        units=units,
        shards=tuple(footer.shard for footer in footers),
        pruned_rows=sum(f.shard.rows for f in footers) - sum(p.rows for p in pieces),
        input_bytes=sum(footer.shard.size for footer in footers),
        workers=workers,
        choices={
            "device": f"{describe_device(device)}, asked for {job.runtime.device}",
            "workers": why_workers,
            "batch_rows": why_rows,
        },
        fingerprint=_fingerprint(loaded, spec, units),
    )


def check_apart(output: str, inputs: Iterable[str]) -> None:
    """Raises OutputError when an output and an input lie within one another."""
    target = open_filesystem(output)[1]
    for address in inputs:
        source = open_filesystem(address)[1].split("*")[0].rstrip("/")
        for inner, outer in ((target, source), (source, target)):
            if inner == outer or inner.startswith(f"{outer}/"):
                raise OutputError(
                    f"output.path {output}: lies within input.path {address}, or the other way "
                    "round, so that a run would read what it wrote; choose another folder"
                )


def check_writable(output: Store) -> None:
    """Raises OutputError for an output that is not batchscore's, or cannot be written to."""
    try:
        layout.check_output(output)
    except OSError as error:
        raise OutputError(f"output {output.address}: cannot be read ({error})") from error
    if not output.is_local:
        return
    folder = Path(output.path(""))
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    if not existing.is_dir():
        raise OutputError(f"output {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {folder}: no permission to write in {existing}; "
            "grant it, or choose another folder"
        )


def check_ready(marker: str | None, inputs: Sequence[str]) -> None:
    """Raises RetryError when the input's marker is not there yet."""
    if marker is None:
        return
    address = marker
    if "://" not in marker and not marker.startswith("/"):
        folder = inputs[0].split("*")[0].rstrip("/")
        filesystem, path = open_filesystem(folder)
        at = folder if filesystem.isdir(path) else posixpath.dirname(folder)
        address = posixpath.join(at, marker)
    filesystem, path = open_filesystem(address)
    if not filesystem.exists(path):
        raise RetryError(
            f"input.ready {address}: is not there yet; run again once the input is complete"
        )


def _read_input(loaded: LoadedJob) -> list[Footer]:
    found = find_shards(loaded.job.input.path)
    if not found and not loaded.job.input.allow_empty:
        raise InputError(
            f"input.path {', '.join(loaded.job.input.path)}: no shard is there; correct the path, "
            "or set input.allow_empty: true where nothing to score is a result"
        )
    return read_footers(found)


def _filters(loaded: LoadedJob) -> list[list[tuple[Any, ...]]] | None:
    groups = loaded.job.input.filters
    return [
        [(c, op, list(v) if isinstance(v, tuple) else v) for c, op, v in g] for g in groups
    ] or None


def _schema(loaded: LoadedJob, footers: list[Footer], has_features: bool, model: Any) -> pa.Schema:
    """The columns to read: all, or those that something needs."""
    if not footers:
        return pa.schema([])
    job = loaded.job
    if job.preprocess is not None:
        scored: Sequence[str] | None = job.preprocess.columns
    else:
        scored = [column for each in model.inputs for column in each.columns]
    groups: dict[str, Sequence[str] | None] = {
        "output.columns": job.output.columns,
        "preprocess.columns" if job.preprocess else "the model": scored,
        "output.partition_by": job.output.partition_by,
        "input.filters": [c for group in job.input.filters for c, _, _ in group],
    }
    for key, names in groups.items():
        _check_known(key, names or (), footers[0])
    every = any(names is None for names in groups.values())
    wanted = None if every else [name for names in groups.values() for name in names or ()]
    schema = unify_schemas(footers, wanted)
    if job.input.filters:
        filter_condition(_filters(loaded), schema)
    return schema


def _check_known(key: str, names: Iterable[str], footer: Footer) -> None:
    for name in names:
        if name not in footer.schema.names:
            raise InputError(
                f"{key}: column {name!r} is not in shard {footer.shard.path}; "
                f"{suggest(name, footer.schema.names)}"
            )


def _target(loaded: LoadedJob, schema: pa.Schema, version: str) -> Target:
    output = loaded.job.output
    kept = schema.names if output.columns is None else output.columns
    for name in output.partition_by:
        if schema.names and not _partitions(schema.field(name).type):
            raise OutputError(
                f"output.partition_by: column {name!r} is {schema.field(name).type}; expected "
                "whole numbers, strings, booleans, dates or timestamps"
            )
    columns = tuple(dict.fromkeys([*kept, *output.partition_by])) if schema.names else ()
    return Target(columns, tuple(output.partition_by), version)


def _partitions(kind: pa.DataType) -> bool:
    types = pa.types
    families = (types.is_integer, types.is_string, types.is_large_string, types.is_boolean)
    return any(family(kind) for family in (*families, types.is_date, types.is_timestamp))


def _check_steps(spec: RunSpec) -> None:
    """Loads the model and all functions once, here, where an error costs nothing."""
    load_network(spec.model, "cpu")
    preprocess_step(spec)
    postprocess_step(spec)
    names = [output.name for output in spec.model.outputs] or [DEFAULT_OUTPUT]
    scores = output_names(names, spec.postprocess)
    clashes = sorted({*(scores or ()), MODEL_VERSION} & set(spec.target.columns))
    if clashes:
        raise OutputError(
            f"output.columns: {clashes[0]!r} is the name of a score, too; rename the score in "
            "postprocess (name: …), or leave the column out of output.columns"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(asked: int | str, units: Sequence[Unit], output: Store) -> tuple[int, str]:
    if output.address.startswith("memory:"):
        if isinstance(asked, int) and asked > 1:
            raise OutputError(
                f"output.path {output.address}: memory is not shared by {asked} processes; "
                "set runtime.workers: 1"
            )
        return 1, "1, since the output is this process's memory"
    if isinstance(asked, int):
        return asked, f"{asked}, as asked for"
    rows = sum(unit.rows for unit in units)
    if rows < MANY_ROWS:
        return 1, f"1, since {rows:,} rows are soon done"
    count = min(_cores(), len(units))
    return count, f"{count}, for {_cores()} cores and {len(units)} units"


def _batch_rows(asked: int | str, footers: Sequence[Footer], schema: pa.Schema) -> tuple[int, str]:
    if isinstance(asked, int):
        return asked, f"{asked:,}, as asked for"
    rows = sum(footer.shard.rows for footer in footers)
    width = sum(footer.bytes for footer in footers) / rows if rows else 0.0
    share = len(schema) / max(1, len(footers[0].schema)) if footers else 0.0
    row_bytes = max(1.0, width * share)
    fitting = int(BLOCK_BYTES / row_bytes) // TILE_ROWS * TILE_ROWS
    chosen = min(max(fitting, BLOCK_ROWS[0]), BLOCK_ROWS[1])
    return chosen, f"{chosen:,}, for about {row_bytes:,.0f} bytes a row"


def _fingerprint(loaded: LoadedJob, spec: RunSpec, units: Sequence[Unit]) -> str:
    job = loaded.job
    sections = job.model_dump(mode="json", include={"preprocess", "postprocess"})
    facts = {
        "version": __version__,
        "model": spec.model.identity,
        "sections": sections,
        "filters": str(_filters(loaded)),
        "code": _code_hashes(loaded),
        "schema": str(spec.source.schema),
        "columns": [spec.target.columns, spec.target.partition_by],
        "max_ratio": job.rejects.max_ratio,
        "units": [unit.id for unit in units],
    }
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _code_hashes(loaded: LoadedJob) -> dict[str, str]:
    """Every Python file beside the job file, if the job calls one: they may import each other."""
    job = loaded.job
    steps = (job.preprocess, *job.postprocess)
    calls = [step for step in steps if isinstance(step, (Preprocess, UserFunction))]
    if not calls or not is_local(loaded.base):
        return {}
    files = {load_call(call, loaded.base).reference.partition(":")[0] for call in calls}
    base = Path(loaded.base)
    paths = sorted({*(base / file for file in files), *base.glob("*.py")})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


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


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that scores depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"batchscore": __version__, "python": platform.python_version(), **found}
