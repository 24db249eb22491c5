"""Batches to outcomes, without Beam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import FailedError, InputError, ModelError
from batchscore.job import load_embedded
from batchscore.plan.shipping import pack
from batchscore.score.elementwise import element_spec, plan_elements
from batchscore.score.python_rows import score_rows
from batchscore.score.scorer import ElementScorer, scorer_of
from tests import factory

NOTHING = pa.schema([])
DECLARED = pa.schema([("id", pa.int64()), ("a", pa.float32()), ("b", pa.float32())])
FUNCTION = """import pyarrow as pa
import pyarrow.compute as pc


def fragile(batch: pa.RecordBatch) -> pa.RecordBatch:
    if 13 in batch.column("id").to_pylist():
        raise ValueError("thirteen")
    return batch
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with all that decides the outcome of a row: filter, function, checks."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "features.py").write_text(FUNCTION)
    changes = {
        "input.filters": [["part", "not in", ["p2"]]],
        "preprocess.function": "features.py:fragile",
        "checks.not_null": ["part"],
        "checks.score_range": {"score": [0.45, 1]},
        "runtime.batch_rows": 16,
    }
    return factory.write_job(folder, changes)


@pytest.fixture(scope="module")
def scorer(job: Path) -> ElementScorer:
    """What scores batches with the job."""
    return make(job)


@pytest.fixture(scope="module")
def row_scorer(job: Path) -> ElementScorer:
    """What scores dictionaries with it."""
    return make(job, rows_of_all_fates().schema)


def make(job: Path, declared: pa.Schema = NOTHING) -> ElementScorer:
    """Returns what scores batches with a job."""
    planned = plan_elements(load_embedded(str(job)), declared, None, "", 1)
    return scorer_of(element_spec(planned, declared))


def rows_of_all_fates(rows: int = 64) -> pa.Table:
    """Returns rows of which some are filtered, some rejected in each way, and others scored."""
    table = factory.make_rows(rows)
    a, part = table.column("a").to_pylist(), table.column("part").to_pylist()
    a[3], a[7], part[16] = None, float("inf"), None
    return table.set_column(1, "a", pa.array(a, pa.float32())).set_column(3, "part", [part])


def outcomes(scorer: ElementScorer, batches: Sequence[pa.RecordBatch]) -> tuple[pa.Table, ...]:
    """Returns all scored and all rejected rows, and checks that none is missing."""
    found = [each for batch in batches for each in scorer.outcomes(batch)]
    read, filtered = (sum(getattr(each, name) for each in found) for name in ("read", "filtered"))
    scored = [each.scored for each in found if each.scored is not None]
    rejected = [each.rejected for each in found if each.rejected is not None]
    assert read == sum(batch.num_rows for batch in batches)
    assert read == filtered + sum(map(len, scored)) + sum(map(len, rejected))
    return pa.Table.from_batches(scored), pa.Table.from_batches(rejected)


@given(st.lists(st.integers(0, 64), max_size=6))
def test_outcomes_do_not_depend_on_how_rows_are_cut(scorer: ElementScorer, cuts: list[int]) -> None:
    """Any split of the rows into batches gives the same scored and the same rejected rows."""
    table = rows_of_all_fates().combine_chunks()
    (whole,) = table.to_batches()
    edges = [0, *sorted(cuts), len(table)]
    parts = [whole.slice(a, b - a) for a, b in pairwise(edges)]
    scored, rejected = outcomes(scorer, parts)
    expected_scored, expected_rejected = outcomes(scorer, [whole])
    assert scored.equals(expected_scored)
    assert rejected.sort_by("id").equals(expected_rejected.sort_by("id"))


def test_threads_of_a_worker_share_the_model(scorer: ElementScorer) -> None:
    """Several threads at once make what one makes."""
    (whole,) = rows_of_all_fates().combine_chunks().to_batches()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: outcomes(scorer, [whole] * 4), range(8)))
    expected = outcomes(scorer, [whole] * 4)
    assert all(each[0].equals(expected[0]) and each[1].equals(expected[1]) for each in found)
    assert scorer_of(scorer.spec) is scorer


