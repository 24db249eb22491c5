"""A block that a step fails on, halved until the rows that it fails on are alone and rejected.

Suffixes: `_p` places of rows that are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import make_batch
from batchscore.errors import StepError, UnfitStepError
from batchscore.messages.wording import counted, error_text, reason
from batchscore.stages.block import Block, Reject, Step, reject_non_finite
from batchscore.stages.trial import Trial

PROBES = 16
# Steps of the golden ratio spread over a block evenly, but fall in with no period of its rows.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


def bisect(block: Block, stage: str, step: Step, limit: int, trial: Trial) -> Block:
    """Runs a step on a block and rejects the rows that it fails on; all others keep their order.

    A block that fails is halved, and each half that fails likewise, until the guilty rows are
    alone: at most 2·log2(b) calls for each, and 17 more. A guilty row is rejected with the class
    and the words of the error that the step's own names as its cause; if there is none, or it has
    no words, with the step's own.

    While the trial is not passed, it is the model or the code, and not the rows, when a block of
    more than 32 rows fails, and each of 16 rows of it tried alone, spread over the block, fails
    with one class of error: then nothing is rejected. The trying ends at the first of them that
    does not. Of 32 rows or fewer, all may be guilty.

    Args:
        block: Any but a unit's end.
        stage: Reported with the rejected rows.
        step: Called with slices of the block; rows that it rejects itself are kept as rejects.
        limit: The most rows that may be guilty.
        trial: Whether rows were scored before; is only read.

    Raises:
        StepError: All of the 16 rows fail alike; more rows are guilty than the limit allows; the
            step returned other columns for some rows than for others; or it fails without any row.
        UnfitStepError: The step's own, since no row can pass.
    """
    done = _attempt(step, block)
    if isinstance(done, Block):
        return done
    if not len(block) or isinstance(done, UnfitStepError):
        raise done
    if not trial.passed:
        _check_hope(block, step, done)
    parts = list(_limited(_isolate(block, stage, step, done), limit, done))
    return join_parts(block, stage, parts)


def _attempt(step: Step, block: Block) -> Block | StepError:
    try:
        return step(block)
    except StepError as error:
        return error


def _check_hope(block: Block, step: Step, error: StepError) -> None:
    """Raises StepError when rows from all over a failed block fail alike on their own."""
    rows = len(block)
    if rows <= 2 * PROBES:
        return
    places_p = (np.arange(1, PROBES + 1) * _GOLDEN_RATIO % 1 * rows).astype(np.int64)
    kinds = set[type[BaseException]]()
    for place in places_p:
        done = _attempt(step, _slice(block, int(place), 1))
        if isinstance(done, Block):
            return
        kinds.add(type(_own(done)))
        if len(kinds) > 1:
            return
    raise StepError(
        f"{error}; each of {PROBES} rows fails alone in the same way, so the model or the code is "
        "at fault, not these rows. Correct it, or check the columns that it gets"
    ) from error


def _own(error: StepError) -> BaseException:
    """Returns what the step's error names as its cause, if anything."""
    return error.__cause__ or error


def _isolate(block: Block, stage: str, step: Step, error: StepError) -> Iterator[Block | Reject]:
    """Yields in order what a failed block's parts become: scored blocks and guilty rows."""
    rows = len(block)
    if rows == 1:
        yield _reject(block, stage, error)
        return
    middle = rows // 2
    for half in (_slice(block, 0, middle), _slice(block, middle, rows - middle)):
        done = _attempt(step, half)
        if isinstance(done, Block):
            yield done
        else:
            yield from _isolate(half, stage, step, done)


def _reject(row: Block, stage: str, error: StepError) -> Reject:
    own = _own(error)
    message = reason(own if error_text(own) else error)
    details = pa.array([reason(error)])
    return Reject(stage, type(own).__name__, message, row.rows_b, row.batch, details)


def _slice(block: Block, start: int, rows: int) -> Block:
    """Returns some rows of a block, which share its memory and have no rejects yet."""
    return replace(
        block,
        rows_b=block.rows_b.slice(start, rows),
        batch=block.batch.slice(start, rows),
        values=block.values.slice(start, rows) if block.values is not None else None,
        made=block.made.slice(start, rows) if block.made is not None else None,
        rejects=(),
    )


def _limited(
    parts: Iterable[Block | Reject], limit: int, error: StepError
) -> Iterator[Block | Reject]:
    guilty = 0
    for part in parts:
        guilty += isinstance(part, Reject)
        if guilty > limit:
            raise StepError(
                f"{error}; at least {counted(guilty, 'row')} of one batch failed, and of the whole "
                f"run at most {limit:,} may be rejected (rejects.max_ratio, rejects.max_rows): "
                "correct the rows or the code, or allow more"
            ) from error
        yield part


def join_parts(block: Block, stage: str, parts: Sequence[Block | Reject]) -> Block:
    """Returns a block of what a stage made of its parts: scored blocks and guilty rows, in order.

    Raises:
        StepError: The stage made other columns of one part than of others.
    """
    found = [r for part in parts for r in ([part] if isinstance(part, Reject) else part.rejects)]
    rejects = (*block.rejects, *_merge_rejects(found))
    scored = [part for part in parts if isinstance(part, Block)]
    values = [part.values for part in scored if part.values is not None]
    made = [part.made for part in scored if part.made is not None]
    if not scored:
        return replace(_slice(block, 0, 0), values=None, rejects=rejects)
    joined = replace(
        block,
        rows_b=pa.concat_arrays([part.rows_b for part in scored]),
        batch=_concat([part.batch for part in scored], block.batch.schema),
        values=_concat(values, _common_schema(values, stage)),
        made=_concat(made, _common_schema(made, stage)) if made else None,
        rejects=rejects,
    )
    if all(part.schema == values[0].schema for part in values):
        return joined
    # A null that had no type when its part was checked may be in the place of a float.
    return reject_non_finite(joined, stage, "a score is null where other rows have a number")


def _merge_rejects(rejects: Iterable[Reject]) -> Iterator[Reject]:
    """Yields neighbours of one stage, error and message as one."""
    for reasons, group in groupby(rejects, key=lambda each: (each.stage, each.error, each.message)):
        alike = list(group)
        batch = _concat([each.batch for each in alike], alike[0].batch.schema)
        details = pa.concat_arrays([each.texts for each in alike])
        yield Reject(*reasons, pa.concat_arrays([each.rows_r for each in alike]), batch, details)


def _common_schema(batches: Sequence[pa.RecordBatch], stage: str) -> pa.Schema:
    """Returns what the batches have in common, a null type giving way to any other."""
    schemas = [batch.schema for batch in batches]
    other = next((s.names for s in schemas if s.names != schemas[0].names), None)
    if other is not None:
        raise _misfit(stage, f"{', '.join(schemas[0].names)}, then {', '.join(other)}")
    try:
        return pa.unify_schemas(schemas, promote_options="default")
    except pa.ArrowTypeError as error:
        raise _misfit(stage, reason(error)) from error


def _misfit(stage: str, difference: str) -> StepError:
    return StepError(
        f"{stage} returned different columns for different rows of one batch: {difference}; a "
        "function must return the same columns and types each time"
    )


def _concat(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.concat_arrays([batch.column(index).cast(field.type) for batch in batches])
        for index, field in enumerate(schema)
    ]
    return make_batch(columns, schema, sum(batch.num_rows for batch in batches))
