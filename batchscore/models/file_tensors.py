"""Inputs and outputs that a model's own file names, with those that its card or job names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.facts import Facts, FileTensor
from batchscore.models.features import Features, input_shapes
from batchscore.models.inputs import ModelInput, check_varying
from batchscore.models.loadable import Model, ModelOutput
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Plain

# What holds the numbers of a type that a table of scores does not have.
_WIDER = {"float16": "float32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
# The type of an input for which a job says nothing but its columns.
_UNSAID = "float32"


def with_file_tensors(model: Model, facts: Facts, where: str, typed: bool) -> Model:
    """Returns a model with the inputs and outputs of its file, as far as nobody else names them.

    Args:
        model: One whose inputs and outputs may be declared.
        facts: What its file says.
        where: What declares them, for messages.
        typed: Whether each input that is declared has a type; otherwise it may have the default.

    Raises:
        ModelError: What is declared is not what the file says, or nobody says it.
    """
    names = [each.name for each in facts.taken]
    for each in model.inputs:
        if each.name not in names:
            raise ModelError(
                f"{where}: the file has no input {each.name!r}; {nearest(each.name, names)}"
            )
    given = {each.name: each for each in model.inputs}
    free = () if typed else (_UNSAID,)
    inputs = tuple(_input(where, each, given.get(each.name), free, facts) for each in facts.taken)
    check_varying(inputs)
    outputs = model.outputs or tuple(_output(where, each) for each in facts.made)
    named = dataclasses.replace(model, inputs=inputs, outputs=outputs)
    if typed or not facts.takes_gaps:
        return named
    features = plain_features({each.name: (each.dtype, each.columns) for each in inputs}, facts)
    if features is None:
        return named
    shapes = {name: shape for name, (_, shape) in input_shapes(features).items()}
    shaped = tuple(dataclasses.replace(each, shape=shapes[each.name]) for each in inputs)
    return dataclasses.replace(named, inputs=shaped, features=features)


def plain_features(
    columns: Mapping[str, tuple[str, Sequence[str]]], facts: Facts
) -> Features | None:
    """Returns features in which a null is a gap, for a model that has a way for gaps.

    Args:
        columns: Type of each input, and a column for each of its numbers.
        facts: What the model's file says.

    Returns:
        None if an input is of whole numbers, or takes lists.
    """
    made: dict[str, tuple[Plain | Verbatim, ...]] = {}
    for each in facts.taken:
        kind, names = columns[each.name]
        width = math.prod(size for size in each.shape or () if size is not None)
        is_flat = len(names) == width or (None in (each.shape or ()) and len(names) > 1)
        if kind not in ("float32", "float64", TEXT) or not is_flat:
            return None
        if kind == TEXT:
            made[each.name] = (Verbatim(column=names[0], type="text"),)
            continue
        made[each.name] = tuple(Plain(column=name, type=kind) for name in names)  # type: ignore[arg-type]
    return Features(made)


def _input(
    where: str, known: FileTensor, given: ModelInput | None, free: tuple[str, ...], facts: Facts
) -> ModelInput:
    if given is None:
        given = ModelInput(known.name, known.dtype, (), known.columns or (known.name,))
        given = dataclasses.replace(given, shape=(len(known.columns),) if known.columns else ())
    where = f"{where}: model input {known.name!r}"
    if given.varying is not None and not facts.takes_lengths:
        raise ModelError(
            f"{where}: rows of varying length are not scored with models that name their own "
            "inputs; export the model for one length, and make lists of it in preprocess.function"
        )
    if given.varying is not None:
        _check_steps(where, known, given)
    if facts.casts and given.dtype not in free and _is_whole(given.dtype):
        return dataclasses.replace(given, shape=_shape(where, known, given, facts))
    if given.dtype not in (known.dtype, *free):
        raise ModelError(
            f"{where}: takes {known.dtype} in the file, and {given.dtype} is declared; correct the "
            "type, or leave it out"
        )
    if known.dtype == TEXT:
        given = dataclasses.replace(given, types=(TEXT,) * len(given.columns))
    return dataclasses.replace(given, dtype=known.dtype, shape=_shape(where, known, given, facts))


def _is_whole(dtype: str) -> bool:
    return dtype != TEXT and np.dtype(dtype).kind in "bui"


def _check_steps(where: str, known: FileTensor, given: ModelInput) -> None:
    """Requires rows of any length, of steps as they are declared."""
    if (known.shape or ())[:1] != (None,) or (known.shape or ())[1:] != given.shape:
        raise ModelError(
            f"{where}: has rows of shape {_dims(known.shape or ())} in the file, and of one length "
            "each row its own as declared, in steps of shape "
            f"{[*given.shape]}; leave max_length out, or correct the shape"
        )


def _shape(where: str, known: FileTensor, given: ModelInput, facts: Facts) -> tuple[int, ...]:
    """Returns the shape of an input's row: what is declared if it fits, or the file's."""
    if given.varying is not None:
        return given.shape
    own = known.shape or ()
    width = math.prod(given.shape)
    fixed = math.prod(size for size in own if size is not None)
    if None in own and not given.shape:
        lengths = "give max_length if rows differ in length, or " if facts.takes_lengths else ""
        raise ModelError(
            f"{where}: the file does not say how many numbers a row has (shape {_dims(own)}); "
            f"{lengths}name the columns in the order of training, as model.inputs: "
            f"{{{known.name}: [a, b]}}"
        )
    if own.count(None) > 1:
        raise ModelError(
            f"{where}: the file leaves more than one size open (shape {_dims(own)}); export the "
            "model with fixed sizes"
        )
    if given.shape and (width % fixed if None in own else width != fixed):
        raise ModelError(
            f"{where}: takes {_words(own)} per row in the file, and {counted(width, 'value')} "
            f"{'is' if width == 1 else 'are'} declared; give as many columns, in the order of "
            f"training, or a list column without brackets: {known.name}: COLUMN"
        )
    if given.shape or fixed == 1:
        return given.shape
    return tuple(size for size in own if size is not None)


def _words(own: tuple[int | None, ...]) -> str:
    if None in own:
        return f"numbers of shape {_dims(own)}"
    return counted(math.prod(size for size in own if size is not None), "value")


def _dims(own: Sequence[int | None]) -> str:
    return f"[{', '.join(['N', *('?' if size is None else str(size) for size in own)])}]"


def _output(where: str, known: FileTensor) -> ModelOutput:
    sizes = known.shape
    if sizes is None or None in sizes:
        raise ModelError(
            f"{where}: the file does not say what shape a row of output {known.name!r} has "
            f"({'nothing' if sizes is None else _dims(sizes)}); add model.outputs: "
            f"{{{known.name}: {{type: {_WIDER.get(known.dtype, known.dtype)}, shape: []}}}}"
        )
    shape = tuple(size for size in sizes if size is not None)
    if shape[-1:] == (1,):
        shape = shape[:-1]
    return ModelOutput(known.name, _WIDER.get(known.dtype, known.dtype), shape)
