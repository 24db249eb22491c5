"""Tests of the reasons of scores, with a model whose contributions are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.arrays import Array, to_arrow
from batchscore.errors import FailedError, UnfitStepError
from batchscore.models.backends.facts import CONTRIBUTIONS, RAW, Inputs, Outputs
from batchscore.stages import reasons
from batchscore.stages.block import Block, decode_block, encode_block, reject_rows
from batchscore.stages.reasons import KIND, Explaining, explain
from tests.factory import make_batch, make_block

COLUMNS = ("a", "b", "a", "c")


class Linear:
    """Each number of the inputs contributes itself; the base is 0.25."""

    late = False

    def __init__(self, error: float = 0.0) -> None:
        self.rows: list[int] = []
        self._error = error

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        self.rows.append(rows)
        x = np.asarray(inputs["x"], np.float64)
        base = np.full((len(x), 1), 0.25 + self._error)
        found = {CONTRIBUTIONS: np.hstack([x, base]), RAW: x.sum(axis=1) + 0.25}
        return lambda: found

    def take_extra_seconds(self) -> float:
        return 0.0


def wanted(**changes: Any) -> Explaining:
    facts = {"top": 2, "above": None, "score": None, "columns": COLUMNS, "named": ("a", "b", "c")}
    return Explaining(**{**facts, **changes})


def blocks(x: Array, scores: Array | None = None) -> tuple[Block, Block]:
    """Returns a block with inputs, and the same with scores."""
    numbers = np.arange(len(x))
    sums = x.sum(axis=1) if scores is None else scores
    source = make_batch(id=numbers)
    inputs = make_block(source, values=pa.record_batch([to_arrow(x)], names=["x"]))
    return inputs, make_block(source, values=make_batch(score=to_arrow(sums)))


def made(block: Block) -> list[Any]:
    assert block.values is not None
    assert block.values.schema.field("reasons").type == KIND
    block.values.validate(full=True)
    found = block.values.column("reasons").to_pylist()
    return [None if r is None else [(e["column"], e["contribution"]) for e in r] for r in found]


def expected(x: Sequence[float], top: int, named: Sequence[str]) -> list[tuple[str, float]]:
    """Adds up by column in plain Python, and takes the largest."""
    sums = dict.fromkeys(named, 0.0)
    for name, value in zip(COLUMNS, x, strict=True):
        if name in sums:
            sums[name] += value
    ranked = sorted(sums.items(), key=lambda item: -abs(item[1]))[:top]
    return [(name, value) for name, value in ranked if value]


ROWS = st.lists(st.lists(st.integers(-3, 3).map(float), min_size=4, max_size=4), max_size=12)


@given(
    ROWS,
    st.integers(1, 4),
    st.none() | st.integers(-9, 9).map(float),
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True, min_size=1),
    st.sampled_from([1, 10, 1000]),
    st.sets(st.integers(0, 11)),
)
def test_reasons_are_the_columns_that_moved_a_score_most(
    rows: list[list[float]],
    top: int,
    above: float | None,
    named: list[str],
    part: int,
    rejected: set[int],
) -> None:
    """Of any rows that are left, in parts of any size; only explained rows reach the model."""
    x = np.array(rows, np.float64).reshape(-1, 4)
    given_, scored = blocks(x)
    scored = reject_rows(
        scored, to_arrow(np.isin(np.arange(len(x)), list(rejected))), "postprocess", "E", "m"
    )
    model = Linear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasons, "_PART_NUMBERS", part)
        asked = wanted(top=top, above=above, named=tuple(named))
        done = explain(scored, given_, asked, model)
    left = [row for place, row in enumerate(rows) if place not in rejected]
    chosen = [above is None or sum(row) > above for row in left]
    if left:
        assert made(done) == [
            expected(row, top, named) if is_chosen else None
            for row, is_chosen in zip(left, chosen, strict=True)
        ]
        assert made(decode_block(encode_block(done))) == made(done)
    assert sum(model.rows) == sum(chosen)


def test_of_a_vector_of_scores_the_largest_counts() -> None:
    """A row is explained if any of its classes is above the bound."""
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.95]])
    given_, scored = blocks(np.ones((3, 4)), scores)
    done = explain(scored, given_, wanted(above=0.8), Linear())
    assert [each is not None for each in made(done)] == [True, False, True]


@pytest.mark.parametrize(("error", "is_right"), [(9e-6, True), (2e-5, False), (np.nan, False)])
def test_what_does_not_add_up_fails(error: float, is_right: bool) -> None:
    """The message names the row and both sums."""
    given_, scored = blocks(np.full((3, 4), 0.1))
    if is_right:
        explain(scored, given_, wanted(), Linear(error))
        return
    with pytest.raises(FailedError, match=r"explain: row 0 of shard .* raw score 0.65; expected"):
        explain(scored, given_, wanted(), Linear(error))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_row_without_a_finite_raw_score_is_rejected_alone(bad: float) -> None:
    """Its probability may be a number all the same; the other rows keep their reasons."""
    x = np.full((4, 4), 0.1)
    x[2, 1] = bad
    given_, scored = blocks(x, np.array([0.1, 0.9, 1.0, 0.9]))
    done = explain(scored, given_, wanted(above=0.5), Linear())
    assert made(done) == [None, *[[("a", 0.2), ("b", 0.1)]] * 2]
    (reject,) = done.rejects
    assert (reject.stage, reject.error, reject.rows_r.to_pylist()) == (
        "explain",
        "NonFiniteScore",
        [2],
    )


def test_a_large_score_may_be_off_by_as_much_more() -> None:
    """The bound is relative above 1."""
    given_, scored = blocks(np.full((1, 4), 1e5))
    explain(scored, given_, wanted(), Linear(3.0))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "the scores that hold numbers are score, more; name the one"),
        ({"score": "scores"}, "no score of numbers is named 'scores'; nearest: 'score'"),
    ],
)
def test_the_score_that_is_compared_must_be_clear(asked: dict[str, Any], message: str) -> None:
    """Of several one is named, and texts are none."""
    given_, scored = blocks(np.ones((2, 4)))
    assert scored.values is not None
    values = make_batch(
        score=scored.values.column(0), more=scored.values.column(0), text=["a", "b"]
    )
    scored = make_block(scored.batch, values=values)
    with pytest.raises(UnfitStepError, match=message):
        explain(scored, given_, wanted(above=0.5, **asked), Linear())
