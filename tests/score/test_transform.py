"""`bs.Score` in pipelines of other people, on Beam's direct runner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from apache_beam.coders.typecoders import registry
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import Row
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.windowed_value import PANE_INFO_UNKNOWN

import batchscore as bs
from tests import factory
from tests.conftest import ROOT, Published
from tests.score.pipelines import Keep, kept, kept_in_time, kept_table

pytestmark = pytest.mark.slow

FLIGHTS = ROOT / "jobs/flight_delays/job.yaml"
MONTH = 7
SCHEMA = pa.schema([("a", pa.float32()), ("b", pa.float64())])
REASONS = ["_stage", "_error", "_message", "_detail"]


class Trip(NamedTuple):
    """A row of the small job."""

    id: int
    a: float
    b: float


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of a small model."""
    return factory.write_job(tmp_path_factory.mktemp("job"))


def pipeline() -> beam.Pipeline:
    """Returns a pipeline in this process."""
    return beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))


def month_of_flights() -> pa.Table:
    """Returns a month of the flights, with the month as a column."""
    (folder,) = (ROOT / "data/samples/flights").glob(f"month={MONTH}")
    rows = ds.dataset(folder).to_table()
    return rows.append_column("month", pa.array([MONTH] * len(rows), pa.int32()))


def run(elements: Sequence[Any], folder: Path, score: bs.Score) -> dict[str, int]:
    """Scores elements, keeps what is scored and what is rejected, and returns Beam's counters."""
    with pipeline() as p:
        scored, rejected = p | beam.Create(elements) | score
        scored | "Keep scored" >> Keep(folder / "scored")
        rejected | "Keep rejected" >> Keep(folder / "rejected")
    counters = p.result.metrics().query()["counters"]
    ours = [each for each in counters if each.key.metric.namespace == "batchscore"]
    return {each.key.metric.name: each.committed for each in ours}


def test_scores_are_those_that_a_run_publishes(flights: Published, tmp_path: Path) -> None:
    """To the bit, with names and types, in batches of any size, and from a large table."""
    rows = month_of_flights()
    sizes = [1, 0, 7, 1_023, 1_025, 5_000]
    cuts = np.cumsum([0, *sizes])
    parts = [rows[a:b].combine_chunks() for a, b in pairwise(cuts)]
    batches = [batch for part in parts for batch in part.to_batches()]
    empty = rows.schema.empty_table().to_batches(max_chunksize=1)
    found = run([*batches, *empty, rows[cuts[-1] :]], tmp_path, bs.Score(FLIGHTS))
    made = kept_table(tmp_path / "scored")
    published = ds.dataset(flights.data, partitioning="hive").to_table()
    published = published.filter(ds.field("month") == MONTH)
    keys = [(name, "ascending") for name in ("day", "carrier", "flight", "origin", "score")]
    assert made.select(published.schema.names).sort_by(keys).equals(published.sort_by(keys))
    assert made.schema.names[-3:] == ["month", "score", "model_version"]
    assert kept(tmp_path / "rejected") == []
    counts = {"rows_read": len(rows), "rows_scored": len(rows)}
    assert found == {**counts, "rows_filtered": 0, "rows_rejected": 0}


def test_each_row_has_one_outcome(job: Path, tmp_path: Path) -> None:
    """Scored, filtered or rejected with a reason, and Beam counts them."""
    batch = factory.make_batch(
        id=pa.array(range(6)),
        a=pa.array([0.5, None, 1.0, float("nan"), 2.0, 3.0], pa.float32()),
        b=pa.array([1.0] * 6),
        part=["p", "p", "gone", "p", None, "q"],
    )
    overrides = {
        "input.filters": [[["part", "!=", "gone"]], [["part", "not in", ["gone"]]]],
        "checks.not_null": ["part"],
        "checks.score_range": [0, 0.75],
        "output.columns": ["id"],
    }
    found = run([batch], tmp_path, bs.Score(job, overrides=overrides))
    assert kept_table(tmp_path / "scored").column("id").to_pylist() == [0]
    rejected = kept_table(tmp_path / "rejected")
    assert rejected.schema.names[:4] == REASONS
    reasons = zip(*(rejected.column(name).to_pylist() for name in ("id", *REASONS)), strict=True)
    assert sorted(reasons) == [
        (1, "preprocess", "InvalidInput", "column 'a' is null", NULL),
        (3, "infer", "NonFiniteScore", "the model returned NaN or infinity", NAN),
        (4, "checks", "Null", "checks.not_null: column 'part' is null", None),
        (5, "checks", "OutOfRange", RANGE, HIGH),
    ]
    assert found == {"rows_read": 6, "rows_filtered": 1, "rows_scored": 1, "rows_rejected": 4}


NULL = "column 'a': null, expected a number (float32)"
NAN = "output 'logit': nan, expected a finite number; the model was given nan for column 'a'"
RANGE = "checks.score_range: score 'score' is not from 0 to 0.75"
HIGH = "found 0.7981868"