@pytest.mark.parametrize(
    ("overrides", "fates"),
    [
        ("checks.accepted={part: [p0]}", (2, 4)),
        ("checks.score_range=[0.5, 1]", (3, 3)),
        ("checks.not_null=[part]", (6, 0)),
        ("input.filters=[[id, '<', 2]]", (2, 0)),
        ("output.columns=[id]", (6, 0)),
        ("runtime.batch_rows=4", (6, 0)),
    ],
)
def test_jobs_that_differ_do_not_share_what_they_ask_for(
    tmp_path: Path, overrides: str, fates: tuple[int, int]
) -> None:
    """Two of one model in one process: each rejects, cuts and passes as its own job says."""
    path = str(factory.write_job(tmp_path))
    (whole,) = factory.make_rows(6).combine_chunks().to_batches()
    plans = [
        plan_elements(load_embedded(path, (), own), NOTHING, None, "", 1)
        for own in ((), [overrides])
    ]
    plain, other = (scorer_of(element_spec(planned, NOTHING)) for planned in plans)
    found = list(other.outcomes(whole))
    scored = [each.scored for each in found if each.scored is not None]
    assert (sum(map(len, scored)), sum(each.rejected_rows for each in found)) == fates
    ((first,), own) = ([each.scored for each in plain.outcomes(whole)], scored[0].schema.names)
    assert first is not None
    assert first.num_rows == 6
    assert (own == first.schema.names) == ("columns" not in overrides)
    assert len(found) == (2 if "batch_rows" in overrides else 1)


def test_each_reason_is_given(scorer: ElementScorer) -> None:
    """A rejected row has its source columns, and where and why it was rejected."""
    (whole,) = rows_of_all_fates().combine_chunks().to_batches()
    _, rejected = outcomes(scorer, [whole])
    reasons = rejected.select(["id", "_stage", "_error"]).to_pylist()
    kinds = {row["id"]: (row["_stage"], row["_error"]) for row in reasons}
    assert kinds[3] == ("preprocess", "InvalidInput")
    assert kinds[7] == ("infer", "NonFiniteScore")
    assert kinds[13] == ("preprocess", "ValueError")
    assert kinds[16] == ("checks", "Null")
    low = set(kinds) - {3, 7, 13, 16}
    assert {kinds[row] for row in low} == {("checks", "OutOfRange")}
    x = np.stack([np.sin([*low]), np.cos([*low])], 1) @ [0.5, -0.25] + 0.125
    assert (1 / (1 + np.exp(-x)) < 0.45).all()


def test_batches_of_mixed_columns_are_cast_to_the_declared_types(job: Path) -> None:
    """Order, width, dictionaries and nulls do not matter; a value that does not fit is rejected."""
    declared = pa.schema([("a", pa.float64()), ("b", pa.int32()), ("part", pa.string())])
    scorer = make(job, declared)
    part = pa.array(["p0", "p1"]).dictionary_encode()
    ids = pa.array([1, 2])
    batches = [
        factory.make_batch(id=ids, a=pa.array([1.5, 2], pa.float32()), b=[1, 2], part=part),
        factory.make_batch(part=["p0", "p0"], b=pa.array([1, 2**40]), a=[1, 2], id=ids),
        factory.make_batch(a=pa.nulls(2), b=[1, 2], part=part, id=ids),
    ]
    scored, rejected = outcomes(
        scorer, [batch.select(["id", "a", "b", "part"]) for batch in batches]
    )
    assert scored.schema.field("a").type == pa.float64()
    assert scored.schema.field("b").type == pa.int32()
    assert scored.schema.field("part").type == pa.string()
    assert scored.num_rows == 3
    details = [row["_detail"] for row in rejected.to_pylist()]
    null = "column 'a': null, expected a number (float32)"
    assert details == ["column 'b': 1099511627776, expected int32", null, null]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1.0]}, "no column 'b', which model.inputs needs; expected one of a"),
        ({"a": ["x"], "b": [1.0]}, "column 'a' is string, expected numbers"),
        ({"a": [None], "b": [1.0]}, "'a' of a batch has no type, since it is null in all rows"),
        ({"a": [1.0], "b": [1.0]}, "no column 'part', which input.filters needs"),
    ],
)
def test_a_batch_that_cannot_be_scored_is_one_clear_error(
    tmp_path: Path, columns: Mapping[str, list[Any]], message: str
) -> None:
    """It names the column, and what needs it or what type was expected."""
    filters = {"input.filters": [["part", "==", "p"]]} if "part" in message else {}
    scorer = make(factory.write_job(tmp_path, filters))
    with pytest.raises(InputError, match=message):
        list(scorer.outcomes(factory.make_batch(**columns)))


