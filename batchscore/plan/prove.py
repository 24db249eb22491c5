"""Tries before a run whether a score depends on its row alone, on a sample of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from batchscore.columnar.arrays import to_numpy
from batchscore.errors import FailedError, FunctionError, InvalidError, ModelError, StepError
from batchscore.job import UserFunction
from batchscore.messages.wording import counted, one_line
from batchscore.models.load import Network, load_network
from batchscore.plan.auto import count_cores
from batchscore.plan.independence import Cause, Dependence, attempt, find_dependence, take
from batchscore.plan.plan import Plan
from batchscore.plan.sample import read_sample
from batchscore.plan.score_types import keep_published, learn_types, published_scores
from batchscore.stages.block import TILE_ROWS, Block, locate_rows
from batchscore.stages.infer.buckets import bucket_lengths, bucket_rows
from batchscore.stages.tally import Tallies
from batchscore.stages.typeless import Types, known_types
from batchscore.units.unit import Unit
from batchscore.worker.scoring import BlockStep, infer_step, postprocess_step, preprocess_step
from batchscore.worker.spec import RunSpec

# One tile of the network and half of another; or an eighth of a block, since all that is tried
# comes to seven samples at most; or at least enough rows for a difference to show.
_MOST_ROWS = TILE_ROWS + TILE_ROWS // 2
_SHARE = 8
_LEAST_ROWS = 32
# Where the network sees a single row at a time.
_FEW_CALLS = 16
# To isolate a row that a function raises for takes two dozen calls: of a sample with more of them
# the first rows are tried alone.
_MOST_GUILTY = 16
_MESSAGE_CHARACTERS = 200

_FAULTS: dict[Cause, str] = {
    "once more": "returns other values for the same rows when it is called once more",
    "other rows": "returns other values for a row at another place, beside other rows",
    "threads": "returns other values for a row when two threads call it at the same time",
}
_FUNCTION_REMEDIES: dict[Cause, str] = {
    "once more": (
        "take random numbers, the clock and counters out of it, or derive them from the row's own "
        "values, as from a hash of its id; a seed is not enough, since it goes by the row's place"
    ),
    "other rows": (
        "compute means, ranks, codes and similar values once, over the training data, and keep "
        "them in a file that the function reads, or in the model folder's preprocessing; and "
        "return the rows in the order in which they were given"
    ),
    "threads": (
        "use local variables for what it computes, in place of globals and attributes that its "
        "calls share; or keep one for each thread in a threading.local()"
    ),
}
_NETWORK_REMEDIES: dict[Cause, str] = {
    "once more": (
        "have eval() switch dropout off: register each nn.Dropout as a submodule, a list of them "
        "as an nn.ModuleList, and call functional.dropout with training=self.training; use no "
        "random numbers, and keep nothing from one call to the next"
    ),
    "other rows": (
        "compute softmax, means, sums, orders and similar values over a row's own dimensions, "
        "never over dimension 0, and give BatchNorm running statistics (track_running_stats=True)"
    ),
    "threads": (
        "use local variables for what forward computes, in place of globals and class attributes"
    ),
}


@dataclass(frozen=True)
class _Stage:
    """A stage of a sample's way.

    Args:
        name: of the function or the network, for a message; empty where the stage is batchscore's
            own and is not tried.
        values: what it makes, for a message.
        step: the stage.
        error: the class of what is wrong with it.
        remedies: what to do, by cause.
        alone: single rows to try.
        threads: whether threads may call it side by side.
    """

    name: str
    values: str
    step: BlockStep
    error: type[InvalidError]
    remedies: Mapping[Cause, str]
    alone: int
    threads: bool


@dataclass(frozen=True)
class Tried:
    """What a sample showed.

    Args:
        said: what was tried, in words.
        scores: types of the score columns, as far as they were found.
        open: whether rows were scored and the type of a score column is still unknown.
    """

    said: str
    scores: Types
    open: bool = False


def require_independent(plan: Plan, units: Sequence[Unit], network: Network | None) -> Tried:
    """Puts a sample of the units' rows through each stage again, elsewhere, and on two threads.

    Each stage is given what the one before made of the rows at first, so that what differs is its
    own.

    Args:
        network: the model on the CPU; None: it is loaded to the plan's device.

    Raises:
        FunctionError, ModelError: a function or the network makes something else of a row; the
            message says of which, and what to do.
    """
    source = plan.spec.source
    sample = read_sample(units, source, _sample_rows(source.batch_rows))
    if sample is None:
        return Tried("not tried: no row could be read for a sample", {})
    spec = _plain_spec(plan.spec)
    network = network or load_network(spec.model, spec.device)
    try:
        stages = _stages(spec, network)
        tried = _try_stages(spec, stages, sample)
        before = published_scores(spec)
        if tried.open:
            types = learn_types(spec, before, [stage.step for stage in stages], units)
            spec = replace(spec, scores=types)
            tried = _try_stages(spec, _stages(spec, network), sample)
            tried = replace(tried, scores={**types, **tried.scores})
        return replace(tried, scores=keep_published(before, tried.scores))
    except FailedError as error:
        raise InvalidError(str(error)) from error


def _sample_rows(batch_rows: int) -> int:
    return min(batch_rows, _MOST_ROWS, max(_LEAST_ROWS, batch_rows // _SHARE))


def _plain_spec(spec: RunSpec) -> RunSpec:
    """Returns a spec whose stages share nothing with a run, and call the network in float32."""
    return replace(
        spec,
        run="",
        precision="float32",
        compile=False,
        call_rows=min(spec.call_rows, TILE_ROWS),
        auto_rows=False,
        tile_threads=1,
        max_rejects=_MOST_GUILTY,
        fresh=True,
    )


def _stages(spec: RunSpec, network: Network) -> tuple[_Stage, ...]:
    before = [f"preprocess.function {spec.preprocess.function}"] if spec.preprocess else []
    after = [each.function for each in spec.postprocess if isinstance(each, UserFunction)]
    behind = [f"postprocess function {' or '.join(after)}"] if after else []
    made = f"architecture {spec.model.architecture}"
    ours = (FunctionError, _FUNCTION_REMEDIES, 4, True)
    theirs = (ModelError, _NETWORK_REMEDIES, 1, _may_share(network))
    return (
        _Stage("".join(before), "model input", preprocess_step(spec), *ours),
        _Stage(made, "output", infer_step(spec, network), *theirs),
        _Stage("".join(behind), "score", postprocess_step(spec), *ours),
    )


def _may_share(network: Network) -> bool:
    """Tells whether a worker of this machine would call the network on several threads."""
    several = count_cores() > 1 and network.device == "cpu"
    return several and network.twins is not None and network.twins.possible()


def _try_stages(spec: RunSpec, stages: Sequence[_Stage], block: Block) -> Tried:
    for stage in stages:
        block = _for_network(spec, block) if stage.values == "output" else block
        known = attempt(stage.step, _first_rows(block, len(block)))
        if isinstance(known, StepError) and len(block) > _LEAST_ROWS:
            block = _first_rows(block, _LEAST_ROWS)
            known = attempt(stage.step, _first_rows(block, len(block)))
        # The run, or the rehearsal, says what is wrong with the rows or the code.
        if isinstance(known, StepError):
            return Tried(f"not tried: {one_line(known, _MESSAGE_CHARACTERS)}", {})
        if not len(known):
            last = stage is stages[-1] and bool(stage.name)
            return Tried("not tried: no row of the sample has a score", {}, open=last)
        if stage.name:
            _require_alike(spec, stage, block, known)
        block = replace(known, rejects=())
    _require_checked(spec, block)
    types = known_types(block.values)
    assert block.values is not None
    return Tried(_said(len(block)), types, open=len(types) < block.values.num_columns)


def _said(rows: int) -> str:
    if rows == 1:
        return "1 row scores the same once more; no other row was there to score it beside"
    return f"{rows:,} rows score the same once more and beside other rows"


def _require_checked(spec: RunSpec, block: Block) -> None:
    """Raises StepError where there is no column or type for a check; a function names scores."""
    assert block.values is not None
    Tallies(spec.target.checks, block.unit).add([block.values, block.batch], block.rows_b)


def _first_rows(block: Block, rows: int) -> Block:
    """Returns copies of a block's first rows: a function may write into what it is given."""
    return take(block, np.arange(rows, dtype=np.int64))


