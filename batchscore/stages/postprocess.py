"""Model outputs to scores: sigmoid, softmax, top-k, threshold, labels, or a user's function.

Suffixes: `_bc` rows by classes, `_bk` rows by the k best classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.job import AnyStep, Labels, Sigmoid, Softmax, Threshold, TopK
from batchscore.messages.wording import counted
from batchscore.stages.block import Block, reject_non_finite
from batchscore.stages.typeless import Types, typed

Columns = dict[str, pa.Array]
Call = Callable[[pa.RecordBatch], pa.RecordBatch]

_SCORE_NAMES = {"logit": "score", "logits": "scores"}


def postprocess(
    block: Block, steps: Sequence[AnyStep | Call], known: Types = MappingProxyType({})
) -> Block:
    """Replaces a block's model outputs by what the steps make of them, one after the other.

    Rows for which a step makes a NaN or an infinity are rejected.

    Args:
        steps: of the job file; a user's function is given as what calls it.
        known: types of scores, for columns that have no value here.

    Raises:
        StepError: a step does not fit the outputs, or a user's function failed.
    """
    if block.values is None or not len(block) or not steps:
        return block
    columns = dict(zip(block.values.schema.names, block.values.columns, strict=True))
    for step in steps:
        columns = _apply(step, columns)
    values = typed(pa.record_batch(list(columns.values()), names=list(columns)), known)
    done = replace(block, values=values)
    return reject_non_finite(done, "postprocess", "postprocessing made NaN, infinity or null")


def _apply(step: AnyStep | Call, columns: Columns) -> Columns:
    if isinstance(step, (Sigmoid, Softmax)):
        return _activate(step, columns)
    if isinstance(step, TopK):
        return _top_k(step, columns)
    if isinstance(step, Threshold):
        name = _chosen(step.output, columns)
        scores = _floats(name, columns[name])
        return _merged(columns, {step.name: to_arrow(scores >= step.at)})
    if isinstance(step, Labels):
        name = _chosen(step.output, columns)
        return _merged(columns, {step.name: _label(name, columns[name], step.labels)})
    assert callable(step)
    made = step(pa.record_batch(list(columns.values()), names=list(columns)))
    if not made.num_columns:
        raise StepError("postprocess: a function returned no columns; expected at least one score")
    return dict(zip(made.schema.names, made.columns, strict=True))


def _merged(columns: Columns, new: Columns) -> Columns:
    clash = next((name for name in new if name in columns), None)
    if clash is not None:
        raise StepError(
            f"postprocess: {clash!r} would appear twice, the outputs so far are {list(columns)}; "
            "give the step another name"
        )
    return {**columns, **new}


def _chosen(wanted: str | None, columns: Columns) -> str:
    if wanted is None and len(columns) == 1:
        return next(iter(columns))
    if wanted in columns:
        return str(wanted)
    raise StepError(
        f"postprocess: output {wanted!r} is not there"
        if wanted
        else f"postprocess: name an output; the outputs so far are {list(columns)}"
    )


def _activate(step: Sigmoid | Softmax, columns: Columns) -> Columns:
    name = _chosen(step.output, columns)
    logits = _floats(name, columns[name])
    scores = sigmoid(logits) if isinstance(step, Sigmoid) else softmax(_classes(name, logits))
    new = step.name or _SCORE_NAMES.get(name, name)
    others = {key: value for key, value in columns.items() if key != name}
    done = _merged(others, {new: to_arrow(scores)})
    return {key: done[key] for key in (new if key == name else key for key in columns)}


def sigmoid(logits: Array) -> Array:
    """Returns 1 / (1 + e^-x) without overflow, element by element, in the type given."""
    decay = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, decay) / (1 + decay), logits.dtype)


def softmax(logits_bc: Array) -> Array:
    """Returns each row's probabilities (b, c), without overflow, in the type given."""
    powers_bc = np.exp(logits_bc - logits_bc.max(axis=1, keepdims=True))
    # Added class by class: a row's sum must not depend on how NumPy blocks the array.
    total_b = powers_bc[:, 0].copy()
    for column_b in powers_bc.T[1:]:
        total_b += column_b
    return np.asarray(powers_bc / total_b[:, None])


