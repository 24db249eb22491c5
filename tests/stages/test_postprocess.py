"""Test the steps after the model: against torch, against each other, and bit for bit by row."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.job import Labels, Sigmoid, Softmax, Threshold, TopK, UserFunction
from batchscore.job.steps.activations import sigmoid, softmax
from batchscore.job.steps.all_steps import Steps
from batchscore.stages.postprocess import postprocess, score_kinds
from tests.factory import make_batch, make_block

Floats = np.ndarray[Any, Any]
KINDS = st.sampled_from(["float32", "float64"])
LOGITS = KINDS.flatmap(
    lambda kind: hnp.arrays(
        kind,
        st.integers(1, 200),
        elements=st.floats(-1e4, 1e4, width=32 if kind == "float32" else 64),
    )
)
CLASSES = KINDS.flatmap(
    lambda kind: hnp.arrays(
        kind,
        st.tuples(st.integers(1, 40), st.integers(1, 9)),
        elements=st.floats(-1e4, 1e4, width=32 if kind == "float32" else 64),
    )
)


def _after(outputs: dict[str, Any], *steps: Any) -> dict[str, Any]:
    values = make_batch(**{name: to_arrow(np.asarray(v)) for name, v in outputs.items()})
    rows = make_batch(id=np.arange(values.num_rows))
    done = postprocess(make_block(rows, values=values), steps)
    assert done.values is not None
    return dict(zip(done.values.schema.names, done.values.columns, strict=True))


@given(LOGITS)
def test_sigmoid_is_torchs(logits: Floats) -> None:
    """Probabilities equal torch's to rounding, in the type given, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sigmoid(logits)
    assert found.dtype == logits.dtype
    tolerance = 1e-6 if logits.dtype == np.float32 else 1e-15
    expected = torch.sigmoid(torch.from_numpy(logits.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, expected, rtol=tolerance * 4, atol=1e-44)


@given(CLASSES)
def test_softmax_is_torchs_and_adds_up_to_one(logits_bc: Floats) -> None:
    """Probabilities equal torch's to rounding, and those of each row add up to 1."""
    found = softmax(logits_bc)
    assert found.dtype == logits_bc.dtype
    tolerance = 1e-5 if logits_bc.dtype == np.float32 else 1e-12
    expected = torch.softmax(torch.from_numpy(logits_bc.astype(np.float64)), 1).numpy()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-37)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=tolerance)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.one_of(LOGITS, CLASSES), st.data())
def test_a_rows_bits_do_not_depend_on_its_batch(logits: Floats, data: st.DataObject) -> None:
    """Any slice, at any offset in memory, gives the bits that the whole batch gave these rows."""
    function = sigmoid if logits.ndim == 1 else softmax
    whole = function(logits)
    start = data.draw(st.integers(0, len(logits) - 1))
    stop = data.draw(st.integers(start + 1, len(logits)))
    assert function(logits[start:stop]).tobytes() == whole[start:stop].tobytes()
    single = np.concatenate([function(logits[row : row + 1].copy()) for row in range(len(logits))])
    assert single.tobytes() == whole.tobytes()


@given(CLASSES, st.data())
def test_top_k_is_torchs_with_the_first_class_of_a_tie(
    scores_bc: Floats, data: st.DataObject
) -> None:
    """The k best scores are torch's, best first, and of equal ones the lower class comes first."""
    k = data.draw(st.integers(1, scores_bc.shape[1]))
    found = _after({"p": scores_bc}, TopK(k=k))
    labels_bk, scores_bk = to_numpy(found["top_labels"]), to_numpy(found["top_scores"])
    assert scores_bk.tolist() == torch.from_numpy(scores_bc).topk(k, dim=1)[0].tolist()
    for row, scores in enumerate(scores_bc):
        expected = sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:k]
        assert labels_bk[row].tolist() == expected


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("logit", Sigmoid(), "score"),
        ("logits", Sigmoid(), "scores"),
        ("odds", Sigmoid(), "odds"),
        ("odds", Sigmoid(name="p"), "p"),
    ],
)
def test_a_probability_replaces_its_logit(name: str, step: Sigmoid, expected: str) -> None:
    """The result replaces the logit under the name that was asked for, or that fits."""
    found = _after({"a": [1.0], name: [0.0], "b": [2.0]}, step.model_copy(update={"output": name}))
    assert list(found) == ["a", expected, "b"]
    assert found[expected].to_pylist() == [0.5]


def test_steps_work_on_each_others_results() -> None:
    """Softmax, top-k with labels, threshold and labels chain, each adding or replacing columns."""
    scores = {"logits": [[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]]}
    found = _after(
        scores,
        Softmax(),
        Labels(labels=("a", "b", "c")),
        TopK(output="scores", k=2, labels=("a", "b", "c")),
    )
    assert found["label"].to_pylist() == ["b", "a"]
    assert found["top_labels"].to_pylist() == [["b", "c"], ["a", "b"]]
    assert list(found) == ["label", "top_labels", "top_scores"]


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        ([True, False], ("no", "yes"), ["yes", "no"]),
        (np.array([2, 0], np.uint8), ("a", "b", "c"), ["c", "a"]),
        ([[1.0, 1.0], [0.0, 1.0]], ("a", "b"), ["a", "b"]),
    ],
    ids=["bool", "class", "scores"],
)
def test_labels_name_the_class(values: Any, labels: tuple[str, ...], expected: list[str]) -> None:
    """A boolean, a class number, or the best of class scores (the first of a tie) gets its text."""
    assert _after({"x": values}, Labels(labels=labels))["label"].to_pylist() == expected


