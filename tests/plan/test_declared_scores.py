"""Test what is known of scores before a row is scored: steps and checks that no row can pass."""

from __future__ import annotations

import dataclasses
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import InvalidError, JobFileError, UnfitStepError
from batchscore.job import Checks, Labels, Sigmoid, Softmax, Threshold, TopK, load_job
from batchscore.job.steps.base import Step
from batchscore.models.loadable import Model, ModelOutput
from batchscore.plan.declared_scores import check_declared, check_score_range, declared_types
from batchscore.plan.model import resolve_model
from batchscore.stages.postprocess import postprocess
from tests.factory import change_job, make_block, make_rows, run_cli, write_job, write_shard

LOGIT = ModelOutput("logit", "float32", ())
PROBS = ModelOutput("probs", "float16", (3,))
GRID = ModelOutput("grid", "int64", (2, 3))
ABC = ["a", "b", "c"]
FUNCTION = {"function": "post.py:score"}
NAMES = st.sampled_from(
    [None, "logit", "probs", "grid", "score", "decision", "label", "top_labels"]
)
STEPS = st.one_of(
    st.builds(Sigmoid, output=NAMES),
    st.builds(Softmax, output=NAMES),
    st.builds(Threshold, output=NAMES, at=st.just(0.5)),
    st.builds(TopK, output=NAMES, k=st.integers(1, 4)),
    st.builds(Labels, output=NAMES, labels=st.sampled_from([("x", "y"), ("x", "y", "z")])),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job, whose model the tests give other outputs."""
    made = tmp_path_factory.mktemp("job")
    write_job(made)
    return made


def _resolved(folder: Path, changes: dict[str, Any], *outputs: ModelOutput) -> tuple[Any, Model]:
    change_job(folder, {"postprocess": None, "checks": None, **changes})
    job = load_job(str(folder / "job.yaml")).job
    return job, dataclasses.replace(resolve_model(job.model, str(folder)), outputs=outputs)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"sigmoid": {"output": "zz"}}, "no output 'zz'; expected one of logit, probs. This is s"),
        ("sigmoid", r"name an output; the outputs so far are \['logit', 'probs'\]"),
        ({"softmax": {"output": "logit"}}, "'logit' has one number per row; expected one score"),
        ({"softmax": {"output": "lagit"}}, "nearest: 'logit'"),
        ({"top_k": {"output": "probs", "k": 4}}, "'probs' has 3 classes, and top_k keeps 4; lower"),
        (
            {"top_k": {"output": "probs", "k": 1, "labels": ["a"]}},
            "3 classes, and the job has 1",
        ),
        ({"labels": {"output": "probs", "labels": ["a", "b"]}}, "3 classes, and the job has 2"),
        (
            {"labels": {"output": "logit", "labels": ["a", "b"]}},
            "a column of float: expected",
        ),
        (
            {"threshold": {"output": "logit", "at": 1, "name": "probs"}},
            "'probs' would appear",
        ),
        (
            [{"labels": {"output": "probs", "labels": ABC}}, {"sigmoid": {"output": "label"}}],
            "type string is not made of numbers; expected numbers. This is step 2, sigmoid; the mo"
            r"del declares logit \(one number per row\), probs \(3 numbers per row\): correct the",
        ),
        (
            [{"sigmoid": {"output": "logit"}}, {"threshold": {"output": "logit", "at": 1}}],
            "no output 'logit'; expected one of probs, score. This is step 2, threshold",
        ),
        ([{"sigmoid": {"output": "zz"}}, FUNCTION], "there is no output 'zz'"),
    ],
)
def test_a_step_that_no_row_can_pass_is_refused(folder: Path, steps: Any, words: str) -> None:
    """The message names the step, what it found and expected, and the model's outputs."""
    with pytest.raises(JobFileError, match=words):
        check_declared(*_resolved(folder, {"postprocess": steps}, LOGIT, PROBS))


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (
            {"score_range": {"zz": [0, 1]}},
            "there is no score 'zz'; expected one of label, probs",
        ),
        ({"score_range": {"label": [0, 1]}}, r"'label' is string, expected numbers; name another "),
        ({"accepted": {"label": [1]}}, "column 'label' is string, which has no value 1"),
        ({"fresh": {"score": "1h"}}, "column 'score' is float; expected dates or timestamps"),
    ],
)
def test_a_check_that_no_score_can_pass_is_refused(
    folder: Path, checks: dict[str, Any], words: str
) -> None:
    """A check of a score that is not made, or of another type, is a wrong job."""
    steps = [{"sigmoid": {"output": "logit"}}, {"labels": {"output": "probs", "labels": ABC}}]
    resolved = _resolved(folder, {"postprocess": steps, "checks": checks}, LOGIT, PROBS)
    with pytest.raises(InvalidError, match=words):
        check_declared(*resolved)