def _top_k(step: TopK, columns: Columns) -> Columns:
    name = _chosen(step.output, columns)
    scores_bc = _classes(name, _floats(name, columns[name]))
    classes = scores_bc.shape[1]
    if step.k > classes or (step.labels and len(step.labels) != classes):
        raise StepError(
            f"postprocess: top_k of output {name!r} has {counted(classes, 'class')}; "
            f"k is {step.k}, and there are labels for {len(step.labels or ())}"
        )
    best_bk = np.argsort(-scores_bc, axis=1, kind="stable")[:, : step.k]
    top_bk = np.take_along_axis(scores_bc, best_bk, axis=1)
    kept = {key: value for key, value in columns.items() if key != name}
    best = {
        f"{step.name}_labels": _take_labels(best_bk, step.labels),
        f"{step.name}_scores": to_arrow(top_bk),
    }
    return _merged(kept, best)


def _take_labels(index_bk: Array, labels: Sequence[str] | None) -> pa.Array:
    index_bk = index_bk.astype(np.int64)
    if labels is None:
        return to_arrow(index_bk)
    texts = pa.array(labels, pa.string()).take(to_arrow(index_bk.reshape(-1)))
    return pa.FixedSizeListArray.from_arrays(texts, index_bk.shape[1])


def _label(name: str, column: pa.Array, labels: Sequence[str]) -> pa.Array:
    values = _numbers(name, column)
    if values.ndim == 2:
        if values.shape[1] != len(labels):
            raise StepError(
                f"postprocess: output {name!r} has {counted(values.shape[1], 'class')}, "
                f"and the job has {counted(len(labels), 'label')}"
            )
        index_b = values.argmax(axis=1)
    elif values.ndim == 1 and values.dtype.kind in "bui":
        index_b = values
    else:
        raise StepError(
            f"postprocess: labels of output {name!r}, a column of {column.type}: expected class "
            "scores, a boolean or an integer class; put a threshold before it"
        )
    outside = (index_b < 0) | (index_b >= len(labels))
    if outside.any():
        raise StepError(
            f"postprocess: output {name!r} holds class {index_b[outside][0]}, "
            f"and the job has {counted(len(labels), 'label')}"
        )
    return pa.array(labels, pa.string()).take(to_arrow(index_b.astype(np.int64)))


def _classes(name: str, values: Array) -> Array:
    if values.ndim != 2:
        raise StepError(
            f"postprocess: output {name!r} has shape {list(values.shape[1:])} a row; "
            "expected one score for each class"
        )
    return values


def _floats(name: str, column: pa.Array) -> Array:
    values = _numbers(name, column)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _numbers(name: str, column: pa.Array) -> Array:
    try:
        return to_numpy(column)
    except ValueError as error:
        raise StepError(f"postprocess: output {name!r}: {error}; expected numbers") from error


def score_kinds(names: Sequence[str], steps: Sequence[Any]) -> dict[str, str] | None:
    """Returns the names of the scores that steps make of outputs, and what is known of them.

    `probability` are from 0 to 1, `classes` add up to 1 as well, of others nothing is known (an
    empty text). None: a function decides.
    """
    kinds = dict.fromkeys(names, "")
    for step in steps:
        if isinstance(step, (Sigmoid, Softmax, TopK)):
            old = step.output or next(iter(kinds))
            kinds |= _new_kinds(step, old, kinds.pop(old, ""))
        elif isinstance(step, (Threshold, Labels)):
            kinds[step.name] = ""
        else:
            return None
    return kinds


def _new_kinds(step: Sigmoid | Softmax | TopK, old: str, kind: str) -> dict[str, str]:
    if isinstance(step, TopK):
        return {f"{step.name}_labels": "", f"{step.name}_scores": "probability" if kind else ""}
    name = step.name or _SCORE_NAMES.get(old, old)
    return {name: "probability" if isinstance(step, Sigmoid) else "classes"}