def test_a_column_that_is_read_for_a_check_alone_is_not_passed_on(tmp_path: Path) -> None:
    """As in a run, neither scored nor rejected rows have it."""
    changes = {"output.columns": ["id"], "checks.accepted": {"part": ["p0"]}}
    (whole,) = factory.make_rows(3).to_batches()
    scored, rejected = outcomes(make(factory.write_job(tmp_path, changes)), [whole])
    assert scored.schema.names == ["id", "score", "model_version"]
    assert rejected.schema.names[4:] == ["id", "a", "b"]
    assert rejected.column("_detail").to_pylist() == ["found p1", "found p2"]


def test_two_columns_of_one_name_are_refused(job: Path) -> None:
    """The message names them."""
    batch = pa.RecordBatch.from_arrays([pa.array([1.0])] * 2, names=["a", "a"])
    with pytest.raises(InputError, match="has column 'a' twice; rename one"):
        list(make(job).outcomes(batch))


def test_a_declared_column_that_is_missing_is_named(job: Path) -> None:
    """Even where the job does not read it: all outputs shall have one schema."""
    declared = pa.schema([("a", pa.float32()), ("extra", pa.int64())])
    batch = factory.make_batch(id=[1], a=[1.0], b=[1.0], part=["p0"])
    scorer = scorer_of(replace(make(job).spec, declared=declared, key="other"))
    with pytest.raises(InputError, match="no column 'extra', which is declared in schema"):
        list(scorer.outcomes(batch))


def test_a_function_that_fails_for_all_rows_fails_the_pipeline(tmp_path: Path) -> None:
    """Its rows are not rejected one by one: the code is at fault."""
    (tmp_path / "features.py").write_text(FUNCTION.replace("13 in", "True or 13 in"))
    changes = {"preprocess.function": "features.py:fragile"}
    scorer = make(factory.write_job(tmp_path, changes))
    (whole,) = factory.make_rows(64).to_batches()
    with pytest.raises(FailedError, match="each of 16 rows fails alone in the same way"):
        list(scorer.outcomes(whole))


def test_a_model_that_was_changed_since_is_not_loaded(tmp_path: Path) -> None:
    """A worker compares the SHA-256 of each file before it is read."""
    job = factory.write_job(tmp_path)
    planned = plan_elements(load_embedded(str(job)), NOTHING, None, "", 1)
    weights = tmp_path / "model/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="SHA-256"):
        scorer_of(element_spec(planned, NOTHING))


def test_a_worker_that_does_not_see_the_model_says_what_helps(tmp_path: Path) -> None:
    """The message names the worker's machine, the folder and the argument."""
    job = factory.write_job(tmp_path / "job")
    planned = plan_elements(load_embedded(str(job)), NOTHING, None, "", 1)
    (tmp_path / "job").rename(tmp_path / "gone")
    with pytest.raises(
        ModelError, match=r"does not see the model's folder, .*give bs.Score ship_to"
    ):
        scorer_of(element_spec(planned, NOTHING))


