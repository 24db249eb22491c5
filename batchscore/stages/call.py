"""Calling a user's function on a record batch, as Arrow or pandas, and checking what it returns."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from batchscore.columnar.arrays import make_batch
from batchscore.errors import FunctionError, StepError
from batchscore.messages.wording import counted, error_text, reason, type_of

# Libraries raise errors of their own outside Exception, as do panics of Rust; these two end us.
_INTERRUPTS = (KeyboardInterrupt, GeneratorExit)
# Nor are rows at fault for what a function must not read or import.
_NOT_OF_ROWS = (*_INTERRUPTS, FunctionError)

_FORKED = "and the new process returned: it was ended; end it there with os._exit"


@dataclass(frozen=True)
class UserCall:
    """A user's function, the reference that named it, and the batches it takes: arrow or pandas."""

    reference: str
    function: Callable[[Any], Any]
    batch: str

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Calls the function and returns its result as a record batch of as many rows.

        Raises:
            StepError: It raised, returned something else, another number of rows, or a name twice;
                or pandas cannot hold a value of the batch. The cause is the error that was raised.
            FunctionError: It read or imported a file that the job does not list.
        """
        given, own = self._given(batch), os.getpid()
        try:
            result = self._returned(given, own)
        except _NOT_OF_ROWS:
            raise
        except BaseException as error:
            raise StepError(
                f"function {self.reference} raised {type(error).__name__}: "
                f"{reason(error)} ({_last_line(error)})"
            ) from error
        made = self._as_batch(result)
        if made.num_rows != batch.num_rows:
            raise StepError(
                f"function {self.reference} returned {counted(made.num_rows, 'row')} for a batch "
                f"of {counted(batch.num_rows, 'row')}; expected one row for each, in the same order"
            )
        self._check_index(given, result)
        self._check_names(made.schema.names)
        return made

    def _returned(self, given: Any, own: int) -> Any:
        try:
            return self.function(given)
        finally:
            # A copy of this process would go on with the run, and write into the same files.
            if os.getpid() != own:
                os.write(2, f"function {self.reference} forked, {_FORKED}\n".encode())
                os._exit(1)

    def _given(self, batch: pa.RecordBatch) -> Any:
        if self.batch != "pandas":
            return batch
        try:
            return batch.to_pandas()
        except _INTERRUPTS:
            raise
        except BaseException as error:
            raise StepError(
                f"function {self.reference}: the batch cannot become a pandas DataFrame "
                f"({reason(error)}); take the rows out of the input, or use Arrow batches"
            ) from error

    def _check_index(self, given: Any, result: Any) -> None:
        """A frame whose index changed was sorted or filtered: its rows are not those given."""
        if self.batch == "pandas" and _is_frame(result) and not result.index.equals(given.index):
            raise StepError(
                f"function {self.reference} returned a frame with another index; expected the rows "
                "in the order given: undo sorting, or set the index of the given frame again"
            )

    def _check_names(self, names: Sequence[Any]) -> None:
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise StepError(
                f"function {self.reference} returned column {twice!r} twice; rename one"
            )

    def _as_batch(self, result: Any) -> pa.RecordBatch:
        if _is_frame(result):
            self._check_names(list(result.columns))
        try:
            return _to_batch(result)
        except _INTERRUPTS:
            raise
        except BaseException as error:
            raise StepError(
                f"function {self.reference} returned {type_of(result)}"
                f"{_reason(error)}; expected a pyarrow RecordBatch or Table, or a pandas DataFrame"
            ) from error


def batch_kind(function: Callable[..., Any]) -> str:
    """Reads from a function's first annotation whether it takes pandas batches; else arrow."""
    hints = list(getattr(function, "__annotations__", {}).items())
    first = str(hints[0][1]) if hints and hints[0][0] != "return" else ""
    return "pandas" if "DataFrame" in first else "arrow"


def _to_batch(result: Any) -> pa.RecordBatch:
    if isinstance(result, pa.RecordBatch):
        return result
    if isinstance(result, pa.Table):
        return _one_batch(result)
    if _is_frame(result):
        return _one_batch(pa.Table.from_pandas(result, preserve_index=False))
    raise TypeError


def _is_frame(result: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(result, pandas.DataFrame)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    fields = [pa.field(f.name, f.type) for f in table.schema]
    columns = [_one_array(column) for column in table.columns]
    return make_batch(columns, pa.schema(fields), table.num_rows)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _reason(error: BaseException) -> str:
    text = error_text(error)
    return f" that cannot be one batch ({text})" if text else ""


def _is_own(path: str) -> bool:
    """Tells whether a file is neither a library's nor compiled."""
    return os.path.isabs(path) and not path.startswith(_libraries())


@cache
def _libraries() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(os.path.join(sysconfig.get_path(name), "") for name in names)


def _last_line(error: BaseException) -> str:
    """Returns where an error comes from: in the job's code, if it passed through that."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if _is_own(each.filename)]
    last = (own or frames)[-1]
    return f"{last.filename.rsplit('/', 1)[-1]} line {last.lineno}"
