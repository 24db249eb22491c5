"""Says of which stage a score depends on more than its row, on which rows, and what to do."""

from __future__ import annotations

from typing import Literal

import numpy as np

from batchscore.messages.wording import counted, one_line
from batchscore.plan.independence import Cause, Dependence
from batchscore.stages.block import Block, locate_rows
from batchscore.worker.spec import Spec

Values = Literal["model input", "output", "score"]
"""What a stage makes, for a message."""

_FAULTS: dict[Cause, str] = {
    "once more": "returns other values for the same rows when it is called once more",
    "other rows": "returns other values for a row at another place, next to other rows",
    "threads": "returns other values for a row when two threads call it at the same time",
    "afresh": "returns other values for a row in another process, which meets other rows first",
    "died": "ends its process at a row that it scored at another time",
}
_FUNCTION_REMEDIES: dict[Cause, str] = {
    "once more": (
        "take random numbers, the clock and counters out of it, or derive them from the row's "
        "own values, as from a hash of its id; a seed is not enough, since it depends on the "
        "row's place"
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
    "afresh": (
        "keep nothing of earlier calls that later ones use, such as codes by the order in which "
        "values are first seen, or means of the first batch: compute them once, over the training "
        "data, and keep them in a file that the function reads; take no random numbers, ids or "
        "times while it is imported; and in place of hash(), which has another seed in each "
        "process, use zlib.crc32 or hashlib"
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
    "afresh": (
        "keep nothing in forward that later calls use, such as means of the first batch or the "
        "largest value so far: compute it in training, and save it with the weights as a buffer"
    ),
}
_DEATH_REMEDY = (
    "find where its native code crashes (with PYTHONFAULTHANDLER=1 in the environment Python names "
    "the line): it may have been another row, or another thread, that damaged the process"
)
_MODEL_REMEDY = (
    "correct the model, or its backend: each row's outputs must come from its own inputs, whatever "
    "other rows, threads or earlier calls do"
)


def describe(spec: Spec, name: str, values: Values, block: Block, found: Dependence) -> str:
    """Returns the message of a stage that makes something else of a row.

    Args:
        name: Name of the function or the network.
        values: What it makes.
        block: What it was given.
        found: The difference.
    """
    return (
        f"{name} {_FAULTS[found.cause]}. {_pairs(spec, values, block, found)}. Expected: the same, "
        f"floats to within {spec.scoring.model.tolerance:g}, the model's tolerance, since a score "
        f"must depend on its row alone. What to do: {_remedy(spec, values, found.cause)}"
    )


def _remedy(spec: Spec, values: Values, cause: Cause) -> str:
    if cause == "died":
        return _DEATH_REMEDY
    if values != "output":
        return _FUNCTION_REMEDIES[cause]
    # The advice on networks is for code that a person can change.
    return _NETWORK_REMEDIES[cause] if spec.scoring.model.architecture else _MODEL_REMEDY


def _pairs(spec: Spec, values: Values, block: Block, found: Dependence) -> str:
    """Returns where rows differ and in what, the first of them with what was done."""
    before, after = _occasions(found)
    numbers = np.array([example.row for example in found.examples], np.int64)
    shards, rows = locate_rows(block.unit, numbers)
    pairs = zip(rows.to_pylist(), shards.to_pylist(), strict=True)
    places = [f"row {row} of shard {one_line(shard, 120)}" for row, shard in pairs]
    first, *others = found.examples
    text = (
        f"{_column(spec, values, found)}{places[0]}: {first.known} {before}, {first.made} {after}"
    )
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
    if found.cause == "died":
        return "at one time", "at another"
    if found.cause == "threads":
        return "on one thread", "next to a second thread"
    if found.cause == "afresh":
        return "in this process", "in another"
    others = f"in one of {found.compared:,} of them" if found.compared > 1 else "alone"
    return f"in a batch of {counted(found.known_rows, 'row')}", others


def _column(spec: Spec, values: Values, found: Dependence) -> str:
    if not found.column:
        return ""
    name = f"{values} {found.column!r}"
    if found.element is None:
        return f"{name} of "
    fed = next((each.columns for each in spec.scoring.inputs if each.name == found.column), ())
    if values == "model input" and found.element < len(fed) > 1:
        return f"{name}, column {fed[found.element]!r}, of "
    return f"{name}, number {found.element}, of "