def _for_network(spec: RunSpec, block: Block) -> Block:
    """Returns the rows to try the network with: as many as fit into a call or two of one shape."""
    assert block.values is not None
    varying = next((each for each in spec.model.inputs if each.varying), None)
    if varying is None or varying.varying is None:
        return _first_rows(block, _rows_of_calls(spec.call_rows, len(block)))
    lengths = bucket_lengths(varying.varying.max_length)
    steps_b = to_numpy(pc.list_value_length(block.values.column(varying.name)))
    buckets_b = np.searchsorted(lengths, steps_b)
    bucket = int(np.bincount(buckets_b).argmax())
    most = _rows_of_calls(bucket_rows(int(lengths[bucket]), spec.call_rows), len(block))
    usual = np.argsort(buckets_b != bucket, kind="stable")[:most]
    count = max(_FEW_CALLS, int((buckets_b == bucket).sum()))
    return take(block, np.sort(usual[:count]))


def _rows_of_calls(call_rows: int, rows: int) -> int:
    return min(rows, max(call_rows + call_rows // 2, _FEW_CALLS))


def _require_alike(spec: RunSpec, stage: _Stage, block: Block, known: Block) -> None:
    tolerance = spec.model.tolerance
    found = find_dependence(stage.step, block, known, tolerance, stage.alone, stage.threads)
    if found is None:
        return
    raise stage.error(
        f"{stage.name} {_FAULTS[found.cause]}. {_pairs(spec, stage, block, found)}. "
        f"Expected: the same, floats to within {tolerance:g}, the model's tolerance, since a score "
        f"must depend on its row alone. What to do: {stage.remedies[found.cause]}"
    )


def _pairs(spec: RunSpec, stage: _Stage, block: Block, found: Dependence) -> str:
    """Returns where rows differ and in what, the first of them with what was done."""
    before, after = _occasions(found)
    numbers = np.array([example.row for example in found.examples], np.int64)
    shards, rows = locate_rows(block.unit, numbers)
    pairs = zip(rows.to_pylist(), shards.to_pylist(), strict=True)
    places = [f"row {row} of shard {one_line(shard, 120)}" for row, shard in pairs]
    first, *others = found.examples
    text = f"{_column(spec, stage, found)}{places[0]}: {first.known} {before}, {first.made} {after}"
    text += "".join(
        f"; {place}: {each.known} and {each.made}"
        for place, each in zip(places[1:], others, strict=True)
    )
    more = f"; {found.changed:,} of {counted(found.compared, 'row')} changed"
    return text + (more if found.compared > 1 else "")


def _occasions(found: Dependence) -> tuple[str, str]:
    """Returns when a row had its first value, and when the other."""
    if found.cause == "once more":
        return "at first", "once more"
    if found.cause == "threads":
        return "on one thread", "beside a second thread"
    others = f"in one of {found.compared:,} of them" if found.compared > 1 else "alone"
    return f"in a batch of {counted(found.known_rows, 'row')}", others


def _column(spec: RunSpec, stage: _Stage, found: Dependence) -> str:
    if not found.column:
        return ""
    name = f"{stage.values} {found.column!r}"
    if found.element is None:
        return f"{name} of "
    fed = next((each.columns for each in spec.inputs if each.name == found.column), ())
    if stage.values == "model input" and found.element < len(fed) > 1:
        return f"{name}, column {fed[found.element]!r}, of "
    return f"{name}, number {found.element}, of "
