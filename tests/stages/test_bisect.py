"""Test that rows on which a step fails are isolated, and that all others keep order and bits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import StepError, StoppedError
from batchscore.models.backends.torch.forward import Forward
from batchscore.stages.bisect import PROBES, bisect
from batchscore.stages.block import Block, Reject, reject_rows, timed
from batchscore.stages.call import UserCall
from batchscore.stages.infer import infer
from batchscore.stages.postprocess import postprocess
from batchscore.stages.preprocess import InputColumns, stack_columns
from batchscore.stages.trial import Trial
from tests.factory import make_batch, make_block, make_unit

ROWS = 65_536


@dataclass
class Faulty:
    """A step that fails on a block with a guilty row, names the first, and counts its calls."""

    guilty: Collection[int]
    calls: list[int] = field(default_factory=list)

    def __call__(self, block: Block) -> Block:
        self.calls.append(len(block))
        rows_b = to_numpy(block.rows_b)
        bad = rows_b[np.isin(rows_b, list(self.guilty))]
        if len(bad):
            cause = ValueError(f"row {bad[0]}")
            raise StepError(f"the step raised ValueError: {cause}") from cause
        scores_b = np.sin(to_numpy(block.batch.column("x")))
        return replace(block, values=make_batch(score=to_arrow(scores_b)))


def _block(rows: int) -> Block:
    return make_block(make_batch(x=np.arange(rows) * 0.1))


def _bisect(
    block: Block, step: Callable[[Block], Block], limit: int = ROWS, passed: bool = False
) -> Block:
    return bisect(block, "infer", step, limit, Trial(passed))


def _rows(block: Block) -> list[int]:
    rows: list[int] = block.rows_b.to_pylist()
    return rows


def _rejected(block: Block) -> list[int]:
    return [row for reject in block.rejects for row in reject.rows_r.to_pylist()]


def _most_calls(rows: int, guilty: int) -> int:
    return 17 + 2 * guilty * math.ceil(math.log2(rows))


@st.composite
def guilts(draw: st.DrawFn) -> tuple[int, set[int]]:
    """A block's rows, and guilty ones: runs and single rows, fewer than the rows first tried."""
    rows = draw(st.integers(1, 3000))
    place = st.integers(0, rows - 1)
    runs = draw(st.lists(st.tuples(place, st.integers(1, 5)), min_size=1, max_size=3))
    return rows, {row for start, size in runs for row in range(start, min(rows, start + size))}