def test_a_range_needs_a_score_of_numbers(folder: Path) -> None:
    """A range for all scores is refused if each is a text or a boolean; lists have numbers."""
    steps = [{"threshold": {"output": "flag", "at": 1, "name": "more"}}]
    changes = {"postprocess": steps, "checks.score_range": [0, 1]}
    flag = ModelOutput("flag", "bool", ())
    with pytest.raises(JobFileError, match=r"no score holds numbers.* flag \(bool\), more \(bool"):
        check_declared(*_resolved(folder, changes, flag))
    check_declared(*_resolved(folder, changes, flag, PROBS))
    check_declared(
        *_resolved(folder, {**changes, "checks.score_range": {"grid": [0, 1]}}, flag, GRID)
    )


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [
        (pa.float16(), False),
        (pa.decimal128(9, 2), False),
        (pa.large_list(pa.list_(pa.int8(), 2)), False),
        (pa.null(), False),
        (pa.string_view(), True),
        (pa.dictionary(pa.int8(), pa.string()), True),
        (pa.struct([("a", pa.int8())]), True),
        (pa.map_(pa.string(), pa.int8()), True),
        (pa.list_(pa.bool_()), True),
        (pa.uuid(), True),
        (pa.timestamp("us"), True),
    ],
    ids=str,
)
def test_only_scores_of_numbers_have_a_range(kind: pa.DataType, is_refused: bool) -> None:
    """Numbers at any depth of lists count; a type that is not known yet may be one."""
    checks = Checks(score_range={"s": (0, 1)})
    expected = pytest.raises(JobFileError, match=r"'s' is .*, expected numbers")
    with expected if is_refused else nullcontext():
        check_score_range(checks, {"s": kind})


def test_what_a_function_makes_is_not_known(folder: Path) -> None:
    """After a function, and without declared outputs, nothing is refused beforehand."""
    steps = [FUNCTION, {"sigmoid": {"output": "zz"}}]
    changes = {"postprocess": steps, "checks.score_range": {"zz": [0, 1]}}
    resolved = _resolved(folder, changes, LOGIT)
    assert declared_types(*resolved) is None
    check_declared(*resolved)
    check_declared(*_resolved(folder, {"postprocess": {"sigmoid": {"output": "zz"}}}))


@given(
    st.lists(STEPS, max_size=4),
    st.lists(st.sampled_from([LOGIT, PROBS, GRID]), unique=True, min_size=1),
)
def test_what_is_declared_is_what_rows_come_to(
    steps: list[Step], outputs: list[ModelOutput]
) -> None:
    """Steps are refused exactly if they fail on rows, and make scores of the declared types."""
    columns = [to_arrow(np.ones((2, *each.shape), each.dtype)) for each in outputs]
    values = pa.record_batch(columns, [each.name for each in outputs])
    job: Any = SimpleNamespace(postprocess=steps)
    model: Any = SimpleNamespace(outputs=outputs)
    try:
        made = postprocess(make_block(values, values=values), steps).values
    except UnfitStepError as failed:
        with pytest.raises(JobFileError, match=re.escape(str(failed))):
            declared_types(job, model)
    else:
        assert made is not None
        assert declared_types(job, model) == {each.name: each.type for each in made.schema}


CODE = """import pyarrow as pa

def score(batch):
    texts = pa.array(["x"] * batch.num_rows)
    return pa.record_batch({"n": batch.column(0), "t": texts})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"postprocess": {"sigmoid": {"output": "zz"}}}, "no output 'zz'; expected one of logit"),
        ({"postprocess": [FUNCTION, {"sigmoid": {"output": "zz"}}]}, "there is no output 'zz'"),
        ({"postprocess": [FUNCTION, {"softmax": {"output": "t"}}]}, "'t': column of type string"),
        ({"checks.score_range": {"zz": [0, 1]}}, "no score 'zz'; expected one of n, t"),
        ({"checks.score_range": {"t": [0, 1]}}, "score 't' is string, expected numbers"),
        ({"drift.columns": ["zz"]}, "drift.columns: there is no column 'zz' among what is read"),
        ({"drift.column_thresholds": {"zz": {"psi": None}}}, "there is no column 'zz' among"),
    ],
)
def test_scores_that_there_cannot_be_end_check_and_run(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """They are refused before a row is scored; a sample shows the scores of a function."""
    (tmp_path / "post.py").write_text(CODE)
    job = write_job(tmp_path, {"postprocess": FUNCTION, **changes})
    write_shard(tmp_path / "in/0.parquet", make_rows(20))
    for command in ("check", "run"):
        done = run_cli(command, job)
        assert done.exit_code == 2, done.output
        assert words in done.stderr
    assert not (tmp_path / "out").exists()
