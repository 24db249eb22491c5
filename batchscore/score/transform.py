"""`bs.Score`: a job as a transform of other people's pipelines.

batches, rows or dictionaries ─► Score ─► scored
                                     └──► rejected
"""

from __future__ import annotations

# In full, before the rest of the package takes what runs of its own need: others need more.
import apache_beam as beam  # isort: skip

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import DoOutputsTuple, PCollection, Row, TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from batchscore.api import override_texts, parameter_texts
from batchscore.arguments import checks_fields
from batchscore.errors import InvalidError
from batchscore.job import LoadedJob, load_embedded
from batchscore.job.text import absolute_address
from batchscore.messages.addresses import holds_secret
from batchscore.messages.wording import reason
from batchscore.plan import Plan
from batchscore.plan.shipping import pack, send
from batchscore.score.coder import register
from batchscore.score.elementwise import element_spec, plan_elements
from batchscore.score.python_rows import Fields, fields_of, score_rows
from batchscore.score.row_types import outcome_types, require_free, require_types, schema_of
from batchscore.score.scorer import Outcome, scorer_of
from batchscore.worker.spec import ElementSpec, Shipment
from batchscore.worker.versions import Sealed

SCORED, REJECTED = "scored", "rejected"
_NAMESPACE = "batchscore"
_ROWS = 8_192
"""Dictionaries or rows that are scored at a time; of a smaller bundle all."""

register()