@pytest.mark.parametrize("kind", [dict, Row, Trip])
def test_rows_and_dictionaries_come_back_as_they_came(kind: Any, job: Path, tmp_path: Path) -> None:
    """Each with its own fields, its score, its time and its window; others are rejected."""
    rows = [{"id": i, "a": float(np.sin(i)), "b": float(np.cos(i))} for i in range(20)]
    rows.append({"id": 20, "a": float("nan"), "b": 0.0})
    with pipeline() as p:
        given = (
            p
            | beam.Create(rows)
            | "Time" >> beam.Map(lambda row: TimestampedValue(kind(**row), row["id"]))
            | "Windows" >> beam.WindowInto(FixedWindows(10))
        )
        if kind is Trip:
            given = given | beam.Map(lambda row: row).with_output_types(Trip)
        scored, rejected = given | bs.Score(job, schema=None if kind is Trip else SCHEMA)
        scored | "Keep scored" >> Keep(tmp_path / "scored")
        rejected | "Keep rejected" >> Keep(tmp_path / "rejected")
    found = sorted(kept_in_time(tmp_path / "scored"), key=lambda each: each[1])
    expected = _scores([row["a"] for row in rows[:20]], [row["b"] for row in rows[:20]])
    for row, score, (element, time, end) in zip(rows, expected, found, strict=False):
        fields = element if kind is dict else element._asdict()
        approximately = pytest.approx(score, abs=1e-6)
        assert fields == {**row, "score": approximately, "model_version": "1.0"}
        assert (time, end // 10) == (row["id"], row["id"] // 10)
    ((element, time, _),) = kept_in_time(tmp_path / "rejected")
    fields = element if kind is dict else element._asdict()
    assert (fields["id"], fields["_error"], time) == (20, "NonFiniteScore", 20)
    assert len(found) == 20


def _scores(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Returns the small model's scores, by NumPy."""
    x = np.stack([np.asarray(a, np.float32), np.asarray(b, np.float32)], 1)
    logits = x @ np.array([0.5, -0.25], np.float32) + np.float32(0.125)
    return [float(each) for each in 1 / (1 + np.exp(-logits.astype(np.float32)))]


def test_a_pipeline_is_read_back_from_its_graph(job: Path, tmp_path: Path) -> None:
    """As some runners do with it before they run it."""
    p = pipeline()
    scored, _ = p | beam.Create(factory.make_rows(5).to_batches()) | bs.Score(job)
    scored | Keep(tmp_path / "scored")
    graph = p.to_runner_api()
    beam.Pipeline.from_runner_api(graph, p.runner, PipelineOptions([])).run()
    assert len(kept_table(tmp_path / "scored")) == 5


def test_rows_keep_the_pane_that_they_came_in(job: Path, tmp_path: Path) -> None:
    """Which tells a step that writes each pane the first firing of a window from later ones."""
    with pipeline() as p:
        rows = (
            p
            | beam.Create([("key", {"a": 0.5, "b": 1.0})])
            | beam.WindowInto(FixedWindows(10))
            | beam.GroupByKey()
            | beam.FlatMap(lambda pair: pair[1])
        )
        panes = beam.Map(lambda _, pane=beam.DoFn.PaneInfoParam: str(pane))
        rows | "Before" >> panes | Keep(tmp_path / "before")
        scored, _ = rows | bs.Score(job, schema=SCHEMA)
        scored | "After" >> panes | "Keep after" >> Keep(tmp_path / "after")
    assert kept(tmp_path / "after") == kept(tmp_path / "before") != [str(PANE_INFO_UNKNOWN)]


def test_chunks_with_dictionaries_of_their_own_are_joined(job: Path, tmp_path: Path) -> None:
    """Also where all their values together are too many for the type of the indices."""
    ids = pa.array([0, 1, 0], pa.int8())
    parts = [pa.DictionaryArray.from_arrays(ids, [f"a{i}", f"b{i}"]) for i in range(100)]
    rows = factory.make_rows(3)
    table = pa.concat_tables([rows.set_column(3, "part", part) for part in parts])
    run([table], tmp_path, bs.Score(job))
    assert kept_table(tmp_path / "scored").column("part").to_pylist()[-3:] == ["a99", "b99", "a99"]


def test_a_table_without_columns_is_refused(job: Path, tmp_path: Path) -> None:
    """Its rows would be lost."""
    with pytest.raises(bs.InvalidError, match=r"have no column 'a', which model\.inputs needs"):
        run([factory.make_rows(3).select([])], tmp_path, bs.Score(job))


def test_elements_that_cannot_be_scored_are_refused_before_the_pipeline_runs(job: Path) -> None:
    """The message says what helps, and shows the fields that the job reads."""
    score, p = bs.Score(job), pipeline()
    with pytest.raises(bs.InvalidError, match=r'give schema.*schema=pa.schema\(\[\("a", pa'):
        p | "Dicts" >> beam.Create([{"a": 1.0, "b": 2.0}]) | "Score dicts" >> score
    with pytest.raises(bs.InvalidError, match=r"the elements are .*Tuple.*convert them with beam"):
        p | "Pairs" >> beam.Create([("key", 1)]) | "Score pairs" >> score
    with pytest.raises(bs.InvalidError, match="have no column 'b'"):
        p | "Rows" >> beam.Create([Row(a=1.0)]) | "Score rows" >> score


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schema": pa.schema([("a", pa.string()), ("b", pa.int64())])}, "'a' is string, expected"),
        ({"sample": pa.table({"a": [1.0]})}, "no column 'b', which model.inputs needs"),
        ({"sample": pa.table({"a": []})}, "argument sample: has no rows"),
        ({"ship_to": "memory://shared"}, "argument ship_to: memory://shared is the memory of this"),
        (
            {"ship_to": "ftp://me:hunter2@host/x"},
            r"argument ship_to: holds a user, password or key",
        ),
        ({"ship_to": ""}, "argument ship_to: is empty"),
        ({"threads": 0}, "argument threads: expected 1 or more, found 0"),
        ({"schema": {"a": "float"}}, "Score, argument schema: expected a Schema or None, found"),
        (
            {"overrides": {"runtime.precision": "bf16"}},
            "golden rows, and model 'small' has none",
        ),
        ({"overrides": {"model.path": "gone"}}, "no such model folder"),
        ({"params": {"day": 1}}, "day"),
    ],
)
def test_what_is_wrong_is_said_at_once(job: Path, arguments: dict[str, Any], message: str) -> None:
    """The constructor raises, before any pipeline is built."""
    with pytest.raises(bs.InvalidError, match=message):
        bs.Score(job, **arguments)


