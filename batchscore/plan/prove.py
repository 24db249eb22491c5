"""Tries before a run whether a score depends on its row alone, on a sample of its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import Array, to_numpy
from batchscore.errors import (
    FailedError,
    FunctionError,
    InvalidError,
    JobFileError,
    ModelError,
    StepError,
    UnfitStepError,
)
from batchscore.job import UserFunction
from batchscore.messages.wording import counted, of_count, one_line, reason
from batchscore.models.afresh import AFRESH
from batchscore.models.backends.facts import TILE_ROWS, Sample
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.registry import backend_of
from batchscore.models.importing import forget
from batchscore.plan.declared_scores import check_score_range
from batchscore.plan.independence import Ways, attempt, find_dependence, in_batches, take
from batchscore.plan.plan import Plan
from batchscore.plan.refusal import Values, describe
from batchscore.plan.sample import read_spread
from batchscore.plan.score_types import keep_published, learn_types, published_scores
from batchscore.stages.block import Block
from batchscore.stages.tally import Tallies
from batchscore.stages.typeless import Types, known_types
from batchscore.system.resources import count_cores, has_room
from batchscore.units.unit import Unit
from batchscore.worker.scoring import (
    BlockStep,
    infer_step,
    load_plain,
    postprocess_step,
    preprocess_step,
)
from batchscore.worker.spec import Spec

# All calls of a function come to four and a half samples: an eighth of a block, or at least enough
# rows for a difference to show.
_MOST_ROWS = TILE_ROWS + TILE_ROWS // 2
_SHARE = 8
_LEAST_ROWS = 32
# To isolate a row that a function raises for takes two dozen calls: of a sample with more of them
# the first rows are tried alone.
_MOST_GUILTY = 16
_MESSAGE_CHARACTERS = 200


@dataclass(frozen=True)
class _Stage:
    """A stage of a sample's way.

    Args:
        name: Name of the function or the network, for a message; empty where the stage is
            batchscore's own and is not tried.
        values: What it makes, for a message.
        error: The class of what is wrong with it.
        step: The stage.
        ways: How it is tried.
    """

    name: str
    values: Values
    error: type[InvalidError]
    step: BlockStep
    ways: Ways


_Prepare = Callable[[Spec, Block, list[str]], tuple[Sequence[_Stage], Block]]
"""Returns the forms of a stage that are tried until one does not fail, and the rows for it.

