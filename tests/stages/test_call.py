"""Test calling a user's function: what it is given, what is made of its result, what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batchscore.errors import StepError
from batchscore.stages.call import UserCall, batch_kind
from tests.factory import make_batch

BATCH = make_batch(x=[1.0, 2.0, 3.0], t=["a", "b", None])


def _call(function: Any, batch: str = "arrow") -> pa.RecordBatch:
    return UserCall("f.py:f", function, batch)(BATCH)


@pytest.mark.parametrize(
    "function",
    [
        lambda batch: batch,
        lambda batch: pa.Table.from_batches([batch]),
        lambda batch: pa.Table.from_batches([batch[:1], batch[1:]]),
        lambda batch: batch.to_pandas().set_index(pd.Index([7, 8, 9])),
    ],
    ids=["batch", "table", "chunked table", "frame with an index of its own"],
)
def test_any_table_of_the_same_rows_is_taken(function: Any) -> None:
    """A record batch, a table in chunks and a data frame give the same batch, without an index."""
    assert _call(function).to_pydict() == BATCH.to_pydict()


def test_a_pandas_function_is_given_a_frame() -> None:
    """With batch: pandas the function sees a data frame, and its result becomes Arrow."""

    def double(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"y": frame["x"] * 2})

    assert _call(double, "pandas").to_pydict() == {"y": [2.0, 4.0, 6.0]}


def test_an_empty_chunked_column_is_taken() -> None:
    """A table without rows, and so without chunks, is a batch without rows."""
    call = UserCall("f.py:f", lambda b: pa.table({"y": pa.chunked_array([], pa.int8())}), "arrow")
    assert call(BATCH[:0]).num_rows == 0


def _frame(batch: pd.DataFrame) -> None: ...
def _quoted(batch: "pd.DataFrame") -> None: ...  # noqa: UP037
def _arrow(batch: pa.RecordBatch, other: pd.DataFrame) -> None: ...
def _returns(batch) -> pd.DataFrame: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (_frame, "pandas"),
        (_quoted, "pandas"),
        (_arrow, "arrow"),
        (_returns, "arrow"),
        (len, "arrow"),
    ],
)
def test_the_first_annotation_says_which_batch(function: Any, kind: str) -> None:
    """Only a first argument annotated as a data frame makes a function a pandas one."""
    assert batch_kind(function) == kind


def _misread(batch: Any) -> Any:
    return pc.cast(pa.array(["x"]), pa.int64())


def _raise(_: Any) -> Any:
    raise KeyError("no such\n column")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_misread, r"f\.py:f raised ArrowInvalid: .*\(test_call\.py line \d+\)"),
        (_raise, r"f\.py:f raised KeyError: .*no such.*test_call\.py line \d+"),
        (lambda batch: 3, "f.py:f returned an int; expected a pyarrow"),
        (lambda batch: batch[:2], "returned 2 rows for a batch of 3"),
        (lambda batch: None, "NoneType.*expected a pyarrow RecordBatch"),
        (lambda batch: batch.to_pydict(), "dict.*expected a pyarrow RecordBatch"),
        (lambda batch: pd.DataFrame({"y": [1, "a", {}]}), "cannot be one batch"),
        (
            lambda b: pa.RecordBatch.from_arrays([b["x"], b["x"]], names=["y", "y"]),
            "returned column 'y' twice",
        ),
        (lambda b: pa.Table.from_arrays([b["x"], b["x"]], names=["y", "y"]), "column 'y' twice"),
        (lambda b: pd.DataFrame([[1, 2]] * 3, columns=["y", "y"]), "returned column 'y' twice"),
        (lambda b: pd.DataFrame([[1, 2]] * 3, columns=[0, "0"]), "returned column '0' twice"),
        (lambda b: pd.DataFrame({"y": [2**70] * 3}), "cannot be one batch.*too large"),
        (lambda b: pd.Series([1, 2, 3]), "Series.*expected a pyarrow RecordBatch"),
    ],
    ids=[
        *(
            "raises in a library",
            "raises",
            "a number",
            "too few rows",
            "nothing",
            "a dict",
            "mixed objects",
            "twice",
        ),
        *("twice in a table", "twice in a frame", "twice as text", "huge number", "a series"),
    ],
)
def test_each_misfit_is_one_clear_error(function: Any, words: str) -> None:
    """What a function does wrong is reported with its name and what was expected."""
    with pytest.raises(StepError, match=words) as caught:
        _call(function)
    assert "\n" not in str(caught.value)


def test_a_long_message_is_shortened() -> None:
    """An error's text of a megabyte does not fill the screen."""

    def fail(_: Any) -> Any:
        raise ValueError("x" * 1_000_000)

    with pytest.raises(StepError) as caught:
        _call(fail)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: frame.sort_values("a", ascending=False),
        lambda frame: frame.set_index("a", drop=False),
        lambda frame: frame.iloc[::-1],
    ],
    ids=["sorted", "reindexed", "reversed"],
)
def test_a_frame_whose_rows_moved_is_refused(function: Any) -> None:
    """Rows that a pandas function put in another order would get each other's scores."""
    batch = pa.record_batch({"a": [1, 3, 2]})
    with pytest.raises(StepError, match="another index; expected the rows in the order given"):
        UserCall("f.py:f", function, "pandas")(batch)