def test_dictionaries_keep_what_the_job_does_not_read(job: Path) -> None:
    """Fields without a declared type pass through as they are, of any Python type."""
    declared = pa.schema([*DECLARED, ("part", pa.string())])
    thing = object()
    rows = [{"id": 1, "a": 1, "b": 0.5, "part": "p0", "thing": thing}]
    ((outcome, scored, rejected),) = score_rows(rows, make(job, declared))
    assert (len(scored), rejected, outcome.read) == (1, {}, 1)
    assert scored[0]["thing"] is thing
    assert scored[0]["a"] == 1
    assert scored[0]["model_version"] == "1.0"


@given(st.lists(st.integers(0, 64), max_size=4))
def test_dictionaries_have_the_outcomes_of_a_batch(
    scorer: ElementScorer, row_scorer: ElementScorer, cuts: list[int]
) -> None:
    """However they are cut, each is scored, filtered or rejected as its row in a batch is."""
    table = rows_of_all_fates()
    (whole,) = table.combine_chunks().to_batches()
    scored, rejected = outcomes(scorer, [whole])
    rows = table.to_pylist()
    edges = [0, *sorted(cuts), len(rows)]
    found = [each for a, b in pairwise(edges) for each in score_rows(rows[a:b], row_scorer)]
    made = [row for _, some, _ in found for row in some.values()]
    left = [row for _, _, some in found for row in some.values()]
    assert made == scored.to_pylist()
    assert sorted(left, key=_id) == sorted(rejected.to_pylist(), key=_id)


def _id(row: Mapping[str, Any]) -> int:
    return int(row["id"])


def test_workers_that_do_not_see_the_folder_of_a_shipment_say_so(tmp_path: Path) -> None:
    """Where launcher and worker have no disk in common, only an address of a store helps."""
    place, job = str(tmp_path / "shipped"), str(factory.write_job(tmp_path / "job"))
    planned = plan_elements(load_embedded(job), NOTHING, None, place, 1)
    spec = replace(element_spec(planned, NOTHING), shipment=pack(planned.plan))
    with pytest.raises(FailedError, match=rf"does not see ship_to {place}; give bs.Score an addr"):
        scorer_of(spec)


def test_a_field_with_the_name_of_a_score_is_refused(job: Path) -> None:
    """Neither of the two would be lost silently."""
    declared = pa.schema([*DECLARED, ("part", pa.string())])
    rows = [{"id": 1, "a": 1, "b": 0.5, "part": "p0", "score": 3}]
    with pytest.raises(InputError, match="a row has a field 'score', and a score has that name"):
        list(score_rows(rows, make(job, declared)))


@pytest.mark.slow
def test_columns_of_all_kinds_pass_as_a_run_publishes_them(tmp_path: Path) -> None:
    """Dictionaries become their values, annotations stay, and nothing else changes."""
    table = factory.make_rows(50)
    ids, json_type = range(50), pa.json_()
    more = {
        "uuid": pa.array([bytes([each] * 16) for each in ids], pa.uuid()),
        "json": pa.ExtensionArray.from_storage(json_type, pa.array(["{}"] * 50)),
        "label": pa.array([f"k{each % 3}" for each in ids]).dictionary_encode(),
        "when": pa.array(ids, pa.timestamp("us", tz="UTC")),
        "amount": pa.array([*ids], pa.decimal128(20, 6)),
        "nested": pa.array([{"x": each, "y": [each]} for each in ids]),
        "lists": pa.array([[each] for each in ids], pa.large_list(pa.int16())),
        "half": pa.array(np.arange(50).astype(np.float16)),
        "none": pa.nulls(50),
        "_row": pa.array(ids),
    }
    for name, column in more.items():
        table = table.append_column(name, column)
    job = factory.write_job(tmp_path, {"input.path": "all"})
    factory.write_shard(tmp_path / "all/0.parquet", table)
    assert factory.run_json("run", job)["status"] == "published"
    (file,) = (tmp_path / "out/data").rglob("*.parquet")
    (batch,) = table.combine_chunks().to_batches()
    scored = [each.scored for each in make(job).outcomes(batch) if each.scored is not None]
    assert pa.Table.from_batches(scored).equals(pq.read_table(file, partitioning=None))