The list takes why a stage could not be made again.
"""


@dataclass(frozen=True)
class Tried:
    """What a sample showed.

    Args:
        said: What was tried, in words.
        scores: Types of the score columns, as far as they were found, and of published columns.
        names: Names of the score columns, where a row of the sample has scores.
        open: Whether rows were scored and the type of a score column is still unknown.
    """

    said: str
    scores: Types
    names: tuple[str, ...] = ()
    open: bool = False


@dataclass(frozen=True)
class SampleRows:
    """The rows of a sample.

    Args:
        block: The rows; None if none could be read.
    """

    block: Block | None


def require_independent(
    plan: Plan,
    units: Sequence[Unit],
    sample: SampleRows,
    predictor: Predictor | None,
    again: bool = True,
) -> Tried:
    """Puts a sample of the units' rows through each stage again, elsewhere, and on two threads.

    Each stage is given what the one before made of the rows at first, so that what differs is its
    own. Last the stage is made again, as in another process, and begins with other rows.

    Args:
        plan: What a run would do.
        units: What is to be scored.
        sample: What `read_sample_rows` returned for them.
        predictor: The model on the CPU; None: it is loaded to the plan's device.
        again: Whether the model is made again; its functions are in any case.

    Raises:
        FunctionError, ModelError: A function or the network makes something else of a row; the
            message says of which, and what to do.
    """
    if sample.block is None:
        return Tried("not tried: no row could be read for a sample", {})
    spec = _plain_spec(plan.spec)
    predictor = predictor or load_plain(spec)
    try:
        skipped = list[str]()
        ways = (_before, partial(_inside, predictor=predictor, again=again))
        outputs = _try_stages(spec, ways, sample.block, skipped)
        if isinstance(outputs, Tried):
            return outputs
        tried, before = _try_scores(spec, outputs, skipped), published_scores(spec)
        if tried.open:
            types = learn_types(spec, before, _steps(spec, predictor), units)
            tried = _try_scores(_with_types(spec, types), outputs, skipped)
            tried = replace(tried, scores={**types, **tried.scores})
        return replace(tried, scores=keep_published(before, tried.scores))
    except FailedError as error:
        raise InvalidError(str(error)) from error
    finally:
        forget(AFRESH)


def read_sample_rows(plan: Plan, units: Sequence[Unit]) -> SampleRows:
    """Reads rows to score; if they are few, with others of the input, published ones too."""
    source = plan.spec.scoring.source
    rows = min(_MOST_ROWS, max(_LEAST_ROWS, source.batch_rows // _SHARE))
    asked = {piece.shard.path for unit in units for piece in unit.pieces}
    others = tuple(piece for piece in plan.pieces if piece.shard.path not in asked)
    return SampleRows(read_spread(units, [Unit("others", others)], source, rows, _LEAST_ROWS))


def _plain_spec(spec: Spec) -> Spec:
    """Returns a spec whose stages share nothing with a run, and call the network in float32."""
    execution = replace(
        spec.execution,
        precision="float32",
        compile=False,
        call_rows=min(spec.execution.call_rows, TILE_ROWS),
        auto_rows=False,
        tile_threads=1,
        max_rejects=_MOST_GUILTY,
        fresh=True,
    )
    return replace(spec, execution=execution)


def _with_types(spec: Spec, types: Types) -> Spec:
    return replace(spec, scoring=replace(spec.scoring, scores=types))


def _steps(spec: Spec, predictor: Predictor) -> list[BlockStep]:
    return [preprocess_step(spec), infer_step(spec, predictor), postprocess_step(spec)]


def _try_scores(spec: Spec, outputs: Block, skipped: list[str]) -> Tried:
    """Tries what comes after the network; once more with types that some of its batches tell.

    Where no row of a batch has a text, its nulls have no type, and are rejected. Other batches of
    the sample may tell it.
    """
    try:
        return _try_after(spec, outputs, skipped)
    except FunctionError:
        types = {**spec.scoring.scores, **_types_of(spec, outputs)}
        if types == dict(spec.scoring.scores):
            raise
        return _try_after(_with_types(spec, types), outputs, skipped)


def _types_of(spec: Spec, outputs: Block) -> Types:
    """Returns the types of score columns that any batch of a sample tells."""
    types: dict[str, pa.DataType] = {}

    def learn(step: BlockStep, block: Block) -> Block:
        made = step(block)
        types.update(known_types(made.values))
        return made

    attempt(_batched(spec, "score", partial(learn, postprocess_step(spec))), outputs)
    return types


def _try_after(spec: Spec, outputs: Block, skipped: list[str]) -> Tried:
    block = _try_stages(spec, (_after,), outputs, skipped)
    if isinstance(block, Tried):
        return block
    _require_checked(spec, block)
    types = {**spec.scoring.scores, **known_types(block.values)}
    assert block.values is not None
    said = _said(len(block), spec, skipped)
    names = tuple(block.values.schema.names)
    return Tried(said, types, names, open=len(types) < len(names))


def _try_stages(
    spec: Spec, ways: Sequence[_Prepare], block: Block, skipped: list[str]
) -> Block | Tried:
    """Returns what stages make of a block, one after the other; or why they were not tried."""
    for prepare in ways:
        stages, block = prepare(spec, block, skipped)
        stage, block, known = _first_result(stages, block)
        if isinstance(known, UnfitStepError):
            raise JobFileError(f"{known}: correct postprocess") from known
        # The run, or the rehearsal, says what is wrong with the rows or the code.
        if isinstance(known, StepError):
            return Tried(f"not tried: {one_line(known, _MESSAGE_CHARACTERS)}", {})
        if not len(known):
            last = stage.values == "score" and bool(stage.name)
            return Tried("not tried: no row of the sample has a score", {}, open=last)
        if stage.name:
            _require_alike(spec, stage, block, known)
        block = replace(known, rejects=())
    return block


def _before(spec: Spec, block: Block, skipped: list[str]) -> tuple[Sequence[_Stage], Block]:
    name = (
        f"preprocess.function {spec.scoring.preprocess.function}" if spec.scoring.preprocess else ""
    )
    return [_of_functions(spec, name, "model input", preprocess_step, skipped)], block


def _after(spec: Spec, block: Block, skipped: list[str]) -> tuple[Sequence[_Stage], Block]:
    after = [each.function for each in spec.scoring.postprocess if isinstance(each, UserFunction)]
    name = f"postprocess function {' or '.join(after)}" if after else ""
    return [_of_functions(spec, name, "score", postprocess_step, skipped)], block


def _of_functions(
    spec: Spec,
    name: str,
    values: Values,
    make: Callable[[Spec, int], BlockStep],
    skipped: list[str],
) -> _Stage:
    def afresh() -> BlockStep:
        if not has_room():  # its modules may hold as much as this process does
            raise MemoryError("less memory is free than the process holds")
        return _batched(spec, values, make(spec, AFRESH))

    ways = Ways(4, _nothing, partial(_made_again, name, afresh, skipped))
    return _Stage(name, values, FunctionError, _batched(spec, values, make(spec, 0)), ways)


def _inside(
    spec: Spec, block: Block, skipped: list[str], predictor: Predictor, again: bool
) -> tuple[Sequence[_Stage], Block]:
    """Returns how to try the model, and with which rows: the backend knows what shows most."""
    lengths_b, most = _lengths(spec, block)
    sample = Sample(
        len(block), lengths_b, most, spec.execution.call_rows, spec.scoring.source.batch_rows
    )
    trial = backend_of(spec.scoring.model.format).trial(sample)
    stages = [_of_network(spec, predictor, size, skipped, again) for size in trial.sizes]
    return stages, take(block, trial.places_n)


def _lengths(spec: Spec, block: Block) -> tuple[Array | None, int]:
    """Returns the steps of each row in inputs of varying length, and the most that it may have."""
    assert block.values is not None
    varying = next((each for each in spec.scoring.model.inputs if each.varying), None)
    if varying is None or varying.varying is None:
        return None, 0
    steps_b = to_numpy(pc.list_value_length(block.values.column(varying.name)))
    return steps_b, varying.varying.max_length


def _of_network(
    spec: Spec, predictor: Predictor, call_rows: int, skipped: list[str], again: bool
) -> _Stage:
    sized = replace(spec, execution=replace(spec.execution, call_rows=call_rows))

    def afresh() -> BlockStep:
        return _batched(spec, "output", infer_step(sized, predictor.again() or load_plain(spec)))

    built = spec.scoring.model.architecture
    name = f"architecture {built}" if built else f"model {spec.scoring.model.name!r}"
    made = partial(_made_again, name, afresh, skipped) if again else _nothing
    ways = Ways(1, _own(predictor), made)
    step = _batched(spec, "output", infer_step(sized, predictor))
    return _Stage(name, "output", ModelError, step, ways)


def _batched(spec: Spec, values: Values, step: BlockStep) -> BlockStep:
    return partial(in_batches, step, spec.scoring.source.batch_rows, values)


def _made_again(name: str, make: Callable[[], BlockStep], skipped: list[str]) -> BlockStep | None:
    """Returns a stage as another process makes it; None if this one cannot make it twice."""
    try:
        return make()
    except Exception as error:  # user code raises what it likes, a GPU that its memory ran out
        skipped.append(f"{name} cannot be loaded twice ({reason(_first_cause(error))})")
        return None


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _nothing() -> None:
    """A function needs nothing for a thread of its own; a model that is kept is not made again."""


def _own(predictor: Predictor) -> Callable[[], object] | None:
    """Returns what a thread does before it calls the model; None if one thread calls at a time."""
    return None if count_cores() == 1 else predictor.enter()


def _first_result(
    stages: Sequence[_Stage], block: Block
) -> tuple[_Stage, Block, Block | StepError]:
    """Returns the first of a stage's forms that makes something of rows, these, and its result."""
    tries = [(stage, block) for stage in stages]
    if len(block) > _LEAST_ROWS:
        tries.append((stages[-1], _first_rows(block, _LEAST_ROWS)))
    for stage, rows in tries:
        given = _first_rows(rows, len(rows))
        before = _column_bytes(given) if stage.error is FunctionError else {}
        known = attempt(stage.step, given)
        _require_kept(stage.name, before, given)
        if isinstance(known, Block) and len(known):
            break
    return stage, rows, known