@pytest.mark.parametrize("result", [[1, 2, 3], "abc", pd.Series([1, 2, 3], [7, 8, 9])])
def test_what_only_has_an_index_is_no_frame(result: Any) -> None:
    """A pandas function that returns a list, a text or a series learns what to return."""
    with pytest.raises(StepError, match="expected a pyarrow RecordBatch"):
        _call(lambda frame: result, "pandas")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([9, 2**30], pa.int32()).cast(pa.date32()), "year 2941775 is out of range"),
        (pa.array([9, 2**62], pa.time64("us")), "hour must be in"),
    ],
    ids=["date", "time"],
)
def test_a_value_that_pandas_cannot_hold_is_reported(column: pa.Array, words: str) -> None:
    """What fails before the function is called is an error of the step as well."""
    call = UserCall("f.py:f", lambda frame: frame, "pandas")
    with pytest.raises(StepError, match=f"cannot become a pandas DataFrame.*{words}"):
        call(pa.record_batch([column], names=["a"]))
    assert call(pa.record_batch([column[:1]], names=["a"])).num_rows == 1


def test_the_functions_own_error_is_the_cause() -> None:
    """The class and words of what a function raised are reported with the row that it raised on."""
    with pytest.raises(StepError) as caught:
        _call(_raise)
    assert isinstance(caught.value.__cause__, KeyError)


class PanicError(BaseException):
    """An error outside Exception, whose text cannot be had."""

    def __str__(self) -> str:
        raise PanicError


@pytest.mark.parametrize("kind", [PanicError, asyncio.CancelledError, SystemExit])
def test_errors_outside_exception_are_the_steps(kind: type[BaseException]) -> None:
    """What a library raises outside Exception is reported with the function, at once and later."""

    def fail(*_: Any) -> Any:
        raise kind

    with pytest.raises(StepError, match=f"raised {kind.__name__}: {kind.__name__}"):
        _call(fail)
    frame = type("Frame", (pd.DataFrame,), {"__getitem__": fail})
    with pytest.raises(StepError, match="expected a pyarrow RecordBatch"):
        _call(lambda _: frame({"y": [1, 2, 3]}))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_goes_through(kind: type[BaseException]) -> None:
    """Ctrl-C within a function ends the run and blames no row."""

    def fail(_: Any) -> Any:
        raise kind

    with pytest.raises(kind):
        _call(fail)


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "raise ValueError"])
def test_a_forked_copy_does_not_go_on(end: str) -> None:
    """One process goes on with the batch; the message says what became of the other."""
    code = f"""
import os, sys
import pyarrow as pa
from batchscore.stages.call import UserCall

def forks(batch):
    forked = os.fork()
    if not forked:
        {end}
    else:
        assert os.waitpid(forked, 0)[1] == 1 << 8
    return batch

try:
    UserCall("f.py:forks", forks, "arrow")(pa.record_batch({{"x": [1]}}))
finally:
    os.write(1, b"went on\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("went on\n", 0), done.stderr
    assert "function f.py:forks forked, and the new process returned: it was ended" in done.stderr