@pytest.mark.slow
@settings(deadline=None)
@given(guilts())
def test_all_rows_but_the_guilty_are_scored(given_rows: tuple[int, set[int]]) -> None:
    """Any guilty rows are rejected, each with its own words; the others keep order and bits."""
    rows, guilty = given_rows
    step, block = Faulty(guilty), _block(rows)
    done = _bisect(block, step)
    kept = [row for row in range(rows) if row not in guilty]
    assert _rows(done) == kept
    assert done.batch.equals(block.batch.take(pa.array(kept, pa.int64())))
    expected = Faulty(())(block).values
    if kept:
        assert expected is not None
        assert done.values is not None
        assert done.values.equals(expected.take(pa.array(kept, pa.int64())))
    assert [(r.stage, r.error, r.message) for r in done.rejects] == [
        ("infer", "ValueError", f"row {row}") for row in sorted(guilty)
    ]
    assert _rejected(done) == sorted(guilty)
    for reject in done.rejects:
        assert reject.batch.equals(block.batch.take(reject.rows_r))
    assert len(step.calls) <= _most_calls(rows, len(guilty))


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 2 * PROBES), st.data())
def test_of_a_small_block_any_rows_may_be_guilty(rows: int, data: st.DataObject) -> None:
    """Up to 32 rows no number of guilty ones is taken for an error of the code, not even all."""
    guilty = data.draw(st.sets(st.integers(0, rows - 1), min_size=rows // 2))
    done = _bisect(_block(rows), Faulty(guilty))
    assert _rows(done) == [row for row in range(rows) if row not in guilty]
    assert _rejected(done) == sorted(guilty)


@pytest.mark.parametrize("row", [0, 1, 32_767, 40_503, ROWS - 1])
def test_one_guilty_row_takes_two_calls_a_halving(row: int) -> None:
    """One of 65,536 rows is found in 34 calls, or 35 where it is the first that is tried."""
    step = Faulty({row})
    done = _bisect(_block(ROWS), step)
    assert (_rejected(done), len(done)) == ([row], ROWS - 1)
    assert len(step.calls) <= 1 + 2 + 2 * 16


def test_adjacent_guilty_rows_share_the_halvings() -> None:
    """Eight in a row take little more calls than one, not eight times as many."""
    step = Faulty(range(1_000, 1_008))
    done = _bisect(_block(ROWS), step)
    assert _rejected(done) == list(range(1_000, 1_008))
    assert len(step.calls) <= 1 + 2 + 2 * 16 + 2 * 8


@pytest.mark.parametrize(
    ("rows", "guilty"),
    [
        (ROWS, range(0, ROWS, ROWS // 16)),
        (ROWS, range(ROWS // 32, ROWS, ROWS // 16)),
        (256, range(0, 256, 2)),
        (256, range(1, 256, 2)),
        (256, range(32, 256)),
        (256, range(224)),
    ],
    ids=["each 4096th", "between them", "even", "odd", "all but the first", "all but the last"],
)
def test_regular_guilt_is_the_rows_own(rows: int, guilty: range) -> None:
    """Guilty rows at even distances, or in a long run, are not taken for an error of the code."""
    done = _bisect(_block(rows), Faulty(guilty))
    assert _rejected(done) == list(guilty)


@pytest.mark.parametrize("rows", [2 * PROBES + 1, 300, ROWS])
def test_a_step_that_always_fails_is_the_code(rows: int) -> None:
    """Where no row from all over the block is taken, the error leaves, after seventeen calls."""
    step = Faulty(range(rows))
    words = (
        "^the step raised ValueError: row 0; each of 16 rows .* the model or the code is at fault"
    )
    with pytest.raises(StepError, match=words) as caught:
        _bisect(_block(rows), step)
    assert step.calls == [rows] + [1] * PROBES
    assert isinstance(caught.value.__cause__.__cause__, ValueError)  # type: ignore[union-attr]


@pytest.mark.parametrize("rows", [2 * PROBES + 1, 300])
def test_a_step_that_worked_before_is_not_the_code(rows: int) -> None:
    """Once a row of the run was scored, all rows of a block may be guilty, up to the limit."""
    assert len(_rejected(_bisect(_block(rows), Faulty(range(rows)), passed=True))) == rows
    with pytest.raises(StepError, match=r"at least 5 rows .* at most 4"):
        _bisect(_block(rows), Faulty(range(rows)), 4, passed=True)


def test_rows_that_fail_differently_are_not_the_code() -> None:
    """Where rows fail with several classes of error, all are guilty, though none is scored."""

    def step(block: Block) -> Block:
        kind = (ValueError, KeyError)[_rows(block)[0] % 2]
        raise StepError("no") from kind("no")

    assert len(_rejected(_bisect(_block(100), step))) == 100


@settings(deadline=None)
@given(st.integers(2 * PROBES + 1, ROWS))
@example(2 * PROBES + 1)
def test_the_rows_first_tried_are_distinct(rows: int) -> None:
    """Sixteen different rows have failed before a step is given up, however small the block."""
    tried = set[int]()

    def step(block: Block) -> Block:
        if len(block) == 1:
            tried.update(_rows(block))
        raise StepError("no")

    with pytest.raises(StepError):
        _bisect(_block(rows), step)
    assert len(tried) == PROBES


def test_the_place_in_the_input_is_reported() -> None:
    """An error that leaves says in which batch, and the seconds of a step hold all its calls."""
    with pytest.raises(StepError, match=r"row 0; .* \(in the batch of 99 rows from row 0 of shard"):
        timed("infer", partial(_bisect, step=Faulty(range(99))), _block(99))
    done = timed("infer", partial(_bisect, step=Faulty({3})), _block(99))
    assert list(done.seconds) == ["infer"]


@pytest.mark.parametrize(("limit", "fails"), [(3, False), (2, True), (0, True)])
def test_more_guilty_rows_than_allowed_end_the_search(limit: int, fails: bool) -> None:
    """Once a block has more guilty rows than may be rejected, no others are looked for."""
    step, guilty = Faulty({5, 70, 800}), [5, 70, 800]
    if not fails:
        assert _rejected(_bisect(_block(1000), step, limit)) == guilty
        return
    words = (
        f"^the step raised ValueError: row 5; at least {limit + 1} rows? .* at most {limit} may be "
        r"rejected \(rejects.max_ratio, rejects.max_rows\):"
    )
    with pytest.raises(StepError, match=words):
        _bisect(_block(1000), step, limit)
    assert len(step.calls) <= 3 + 2 * 10 * (limit + 1)


def test_what_is_not_of_the_rows_is_untouched() -> None:
    """Unit, sequence, earlier rejects and seconds stay, on what is sliced and joined too."""
    batch = make_batch(x=np.arange(90.0))
    earlier = Reject("read", "Odd", "m", pa.array([7]), batch[:1])
    unit, rows = make_unit(999), pa.array(np.arange(90) + 500)
    block = Block(unit, 4, rows, batch, None, (earlier,), {"read": 2.0})
    done = _bisect(block, Faulty({500, 530}))
    assert (done.unit, done.sequence, done.seconds, done.end) == (unit, 4, {"read": 2.0}, None)
    assert done.rejects[0] is earlier
    assert _rejected(done) == [7, 500, 530]


def test_columns_that_a_function_made_stay_with_their_rows() -> None:
    """What is counted of them is of the rows that are left, in order."""

    def step(block: Block) -> Block:
        rows_b = to_numpy(block.rows_b)
        if np.isin(rows_b, [10, 60]).any():
            raise StepError("no such label")
        made = make_batch(code=to_arrow(rows_b))
        done = replace(block, values=block.batch, made=made)
        return reject_rows(done, to_arrow(rows_b == 30), "s", "Own", "m")

    done = _bisect(_block(100), step)
    assert done.made is not None
    assert done.made.column("code").to_pylist() == _rows(done)
    assert len(_rows(done)) == 97


def test_rejects_alike_are_merged() -> None:
    """Rows of one reason are one reject, also those that the step rejects itself, in order."""

    def step(block: Block) -> Block:
        rows_b = to_numpy(block.rows_b)
        if np.isin(rows_b, [10, 11, 60]).any():
            raise StepError("no such label")
        own = to_arrow((rows_b >= 20) & (rows_b < 50))
        return reject_rows(replace(block, values=block.batch), own, "infer", "Own", "m")

    done = _bisect(_block(100), step)
    assert [(r.error, r.message) for r in done.rejects if len(r.rows_r)] == [
        ("StepError", "no such label"),
        ("Own", "m"),
        ("StepError", "no such label"),
    ]
    assert _rejected(done) == [10, 11, *range(20, 50), 60]
    assert _rows(done) == [row for row in range(100) if row not in _rejected(done)]


def test_a_block_without_a_row_left_passes_the_other_steps() -> None:
    """Where every row of a small block is guilty, later steps and slices have nothing to do."""
    block = replace(_block(2), values=make_batch(x=[1.0, 2.0]))
    done = _bisect(block, Faulty({0, 1}))
    assert (len(done), done.values, done.batch.schema) == (0, None, block.batch.schema)
    forward = Forward(lambda _: pytest.fail("called"), (), "cpu", 1)
    assert postprocess(infer(done, forward), ()) is done


def _score(column: Callable[[Block], pa.Array]) -> Callable[[Block], Block]:
    """A step that fails on row 9, and scores the others so."""

    def step(block: Block) -> Block:
        Faulty({9})(block)
        return replace(block, values=make_batch(n=block.rows_b, score=column(block)))

    return step


def _null_unless_high(block: Block) -> pa.Array:
    """What pandas makes of None: of no type where there is nothing else."""
    texts = [f"{row}" if row > 50 else None for row in _rows(block)]
    return pa.array(texts, pa.string() if any(texts) else pa.null())


def test_columns_that_are_null_take_the_type_of_the_others() -> None:
    """A part of the block all of whose values are null takes its type from the other parts."""
    done = _bisect(_block(100), _score(_null_unless_high))
    assert done.values is not None
    expected = pa.array([f"{row}" if row > 50 else None for row in range(100) if row != 9])
    assert done.values.column("score").equals(expected)
    assert _rejected(done) == [9]


def test_a_null_in_place_of_a_float_is_no_score() -> None:
    """Rows that a whole block would reject for a null are rejected from a part of nulls too."""

    def column(block: Block) -> pa.Array:
        made = _null_unless_high(block)
        return made if made.null_count == len(made) else made.cast(pa.float64())

    done = _bisect(_block(100), _score(column))
    assert _rows(done) == list(range(51, 100))
    assert sorted(_rejected(done)) == list(range(51))
    assert {reject.error for reject in done.rejects} == {"ValueError", "NonFiniteScore"}


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            lambda b: b.rows_b if len(b) > 40 else b.rows_b.cast("double"),
            "score .*double vs int64;",
        ),
        (lambda b: pa.nulls(0) if len(b) > 40 else b.rows_b.cast("string"), "n, score, then n;"),
    ],
    ids=["type", "column"],
)
def test_parts_that_differ_are_an_error(column: Callable[[Block], pa.Array], words: str) -> None:
    """Columns or types that depend on the rows are reported, with what the difference is."""

    def step(block: Block) -> Block:
        Faulty({9})(block)
        made = {"n": block.rows_b, "score": column(block)}
        return replace(block, values=make_batch(**{k: v for k, v in made.items() if len(v)}))

    with pytest.raises(StepError, match=f"^infer returned different columns .*{words}"):
        _bisect(_block(100), step)


def _raise_bare(_: pa.RecordBatch) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (_raise_bare, "AssertionError", r"f\.py:f raised AssertionError.*test_bisect\.py line"),
        (lambda batch: None, "TypeError", r"f\.py:f returned a NoneType; expected a pyarrow"),
    ],
    ids=["assert", "nothing"],
)
def test_an_error_without_words_is_reported_in_the_steps(
    function: Any, error: str, words: str
) -> None:
    """A bare assertion rejects its row with the function and line that it is in."""
    call = UserCall("f.py:f", function, "arrow")
    block = make_block(make_batch(x=[0.0]))
    inputs = (InputColumns("x", "float32", (), ("x",)),)
    step = partial(stack_columns, inputs=inputs, function=call)
    (reject,) = bisect(block, "preprocess", step, ROWS, Trial(False)).rejects
    assert reject.error == error
    assert re.search(words, reject.message)


@pytest.mark.parametrize("error", [KeyError("k"), StoppedError("stop"), KeyboardInterrupt()])
def test_errors_that_are_not_a_steps_pass(error: BaseException) -> None:
    """What stops a run, or is a defect, is not tried again on the halves."""
    calls = []

    def step(block: Block) -> Block:
        calls.append(len(block))
        raise error

    with pytest.raises(type(error)) as caught:
        _bisect(_block(100), step)
    assert (caught.value, calls) == (error, [100])


def test_a_step_that_fails_without_rows_fails() -> None:
    """There is no guilty row in a block that has none: the step's error leaves as it is."""
    error = StepError("an empty frame")

    def step(block: Block) -> Block:
        raise error

    with pytest.raises(StepError) as caught:
        _bisect(make_block(make_batch(x=[1.0])[:0]), step)
    assert caught.value is error


def _encode(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"f": frame["text"].astype(float) / 3, "w": frame["day"].notna()})


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 199), min_size=1, max_size=9), st.integers(0, 199))
def test_a_function_is_spared_the_rows_it_cannot_take(bad: set[int], unreadable: int) -> None:
    """Of a pandas function, and of what pandas cannot hold, the error's class and words stay."""
    texts = [f"abc{row}" if row in bad else f"{row}" for row in range(200)]
    days = np.where(np.arange(200) == unreadable, 2**30, 9).astype(np.int32)
    batch = make_batch(text=texts, day=pa.array(days).cast(pa.date32()))
    step = partial(
        stack_columns,
        inputs=(InputColumns("x", "float32", (2,), ("f", "w")),),
        function=UserCall("f.py:encode", _encode, "pandas"),
    )
    done = bisect(make_block(batch), "preprocess", step, ROWS, Trial(False))
    guilty = sorted(bad | {unreadable})
    assert _rejected(done) == guilty
    assert {reject.error for reject in done.rejects} == {"ValueError"}
    reported = {row: reject.message for reject in done.rejects for row in reject.rows_r.to_pylist()}
    for row in guilty:
        words = "year .* out of range" if row == unreadable else rf"float: '?abc{row}'?$"
        assert re.search(words, reported[row])
    kept = [row for row in range(200) if row not in guilty]
    whole = step(make_block(batch.take(pa.array(kept))))
    assert done.values is not None
    assert whole.values is not None
    assert done.values.equals(whole.values)


