"""OpenLineage events of a run: its job, inputs and outputs with their columns, and its facets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from batchscore import __version__
from batchscore.messages.addresses import redacted_address, redacted_text

if TYPE_CHECKING:
    from batchscore.plan import Plan

PRODUCER = f"https://pypi.org/project/batchscore/{__version__}"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_GLOB = re.compile(r"[*?\[]")
# Elsewhere a `?` is a wildcard.
_QUERY = re.compile(r"\?(?=[^=&/?*\[\]]+=)")
_SCHEMES = {"gcs": "gs", "s3a": "s3", "local": "file"}
_ENDS = {
    **dict.fromkeys(("published", "empty", "unchanged"), "COMPLETE"),
    **{"interrupted": "ABORT", "submitted": "RUNNING"},
}
_QUANTILES = {"p05": "0.05", "p50": "0.5", "p95": "0.95"}

Columns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LineageRun:
    """What the events of one run have in common.

    Args:
        id: The UUID of the run.
        namespace: Of the job.
        job: The job's name.
        params: The job's parameters, as text.
        parent: The run that started it, as `OPENLINEAGE_PARENT_ID` names it; may be empty.
    """

    id: str
    namespace: str
    job: str
    params: Mapping[str, str]
    parent: str = ""


@dataclass(frozen=True)
class DatasetFacts:
    """The datasets of a run, as far as they are known.

    Args:
        inputs: Addresses of the input.
        model: Address of the model.
        output: Address of the output.
        columns: Name and type of each input column that is read.
    """

    inputs: tuple[str, ...] = ()
    model: str = ""
    output: str = ""
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Moment:
    """What happened when: an event without its datasets.

    Args:
        kind: `START`, `COMPLETE`, `FAIL` and so on.
        at: When, in UTC.
        document: What `run --json` prints; empty at the start.
    """

    kind: str
    at: str
    document: Mapping[str, Any] = field(default_factory=dict)


def datasets_of(plan: Plan) -> DatasetFacts:
    """Returns the datasets of a plan."""
    job, source = plan.loaded.job, plan.spec.scoring.source
    return DatasetFacts(
        inputs=tuple(job.input.path),
        model=job.model.path,
        output=job.output.path,
        columns=tuple((each.name, str(each.type)) for each in source.schema),
    )


def start() -> Moment:
    """Returns the moment of a run's start."""
    return Moment("START", _now())


def end(document: Mapping[str, Any]) -> Moment:
    """Returns the moment of a run's end, by what `run --json` prints."""
    return Moment(_ENDS.get(str(document.get("status")), "FAIL"), _now(), document)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def event(run: LineageRun, datasets: DatasetFacts, moment: Moment) -> Any:
    """Returns an event as OpenLineage's client sends it."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import job_type_job, set_producer

    set_producer(PRODUCER)
    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="BATCHSCORE", jobType="JOB"
    )
    return RunEvent(
        eventType=RunState[moment.kind],
        eventTime=moment.at,
        run=Run(run.id, facets=_run_facets(run, moment)),
        job=Job(run.namespace, run.job, facets={"jobType": kind}),
        inputs=_inputs(datasets, moment.document),
        outputs=_outputs(datasets, moment.document),
        producer=PRODUCER,
    )


def _run_facets(run: LineageRun, moment: Moment) -> dict[str, Any]:
    from openlineage.client.facet_v2 import (
        error_message_run,
        nominal_time_run,
        processing_engine_run,
    )

    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=__version__, name="batchscore", openlineageAdapterVersion=__version__
        ),
        "batchscore_run": _own_facet(run, moment.document),
        **_parent(run.parent),
    }
    dates = [value for value in run.params.values() if _DATE.fullmatch(value)]
    if len(dates) == 1:
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(f"{dates[0]}T00:00:00Z")
    if moment.kind in ("FAIL", "ABORT") and (error := moment.document.get("error")):
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            redacted_text(str(error)), "Python"
        )
    return facets


def _parent(named: str) -> dict[str, Any]:
    """Returns the facet of a parent that is named as `NAMESPACE/JOB/UUID`; else none."""
    from openlineage.client.facet_v2 import parent_run

    namespace, _, rest = named.partition("/")
    job, _, run = rest.rpartition("/")
    if not (namespace and job and run):
        return {}
    facet = parent_run.ParentRunFacet(parent_run.Run(run), parent_run.Job(namespace, job))
    return {"parent": facet}


def _own_facet(run: LineageRun, document: Mapping[str, Any]) -> Any:
    """Returns what only batchscore knows: its own run, how it ended, rows and resources."""
    import attr
    from openlineage.client.facet_v2 import RunFacet

    @attr.define(kw_only=True)
    class BatchscoreRunFacet(RunFacet):  # type: ignore[misc,unused-ignore]
        run: str | None
        status: str | None
        slice: str | None
        params: dict[str, str]
        rows: dict[str, int] | None
        seconds: float | None
        usage: dict[str, Any] | None
        drift: str | None

        @staticmethod
        def _get_schema() -> str:
            return f"{PRODUCER}#/$defs/BatchscoreRunFacet"

    return BatchscoreRunFacet(
        run=document.get("run"),
        status=document.get("status"),
        slice=document.get("slice"),
        params=dict(run.params),
        rows=document.get("rows"),
        seconds=document.get("seconds"),
        usage=document.get("usage"),
        drift=(document.get("drift") or {}).get("verdict"),
    )


def _inputs(datasets: DatasetFacts, document: Mapping[str, Any]) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    alone = len(datasets.inputs) == 1
    found = [
        InputDataset(
            *dataset_name(address),
            facets=_schema(datasets.columns),
            inputFacets=_quality(datasets.columns, document) if alone else {},
        )
        for address in datasets.inputs
    ]
    identity = (document.get("model") or {}).get("identity")
    if datasets.model:
        version = dataset_version_dataset.DatasetVersionDatasetFacet(str(identity))
        versioned: dict[str, Any] = {"version": version} if identity else {}
        found.append(InputDataset(*dataset_name(datasets.model), facets=versioned))
    return found


def _quality(columns: Columns, document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns row counts, nulls and checks of the input, of what the run came to."""
    from openlineage.client.facet_v2 import (
        data_quality_assertions_dataset as assertions,
    )
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as quality
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    rows, inputs = document.get("rows"), document.get("inputs") or ()
    if rows is None:
        return {}
    size = sum(int(each["size"]) for each in inputs)
    known = document.get("profile") or {}
    metrics = {name: _column_metrics(known[name]) for name, _ in columns if name in known}
    checks = [
        assertions.Assertion(assertion=str(each["name"]), success=bool(each["passed"]))
        for each in document.get("checks") or ()
    ]
    return {
        "inputStatistics": statistics.InputStatisticsInputDatasetFacet(
            rowCount=rows["input"], size=size, fileCount=len(inputs)
        ),
        "dataQualityMetrics": quality.DataQualityMetricsInputDatasetFacet(
            columnMetrics=metrics, rowCount=rows["input"], bytes=size, fileCount=len(inputs)
        ),
        **(
            {"dataQualityAssertions": assertions.DataQualityAssertionsDatasetFacet(checks)}
            if checks
            else {}
        ),
    }