def _column_bytes(block: Block) -> dict[str, bytes]:
    """Returns what the memory of each source column holds, by name."""
    columns = zip(block.batch.schema.names, block.batch.columns, strict=True)
    return {
        name: b"".join(bytes(buffer) for buffer in column.buffers() if buffer is not None)
        for name, column in columns
    }


def _require_kept(function: str, before: dict[str, bytes], block: Block) -> None:
    """Raises FunctionError where a function wrote into the columns that are published."""
    after = _column_bytes(block) if before else {}
    changed = [name for name, held in before.items() if held != after[name]]
    if changed:
        raise FunctionError(
            f"{function}: writes into column {changed[0]!r} that it is given, which would be "
            "published changed; copy values before they are changed in place, as by "
            "torch.tensor(values) in place of torch.from_numpy(values)"
        )


def _said(rows: int, spec: Spec, skipped: Sequence[str]) -> str:
    if spec.scoring.source.batch_rows == 1:
        said = (
            f"{counted(rows, 'batch')} of 1 row {of_count(rows, 'scores', 'score')} the same again"
        )
    elif rows == 1:
        said = "1 row scores the same when repeated; there was no other row to score it with"
    else:
        said = f"{rows:,} rows score the same when repeated and next to other rows"
    return "; not tried as in another process: ".join([said, *skipped[:1]])


def _require_checked(spec: Spec, block: Block) -> None:
    """Refuses checks without their column or type; a function may have named the scores.

    Raises:
        StepError: No column of a check, or not its type.
        JobFileError: No score for `score_range`.
    """
    assert block.values is not None
    known = known_types(block.values)
    types = {name: known.get(name, pa.null()) for name in block.values.schema.names}
    check_score_range(spec.scoring.checks, types)
    Tallies(spec.scoring.target.checks, block.unit).add([block.values, block.batch], block.rows_b)


def _first_rows(block: Block, rows: int) -> Block:
    """Returns copies of a block's first rows: a function may write into what it is given."""
    return take(block, np.arange(min(rows, len(block)), dtype=np.int64))


def _require_alike(spec: Spec, stage: _Stage, block: Block, known: Block) -> None:
    found = find_dependence(stage.step, block, known, spec.scoring.model.tolerance, stage.ways)
    if found is not None:
        rows = min(found.known_rows, spec.scoring.source.batch_rows)
        found = replace(found, known_rows=rows)
        raise stage.error(describe(spec, stage.name, stage.values, block, found))