WEIGHTS = torch.linspace(-1, 1, 33)


def _network(tensors: dict[str, torch.Tensor]) -> Any:
    if (tensors["x"][:, 0] == 7777).any():
        raise RuntimeError("index out of range")
    return torch.tanh(tensors["x"] @ WEIGHTS)


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(0, 4999), min_size=1, max_size=6), st.integers(1, 3))
def test_scores_have_the_bits_that_they_have_without_the_guilty(
    guilty: set[int], threads: int
) -> None:
    """What the network makes of a row does not depend on how the block was halved."""
    values_bf = np.random.default_rng(3).normal(size=(5000, 33)).astype(np.float32)
    values_bf[sorted(guilty), 0] = 7777
    values = make_batch(x=to_arrow(values_bf))
    block = make_block(make_batch(id=np.arange(5000)), values=values)
    step = partial(infer, model=Forward(_network, (), "cpu", threads))
    done = _bisect(block, step)
    kept_b = ~np.isin(np.arange(5000), list(guilty))
    alone = step(make_block(block.batch.filter(kept_b), values=values.filter(to_arrow(kept_b))))
    assert done.values is not None
    assert alone.values is not None
    found, expected = (to_numpy(values.column("score")) for values in (done.values, alone.values))
    assert found.tobytes() == expected.tobytes()
    assert _rejected(done) == sorted(guilty)
    assert {(r.error, r.message) for r in done.rejects} == {("RuntimeError", "index out of range")}
    assert pc.all(pc.equal(done.batch.column("id"), done.rows_b)).as_py()