@pytest.mark.parametrize("place", ["job.yaml", "nosuch://bucket/folder"])
def test_a_folder_that_cannot_be_written_is_refused(job: Path, place: str) -> None:
    """When the transform is applied, before the pipeline runs."""
    address = place if "://" in place else str(job)
    batches = pipeline() | beam.Create(factory.make_rows(3).to_batches())
    with pytest.raises(bs.InvalidError, match=rf"ship_to: {address} cannot be written \("):
        batches | bs.Score(job, ship_to=address)


def test_arguments_are_typed(job: Path) -> None:
    """A type checker sees what a program would meet."""
    with pytest.raises(bs.InvalidError, match="Score, argument job: expected"):
        bs.Score(3)  # type: ignore[arg-type]
    score: bs.Score = bs.Score(str(job), schema=SCHEMA, threads=2)
    assert isinstance(score, beam.PTransform)


def test_a_sample_without_a_row_that_scores_is_said(
    job: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows nothing of how scores depend on rows, and a user should know."""
    none = pa.table({"a": pa.nulls(9, pa.float32()), "b": [1.0] * 9})
    bs.Score(job, sample=none)
    assert "not tried: no row of the sample has a score; give sample, a table" in caplog.text
    caplog.clear()
    bs.Score(job, sample=factory.make_rows(9))
    assert "not tried" not in caplog.text


def test_a_function_whose_scores_depend_on_other_rows_is_refused(tmp_path: Path) -> None:
    """On the sample, as before a run."""
    (tmp_path / "steps.py").write_text(DEPENDENT)
    job = factory.write_job(tmp_path, {"preprocess.function": "steps.py:centred"})
    with pytest.raises(bs.InvalidError, match=r"preprocess.function steps.py:centred.*depend"):
        bs.Score(job, sample=factory.make_rows(64))


DEPENDENT = """import pyarrow as pa
import pyarrow.compute as pc


def centred(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(1, "a", pc.subtract(batch.column("a"), pc.mean(batch.column("a"))))
"""


def test_golden_rows_with_other_scores_are_refused(tmp_path: Path) -> None:
    """The launcher scores them, and each process of a worker does again."""
    golden = pa.table({"x": pa.array([[1.0, 2.0]], pa.list_(pa.float32())), "logit": [9.0]})
    factory.write_job(tmp_path)
    factory.write_model(
        tmp_path / "gold", tables={"golden.parquet": golden}, golden="golden.parquet"
    )
    job = {"model": {"path": tmp_path / "gold", "inputs": {"x": ["a", "b"]}}}
    with pytest.raises(bs.InvalidError, match=r"1 golden row differs in logit by 8\.88 at most"):
        bs.Score(job)


def test_a_slice_is_sent_with_its_own_rows_only() -> None:
    """The coder of record batches keeps types and metadata."""
    whole = pa.record_batch({"a": pa.array(range(100_000)), "b": pa.nulls(100_000, pa.uuid())})
    part = whole.slice(7, 3).replace_schema_metadata({"made": "here"})
    coder = registry.get_coder(pa.RecordBatch)
    encoded = coder.encode(part)
    assert len(encoded) < 2_000
    assert coder.decode(encoded).equals(part, check_metadata=True)


def test_beam_is_whole_afterwards() -> None:
    """What batchscore leaves out for its own runs is there for other steps of a pipeline."""
    program = """
import batchscore as bs
bs.Score
from apache_beam.io import *
import apache_beam, sys
print(ReadFromText.__module__, ReadFromMongoDB.__module__, "pandas" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:2] == ["apache_beam.io.textio", "apache_beam.io.mongodbio"]