def test_a_threshold_is_reached_by_its_own_value() -> None:
    """A score of exactly the threshold counts as true."""
    found = _after({"p": np.array([0.25, 0.5, 0.75])}, Threshold(at=0.5))
    assert found["decision"].to_pylist() == [False, True, True]
    assert list(found) == ["p", "decision"]


@pytest.mark.parametrize(
    ("outputs", "step", "words"),
    [
        ({"a": [1.0], "b": [1.0]}, Sigmoid(), "name an output"),
        ({"a": [1.0]}, Sigmoid(output="c"), "no output 'c'; expected one of a"),
        ({"a": [1.0]}, Softmax(), "one score for each class"),
        ({"a": [[1.0, 2.0]]}, TopK(k=3), "has 2 classes, and top_k keeps 3"),
        (
            {"a": [[1.0, 2.0]]},
            TopK(k=1, labels=("x", "y", "z")),
            "the job has 3 labels",
        ),
        ({"a": [[1.0, 2.0]]}, Labels(labels=("x",)), "2 classes, and the job has 1 label"),
        ({"a": [3]}, Labels(labels=("x", "y")), "holds class 3"),
        ({"a": [-1]}, Labels(labels=("x", "y")), "holds class -1"),
        ({"a": [0.5]}, Labels(labels=("x", "y")), "put a threshold before it"),
        ({"logit": [1.0], "score": [1.0]}, Sigmoid(output="logit"), "'score' would appear twice"),
        ({"a": [1.0]}, Threshold(at=1, name="a"), "'a' would appear twice"),
        ({"a": [1]}, Labels(labels=("x", "y"), name="a"), "'a' would appear twice"),
        (
            {"a": [[1.0]], "top_scores": [1.0]},
            TopK(output="a", k=1),
            "'top_scores' would appear twice",
        ),
    ],
)
def test_a_step_that_does_not_fit_is_reported(
    outputs: dict[str, Any], step: Any, words: str
) -> None:
    """A missing output, another shape or number of labels is a StepError that names it."""
    with pytest.raises(StepError, match=words):
        _after(outputs, step)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_rows_that_a_function_spoils_are_rejected(bad: float | None) -> None:
    """A NaN, an infinity or a null in place of a score rejects its row, with a reason."""
    rows = make_block(make_batch(id=[5, 6, 7]), values=make_batch(x=[1.0, 2.0, 3.0]))
    done = postprocess(rows, [lambda _: make_batch(y=[1.0, bad, 3.0], t=[None, "a", "b"])])
    assert done.batch.to_pydict() == {"id": [5, 7]}
    assert done.values is not None
    assert done.values.to_pydict() == {"y": [1.0, 3.0], "t": [None, "b"]}
    (reject,) = done.rejects
    assert (reject.stage, reject.error) == ("postprocess", "NonFiniteScore")
    assert reject.rows_r.to_pylist() == [1]


def test_without_steps_or_rows_nothing_is_called() -> None:
    """An empty block and an empty list of steps pass as they are."""
    block = make_block(make_batch(id=[1]), values=make_batch(x=[1.0]))
    assert postprocess(block, []) is block
    empty = make_block(make_batch(id=[1])[:0], values=make_batch(x=[1.0])[:0])
    assert postprocess(empty, [lambda _: pytest.fail("called")]) is empty


CHAINS: list[tuple[list[str], list[Any]]] = [
    (["logit"], ["sigmoid"]),
    (["logit"], ["sigmoid", {"threshold": {"at": 0.5}}, {"labels": {"output": "decision",
      "labels": ["n", "y"]}}]),
    (["logits"], ["softmax", {"top_k": {"k": 2}}]),
    (["a", "b"], [{"sigmoid": {"output": "b", "name": "p"}}]),
]  # fmt: skip


@pytest.mark.parametrize(("names", "written"), CHAINS)
def test_the_names_known_beforehand_are_those_that_come(names: list[str], written: Any) -> None:
    """What the plan says the scores will be called is what the steps call them."""
    steps = TypeAdapter(Steps).validate_python(written)
    wide = any("softmax" in str(step) for step in written)
    outputs = {name: [[1.0, 2.0]] if wide else [1.0] for name in names}
    assert sorted(score_kinds(names, steps) or ()) == sorted(_after(outputs, *steps))


def test_names_after_a_function_are_unknown() -> None:
    """Only the function decides what its columns are called."""
    step = UserFunction(function="f.py:f")
    assert score_kinds(["logit"], [Sigmoid(), step]) is None
    assert pa.record_batch(_after({"x": [1.0]}, lambda b: make_batch(z=[2.0]))).schema.names == [
        "z"
    ]


def test_scores_that_are_probabilities_are_known() -> None:
    """A sigmoid's are from 0 to 1, a softmax's add up to 1; the best of either are from 0 to 1."""
    top = TopK(k=2)
    assert score_kinds(["logit", "x"], [Sigmoid(output="logit")]) == {
        "x": "",
        "score": "probability",
    }
    assert score_kinds(["logits"], [Softmax()]) == {"scores": "classes"}
    best = {"top_labels": "", "top_scores": "probability"}
    assert score_kinds(["logits"], [Softmax(), top]) == best
    assert score_kinds(["logits"], [top]) == {"top_labels": "", "top_scores": ""}
    decided = [Sigmoid(), Threshold(at=0.5)]
    assert score_kinds(["logit"], decided) == {"score": "probability", "decision": ""}