@checks_fields
class Score(beam.PTransform[Any, Any]):
    """Scores the elements of a pipeline with a job: record batches, tables, rows or dictionaries.

    All that can fail before a worker starts fails here: the job, its model and its functions are
    loaded, golden rows are scored, and it is tried whether each score depends on its row alone.

    Args:
        job: Path or address of a job file, or the content of one as a dict. It needs `model` alone.
            `input.filters`, `output.columns` and the checks of single rows apply; input and
            output paths, and what only a run does, are ignored.
        params: A value for each parameter that the job declares.
        overrides: Other values for keys of the job, by dotted key.
        schema: Types of columns, which elements are cast to. Dictionaries and untyped rows need
            it; by default batches have their own types.
        sample: Some rows like those of the elements. It is tried on them whether each score depends
            on its row alone; by default on the model's golden rows, which the job's own
            `preprocess.function` does not see.
        ship_to: Address of a folder that launcher and workers reach. Workers fetch the job's code
            and a model on the launcher's disk from there. By default they see what the launcher
            sees.
        threads: Tiles that a worker's process computes at the same time; more than 1 where a
            process has several cores to itself.

    Raises:
        InvalidError: The job, its model, a function, the device, the sample or an argument is
            wrong.
    """

    def __init__(
        self,
        job: str | os.PathLike[str] | Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        overrides: Mapping[str, Any] | None = None,
        schema: pa.Schema | None = None,
        sample: pa.Table | pa.RecordBatch | None = None,
        ship_to: str | os.PathLike[str] | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__()
        if threads < 1:
            raise InvalidError(f"bs.Score, argument threads: expected 1 or more, found {threads}")
        given = job if isinstance(job, Mapping) else os.fspath(job)
        loaded = load_embedded(given, parameter_texts(params), override_texts(overrides))
        _note_ignored(loaded)
        place = "" if ship_to is None else _address(os.fspath(ship_to))
        rows = None if sample is None else _one_batch(sample)
        self._declared = pa.schema([]) if schema is None else schema
        self._planned = plan_elements(loaded, self._declared, rows, place, threads)
        self._ships = bool(place)

    def expand(self, pcoll: PCollection[Any]) -> DoOutputsTuple:
        """Returns what is scored, and what is rejected; stores what workers fetch.

        Raises:
            InvalidError: The elements are not what can be scored, or lack what the job needs.
        """
        element = pcoll.element_type
        declared = self._declared if self._declared.names else schema_of(element)
        if not self._declared.names:
            require_types(element, declared, self._planned)
        require_free(element, self._planned)
        spec = element_spec(self._planned, declared)
        if self._ships:
            spec = replace(spec, shipment=_shipped(self._planned.plan))
        made: DoOutputsTuple = pcoll | "Score" >> beam.ParDo(ScoreElements(spec)).with_outputs(
            REJECTED, main=SCORED
        )
        kinds = outcome_types(element, self._planned)
        for tag, kind in zip((SCORED, REJECTED), kinds, strict=True):
            made[tag].element_type = kind
        return made


@dataclass(frozen=True)
class _Waiting:
    """A row that waits for others: its fields, and where in the pipeline it is."""

    fields: Fields
    is_mapping: bool
    timestamp: Any
    window: Any
    pane: Any


class ScoreElements(Sealed, beam.DoFn):
    """Batches as they come, and rows and dictionaries some thousand at a time, to outcomes."""

    _spec: ElementSpec

    def __init__(self, spec: ElementSpec) -> None:
        self._spec = spec

    def setup(self) -> None:
        """Loads the model, unless another thread of this process has."""
        self._scorer = scorer_of(self._spec)
        self._waiting: list[_Waiting] = []
        self._read, self._filtered, self._scored, self._rejected = (
            Metrics.counter(_NAMESPACE, f"rows_{what}")
            for what in ("read", "filtered", "scored", "rejected")
        )

    def start_bundle(self) -> None:
        """Forgets rows of a bundle that failed."""
        self._waiting = []

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterable[Any]:
        """Returns the outcomes of a batch, or of the rows that waited, if they are enough."""
        if isinstance(element, pa.RecordBatch | pa.Table):
            return self._score_batches(element)
        fields, is_mapping = fields_of(element), isinstance(element, Mapping)
        self._waiting.append(_Waiting(fields, is_mapping, timestamp, window, pane))
        return self._score_waiting() if len(self._waiting) >= _ROWS else ()

    def finish_bundle(self) -> Iterable[Any]:
        """Returns the outcomes of the bundle's last rows."""
        return self._score_waiting()

    def _score_batches(self, element: pa.RecordBatch | pa.Table) -> Iterator[Any]:
        for batch in _batches(element):
            for outcome in self._scorer.outcomes(batch):
                self._count(outcome)
                if outcome.scored is not None:
                    yield outcome.scored
                if (rejected := outcome.rejected) is not None:
                    yield TaggedOutput(REJECTED, rejected)

    def _score_waiting(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        rows = [each.fields for each in waiting]
        for outcome, scored, rejected in score_rows(rows, self._scorer) if rows else ():
            self._count(outcome)
            for place, fields in scored.items():
                yield _as_given(fields, waiting[place])
            for place, fields in rejected.items():
                yield TaggedOutput(REJECTED, _as_given(fields, waiting[place]))

    def _count(self, outcome: Outcome) -> None:
        self._read.inc(outcome.read)
        self._filtered.inc(outcome.filtered)
        self._scored.inc(outcome.read - outcome.filtered - outcome.rejected_rows)
        self._rejected.inc(outcome.rejected_rows)


def _as_given(fields: Fields, row: _Waiting) -> WindowedValue:
    """Returns fields as what they were given as, at the time and in the window of their row."""
    made = dict(fields) if row.is_mapping else Row(**fields)
    return WindowedValue(made, row.timestamp, (row.window,), row.pane)


def _batches(element: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    if not element.num_columns:
        # A table's rows are none of a batch without columns, and would be lost.
        return [pa.RecordBatch.from_arrays([], names=[])]
    return [element] if isinstance(element, pa.RecordBatch) else _joined(element).to_batches()


def _joined(table: pa.Table) -> pa.Table:
    """Returns a table of one chunk; as values what is of dictionaries too large for their type."""
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid:
        for place, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                values = table.column(place).cast(field.type.value_type)
                table = table.set_column(place, field.name, values)
        return table.combine_chunks()


def _one_batch(sample: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    found = _batches(sample)
    if not found or not found[0].num_rows:
        raise InvalidError("bs.Score, argument sample: has no rows; give some rows to score")
    return found[0]


def _note_ignored(loaded: LoadedJob) -> None:
    if loaded.source:
        logging.getLogger(__name__).info(
            "bs.Score ignores what of %s only a run does: paths of input and output, partitions, "
            "drift, notify, limits of rejects, and checks of rows, unique and fresh",
            loaded.source,
        )


def _shipped(plan: Plan) -> Shipment:
    """Stores what workers fetch, and returns it; InvalidError where that cannot be."""
    shipment, address = pack(plan), plan.spec.output.address
    try:
        send(plan, shipment)
    except OSError as error:
        raise InvalidError(
            f"bs.Score, argument ship_to: {address} cannot be written ({reason(error)}); give a "
            "folder or a bucket that launcher and workers reach"
        ) from error
    return shipment


def _address(folder: str) -> str:
    """Returns an absolute address; InvalidError for one that no other process reaches."""
    if not folder:
        raise InvalidError("bs.Score, argument ship_to: is empty; give a folder or a bucket")
    if folder.startswith("memory:"):
        raise InvalidError(
            f"bs.Score, argument ship_to: {folder} is the memory of this process, which workers do "
            "not see; give a folder or a bucket that both reach"
        )
    if holds_secret(folder):
        raise InvalidError(
            "bs.Score, argument ship_to: holds a user, password or key, or a query that may be "
            "one, which the pipeline's graph would show; give it in the environment, or in "
            "fsspec's own configuration files"
        )
    return absolute_address(folder, os.getcwd())
