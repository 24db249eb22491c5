"""Test that golden rows are scored as the model folder says, and how the difference is reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import ModelError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.plan.readiness import verify
from batchscore.runs import layout
from batchscore.worker.golden import ensure_golden, measure_golden, record_golden
from batchscore.worker.golden_results import golden_prefix, golden_results
from batchscore.worker.scoring import load
from batchscore.worker.spec import RunSpec, Spec
from tests.conftest import ROOT
from tests.factory import run_spec, write_job, write_model

ROWS = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
KNOWN = [0.125, 0.625, -0.125]
NAME = "golden.parquet"

Make = Callable[..., RunSpec]


def golden_of(rows: Any = ROWS, known: Any = KNOWN) -> pa.Table:
    """Rows of the model input `x` with their known logits."""
    return pa.table({"x": pa.array(rows, pa.list_(pa.float32(), 2)), "logit": known})


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Plans the small job over a model with golden rows; returns what workers get."""

    def made(
        table: pa.Table | None = None, changes: Mapping[str, Any] | None = None, **card: Any
    ) -> RunSpec:
        job = write_job(tmp_path, changes)
        golden = golden_of() if table is None else table
        write_model(tmp_path / "model", tables={NAME: golden}, golden=NAME, **card)
        spec = run_spec(verify(make_plan(load_job(str(job)))))
        layout.claim_output(spec.output)
        return spec

    return made


def measured(spec: Spec) -> dict[str, Any] | None:
    return measure_golden(spec, load(spec))


def gap_of(spec: RunSpec) -> float:
    """The largest difference of the one output."""
    found = measured(spec)
    assert found is not None
    return float(found["gaps"]["logit"])


def test_known_scores_that_the_network_gives_have_no_gap(make: Make) -> None:
    """Every golden row is counted, and the scores are the network's own."""
    assert measured(make()) == {"rows": 3, "gaps": {"logit": 0.0}}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_difference_counts(make: Make, sign: int) -> None:
    """The worst row decides, whether its score is too high or too low."""
    known = [KNOWN[0], KNOWN[1] + sign * 0.5, KNOWN[2] + 0.25]
    assert gap_of(make(golden_of(known=known))) == 0.5


def test_the_jobs_own_steps_are_left_out(make: Make, tmp_path: Path) -> None:
    """What the model folder does not describe, as the job's functions, is no part of the scores."""
    (tmp_path / "bad.py").write_text("def f(batch):\n    raise ValueError('not me')\n")
    changes = {"preprocess.function": "bad.py:f", "postprocess": {"function": "bad.py:f"}}
    assert gap_of(make(changes=changes)) == 0.0


def test_columns_that_the_job_names_otherwise_are_the_models(make: Make) -> None:
    """Golden rows hold the model's inputs by their own names, whatever the job feeds them from."""
    assert gap_of(make(changes={"model.inputs": {"x": ["b", "a"]}})) == 0.0


def test_the_models_own_preprocessing_is_part_of_it(tmp_path: Path) -> None:
    """Golden rows of a model with features hold raw columns, which are encoded as in a run."""
    job = ROOT / "jobs/flight_delays/job.yaml"
    plan = verify(make_plan(load_job(str(job), (), (f"output.path={tmp_path}/out",))))
    found = measured(plan.spec)
    assert found is not None
    assert found["rows"] == pq.read_metadata(ROOT / "jobs/flight_delays/model" / NAME).num_rows
    assert 0 <= found["gaps"]["logit"] <= plan.spec.scoring.model.tolerance


def test_a_row_that_is_rejected_differs_by_infinity(make: Make) -> None:
    """A score that is no number is as wrong as can be, however the others are."""
    rows = [*ROWS[:2], [math.nan, 0.0]]
    assert gap_of(make(golden_of(rows=rows))) == math.inf


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (golden_of().drop_columns(["x"]), "no column 'x'"),
        (pa.table({"x": [[1.0]] * 3, "logit": KNOWN}), "a list of 1, expected a list of 2"),
        (pa.table({"x": ["a"] * 3, "logit": KNOWN}), "column of type string"),
    ],
    ids=["missing", "width", "type"],
)
def test_rows_that_do_not_fit_the_model_are_reported(
    make: Make, table: pa.Table, words: str
) -> None:
    """Where no row can be put into the network, the golden rows are wrong and not its scores."""
    with pytest.raises(ModelError, match=f"do not fit the model .*{words}"):
        gap_of(make(table))


def test_scores_that_are_all_no_numbers_differ_by_infinity(make: Make) -> None:
    """A network that gives no number for any row was fed, and is wrong."""
    assert gap_of(make(golden_of(rows=[[math.nan, 0.0]] * 3))) == math.inf


def test_a_known_score_of_another_shape_differs_by_infinity(make: Make) -> None:
    """A vector where a number is scored cannot be compared, and does not pass."""
    known = pa.array([[k, k] for k in KNOWN], pa.list_(pa.float32(), 2))
    assert gap_of(make(golden_of(known=known))) == math.inf


@pytest.mark.parametrize(
    "table",
    [
        golden_of().drop_columns(["logit"]),
        golden_of()[:0],
        golden_of(known=["a", "b", "c"]),
        golden_of(known=[None, 1.0, 2.0]),
    ],
    ids=["no-score", "no-rows", "text", "null"],
)
def test_golden_rows_that_cannot_be_scored_are_reported(make: Make, table: pa.Table) -> None:
    """A file that lacks what it needs is an error that names it."""
    with pytest.raises(ModelError, match=NAME):
        gap_of(make(table))


def test_a_model_without_golden_rows_has_nothing_to_measure(make: Make, tmp_path: Path) -> None:
    """Nothing is measured, recorded or looked for."""
    spec = make()
    model = replace(spec.scoring.model, golden=None)
    spec = replace(spec, scoring=replace(spec.scoring, model=model))
    assert measured(spec) is None
    record_golden(spec, load(spec))
    ensure_golden(spec)
    assert (golden_prefix(spec), golden_results(spec)) == (None, [])
    assert not (tmp_path / "out/_batchscore/ledger").exists()


def test_each_process_leaves_its_own_result(make: Make) -> None:
    """What processes found is kept side by side, and all of it is judged."""
    spec = make()
    for _ in range(3):
        record_golden(spec, load(spec))
    assert golden_results(spec) == [{"rows": 3, "gaps": {"logit": 0.0}}] * 3


def test_infinity_survives_the_ledger(make: Make) -> None:
    """A difference that is no number is read back as it was measured."""
    spec = make(golden_of(rows=[*ROWS[:2], [math.nan, 0.0]]))
    record_golden(spec, load(spec))
    assert [found["gaps"]["logit"] for found in golden_results(spec)] == [math.inf]


def test_golden_rows_are_scored_where_nobody_did(make: Make) -> None:
    """A run that scores no unit tries the golden rows once, and never again."""
    spec = make()
    assert golden_results(spec) == []
    ensure_golden(spec)
    ensure_golden(spec)
    assert len(golden_results(spec)) == 1


def test_results_of_other_golden_rows_do_not_count(make: Make) -> None:
    """Changed golden rows are scored again, though the model's scores are the same."""
    spec = make()
    ensure_golden(spec)
    later = make(golden_of(known=[9.0, 9.0, 9.0]))
    assert later.identity.score == spec.identity.score
    assert golden_results(later) == []
    ensure_golden(later)
    assert [found["gaps"]["logit"] for found in golden_results(later)] == [9.125]
    assert [found["gaps"]["logit"] for found in golden_results(spec)] == [0.0]