def _column_metrics(column: Mapping[str, Any]) -> Any:
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as quality

    numbers = {
        key: float(column[key])
        for key in ("min", "max", *_QUANTILES)
        if isinstance(column.get(key), int | float)
    }
    return quality.ColumnMetrics(
        nullCount=int(column.get("nulls", 0)) + int(column.get("nan") or 0),
        count=float(column.get("count", 0)),
        min=numbers.get("min"),
        max=numbers.get("max"),
        quantiles={_QUANTILES[key]: numbers[key] for key in _QUANTILES if key in numbers},
    )


def _outputs(datasets: DatasetFacts, document: Mapping[str, Any]) -> list[Any]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    if not datasets.output:
        return []
    columns = [(str(name), str(kind)) for name, kind in document.get("columns") or ()]
    files, published = document.get("files") or (), _ENDS.get(str(document.get("status")))
    facets, made = _schema(columns), dict[str, Any]()
    if published == "COMPLETE":
        size = sum(int(each["bytes"]) for each in files)
        scored = (document.get("rows") or {}).get("scored", 0)
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            str(document.get("run"))
        )
        made["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(
            rowCount=scored, size=size, fileCount=len(files)
        )
    namespace, name = dataset_name(datasets.output)
    return [OutputDataset(namespace, f"{name.rstrip('/')}/data", facets=facets, outputFacets=made)]


def _schema(columns: Columns) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset

    if not columns:
        return {}
    fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in columns]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields)}


def dataset_name(address: str) -> tuple[str, str]:
    """Returns namespace and name of a dataset, as OpenLineage names those of its kind.

    A glob is named by the folder that it starts from. No user, query or fragment is in a name.
    """
    scheme, separator, rest = redacted_address(address).partition("://")
    if not separator:
        return "file", _fixed(address)
    host, _, path = rest.partition("/")
    path = _fixed(_QUERY.split(path, maxsplit=1)[0].partition("#")[0])
    kind = _SCHEMES.get(scheme.lower(), scheme.lower())
    if not host or kind == "file":
        return "file", f"/{path.strip('/')}"
    return f"{kind}://{host.rpartition('@')[2]}", path.strip("/") or "/"


def _fixed(path: str) -> str:
    """Returns the folder that a glob starts from; another path as it is."""
    fixed = _GLOB.split(path, maxsplit=1)[0]
    return path if fixed == path else fixed.rpartition("/")[0]
