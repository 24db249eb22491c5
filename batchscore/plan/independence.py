"""Whether a stage makes the same of a row again, elsewhere, on two threads, and made afresh."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, take_rows, to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.plan.alike import describe_pair, differing_rows
from batchscore.plan.positions import halves, lone_rows, other_beginning
from batchscore.stages.bisect import join_parts
from batchscore.stages.block import Block, Step

Cause = Literal["once more", "other rows", "threads", "afresh", "died"]

_DIED = "ModelProcessDied"
_EXAMPLES = 3
# Python gives another thread its turn after 5 ms, in which a whole batch may be done.
_SWITCH_SECONDS = 1e-5
# So long a thread waits for the others, at most.
_START_SECONDS = 5.0


@dataclass(frozen=True)
class ChangedRow:
    """A row that changed: its number in the unit, and what the stage made of it each time."""

    row: int
    known: str
    made: str


@dataclass(frozen=True)
class Dependence:
    """What a stage's result for a row turned out to depend on.

    Args:
        cause: What was different when the result changed; or that the model's process died of a
            row at one time and not at another.
        column: Column of the result; empty where whole rows or columns differ.
        element: Element of a vector, which differs; else None.
        examples: A few of the rows.
        changed: Rows that changed in this column.
        compared: Rows that were compared.
        known_rows: Rows of the batch that held the rows first.
    """

    cause: Cause
    column: str
    element: int | None
    examples: tuple[ChangedRow, ...]
    changed: int
    compared: int
    known_rows: int


@dataclass(frozen=True)
class Ways:
    """How a stage is tried.

    Args:
        alone: Single rows to try, up to 4.
        enter: What each of two threads does before both call the stage at the same time, as to
            build its own network; None if one thread at a time may call it.
        afresh: Makes the stage again, without what it kept of calls before; None if it cannot be
            made again.
    """

    alone: int
    enter: Callable[[], object] | None
    afresh: Callable[[], Step | None]


def find_dependence(
    step: Step, block: Block, known: Block, tolerance: float, ways: Ways
) -> Dependence | None:
    """Puts a block's rows through a step at other places, and compares them with what is known.

    The step gets copies, and is called for the same block, for half of its rows in another order,
    and for single rows. It is made afresh, and called for other rows first. Last it is called for
    both halves at the same time. A step that fails, or rejects a row, in one place only is a
    difference too.

    Args:
        step: Called with blocks of these rows.
        block: What the step was given.
        known: What it made of it; at least one row.
        tolerance: The largest difference of floats.
        ways: How the step is tried.

    Returns:
        The first difference; None where there is none.
    """
    compare = partial(_compare, block, known, tolerance)

    def call(cause: Cause, places: Array) -> Dependence | None:
        return compare(cause, places, attempt(step, take(block, places)))

    first, second = halves(block, known)
    found = call("once more", np.arange(len(block), dtype=np.int64))
    apart = [second] if ways.enter is None else []
    for places in (first, *lone_rows(block, known)[: ways.alone], *apart):
        found = found or call("other rows", places)
    beginning = other_beginning(block, known)
    found = found or _find_afresh(compare, block, beginning, ways)
    if found is None and ways.enter is not None:
        made = _at_once(step, ways.enter, [take(block, first), take(block, second)])
        for places, each in zip((first, second), made, strict=True):
            found = found or compare("threads", places, each)
    # Of these rows it is not known yet what they come to on one thread, and not made afresh.
    not_yet: dict[Cause, Array] = {"threads": second, "afresh": beginning}
    if found is not None and found.cause in not_yet:
        found = call("other rows", not_yet[found.cause]) or found
    return found


def _find_afresh(
    compare: Callable[[Cause, Array, Block | StepError], Dependence | None],
    block: Block,
    places: Array,
    ways: Ways,
) -> Dependence | None:
    step = ways.afresh()
    made = attempt(step, take(block, places)) if step is not None else None
    # A step that fails for all rows may be one that cannot be twice in a process.
    if not isinstance(made, Block) or not len(made):
        return None
    return compare("afresh", places, made)


def take(block: Block, places: Array) -> Block:
    """Returns a block of copies of some of a block's rows, in the order given."""
    index = to_arrow(places)
    values = take_rows(block.values, index) if block.values is not None else None
    batch = take_rows(block.batch, index)
    made = take_rows(block.made, index) if block.made is not None else None
    facts = (block.unit, block.sequence, block.rows_b.take(index), batch, values)
    return Block(*facts, made=made)


def attempt(step: Step, block: Block) -> Block | StepError:
    """Returns what a step makes of a block, or the error that it fails with."""
    try:
        return step(block)
    except StepError as error:
        return error


def in_batches(step: Step, rows: int, stage: str, block: Block) -> Block:
    """Calls a step for batches of at most so many rows, and joins what it makes of them.

    Raises:
        StepError: The step's own error; or it made other columns of one batch than of others.
    """
    if len(block) <= rows:
        return step(block)
    starts = range(0, len(block), rows)
    places = (np.arange(start, min(start + rows, len(block)), dtype=np.int64) for start in starts)
    made = [step(take(block, each)) for each in places]
    filled = [each for done in made for each in ([done] if len(done) else done.rejects)]
    return join_parts(block, stage, filled)


def _at_once(
    step: Step, enter: Callable[[], object], blocks: Sequence[Block]
) -> list[Block | StepError]:
    """Calls a step for each block from a thread of its own, all at the same time.

    A debugger, or a tool that measures coverage, may end a thread as it starts. The calling thread
    does its work then, and the others do not wait for it.
    """
    often = partial(sys.setswitchinterval, _SWITCH_SECONDS)
    start = threading.Barrier(len(blocks), often, _START_SECONDS)

    def run(block: Block, made: Future[Block | StepError]) -> None:
        try:
            enter()
            with suppress(threading.BrokenBarrierError):
                start.wait()
            made.set_result(attempt(step, block))
        except BaseException as error:
            made.set_exception(error)

    tried = [(block, Future[Block | StepError]()) for block in blocks]
    _run_all([threading.Thread(target=run, args=each, name="alone") for each in tried])
    return [made.result() if made.done() else attempt(step, block) for block, made in tried]


def _run_all(threads: Sequence[threading.Thread]) -> None:
    before = sys.getswitchinterval()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def _compare(
    block: Block,
    known: Block,
    tolerance: float,
    cause: Cause,
    places: Array,
    made: Block | StepError,
) -> Dependence | None:
    """Returns how what a step made of some rows differs from what it made of them before."""
    rows = to_numpy(block.rows_b)[places]
    facts = (len(rows), len(block))
    if isinstance(made, StepError):
        examples = tuple(ChangedRow(int(row), "no error", str(made)) for row in rows[:1])
        return Dependence(cause, "", None, examples, len(rows), *facts)
    moved = _moved(rows, known, made)
    if moved:
        cause = "died" if _has_died(moved, known) or _has_died(moved, made) else cause
        return Dependence(cause, "", None, tuple(moved[:_EXAMPLES]), len(moved), *facts)
    if made.values is None or known.values is None or not len(made):
        return None
    names, others = known.values.schema.names, made.values.schema.names
    if names != others:
        listed = (f"columns {_listed(each)}" for each in (names, others))
        example = ChangedRow(int(rows[0]), *listed)
        return Dependence(cause, "", None, (example,), len(rows), *facts)
    return _differing(known, made, tolerance, cause, facts)


def _moved(rows: Array, known: Block, made: Block) -> list[ChangedRow]:
    """Returns the rows that are rejected in one of two results only."""
    before_b, after_b = (np.isin(rows, to_numpy(each.rows_b)) for each in (known, made))
    moved = rows[(before_b != after_b) & ~np.isin(rows, _with_null(known))]
    return [ChangedRow(int(row), _fate(known, int(row)), _fate(made, int(row))) for row in moved]


def _has_died(moved: Sequence[ChangedRow], block: Block) -> bool:
    """Tells whether one of the rows is rejected since the model's process died of it."""
    numbers = [each.row for each in moved]
    deaths = (reject for reject in block.rejects if reject.error == _DIED)
    return any(np.isin(to_numpy(reject.rows_r), numbers).any() for reject in deaths)


def _with_null(known: Block) -> Array:
    """Returns the rows of which a text, a boolean or a time is null.

    Among rows that have no other value, pandas gives it no type, and it may be a missing number.
    """
    assert known.values is not None
    null_b = np.zeros(len(known), np.bool_)
    for column in known.values.columns:
        null_b |= to_numpy(column.is_null())
    return np.asarray(to_numpy(known.rows_b)[null_b])


def _fate(block: Block, row: int) -> str:
    for reject in block.rejects:
        if row in to_numpy(reject.rows_r):
            return f"rejected ({reject.message})"
    return "not rejected"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _differing(
    known: Block, made: Block, tolerance: float, cause: Cause, facts: tuple[int, int]
) -> Dependence | None:
    assert known.values is not None
    assert made.values is not None
    rows = to_numpy(made.rows_b)
    index = to_arrow(np.searchsorted(to_numpy(known.rows_b), rows).astype(np.int64))
    before_b = take_rows(known.values, index)
    for name in known.values.schema.names:
        pair: tuple[pa.Array, pa.Array] = (before_b.column(name), made.values.column(name))
        places = np.flatnonzero(differing_rows(*pair, tolerance))
        places = places[np.argsort(rows[places], kind="stable")]
        if len(places):
            shown = [describe_pair(*pair, int(p), tolerance) for p in places[:_EXAMPLES]]
            examples = tuple(
                ChangedRow(int(rows[place]), before, after)
                for place, (_, before, after) in zip(places, shown, strict=False)
            )
            return Dependence(cause, name, shown[0][0], examples, len(places), *facts)
    return None
