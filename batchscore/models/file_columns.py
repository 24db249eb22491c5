"""Columns that a model's own file names, as the features that they are encoded by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.facts import Facts, FileColumn
from batchscore.models.features import Features, required_columns
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput
from batchscore.models.tree_features import Coded, Plain


def with_file_columns(model: Model, facts: Facts) -> Model:
    """Returns a model with inputs, outputs and features that its file names.

    Args:
        model: One whose inputs may name their columns, in the order of the file's.
        facts: What its file says.

    Raises:
        ModelError: The file does not name its columns, and nobody else does.
    """
    where = f"model {model.weights}"
    (name, (width,)) = next(iter(facts.inputs.items()))
    declared = [(each.dtype, each.shape) for each in model.inputs]
    if declared not in ([], [(facts.input_type, (width,))]):
        raise ModelError(
            f"{where}: the file takes one input of {facts.input_type} and shape [{width}]; found "
            f"{', '.join(f'{kind} {list(shape)}' for kind, shape in declared)}: correct the "
            "inputs, which name the columns in the order of training"
        )
    given = model.inputs[0].columns if model.inputs else ()
    if given == (name,) and (width > 1 or facts.columns):
        given = ()  # a card's input has no columns of its own
    if not given and not facts.columns:
        raise ModelError(
            f"{where}: the file does not name its {counted(width, 'column')}, since it was trained "
            f"on an array; give model.inputs as {{{name}: [...]}}, in the order of training, or "
            "write a model folder with bs.save_model"
        )
    known = facts.columns or tuple(FileColumn(each) for each in given)
    own = given or tuple(each.name for each in known)
    members = tuple(
        _feature(where, column, each, facts.input_type)
        for column, each in zip(own, known, strict=True)
    )
    features = Features({name: members})
    inputs = (ModelInput(name, facts.input_type, (width,), required_columns(features)),)
    outputs = model.outputs or tuple(ModelOutput(o.name, o.dtype, o.shape) for o in facts.declared)
    return dataclasses.replace(model, inputs=inputs, outputs=outputs, features=features)


def _feature(where: str, column: str, known: FileColumn, kind: Any) -> Plain | Coded:
    if not known.is_category:
        return Plain(column=column, type=kind)
    if not known.categories:
        raise ModelError(
            f"{where}: column {known.name!r} holds categories, and the file does not list them; "
            "write a model folder with bs.save_model, with rows of the training's types as sample"
        )
    return Coded(column=column, type=kind, vocabulary=known.categories)


def check_file_columns(model: Model, facts: Facts, what: str) -> None:
    """Compares fitted features with the columns that a model's file names.

    Args:
        model: One with features.
        facts: What its file says.
        what: Name of the file that the features come from.

    Raises:
        ModelError: A column is another, at another place, of another kind, or of other categories.
    """
    assert model.features is not None
    members = next(iter(model.features.inputs.values()))
    plain = all(isinstance(each, Plain | Coded) for each in members)
    if not facts.columns or not plain or len(members) != len(facts.columns):
        return
    for place, (own, known) in enumerate(zip(members, facts.columns, strict=True)):
        if not is_named(known, own.column):
            names = [each.name for each in facts.columns]
            raise ModelError(
                f"{what}: feature {place} is column {own.column!r}, and column {known.name!r} in "
                f"{model.weights}; {nearest(own.column, names)}: keep the order of training"
            )
        _check_kind(own, known, what, model.weights)


def is_named(known: FileColumn, column: str) -> bool:
    """Tells whether a column is the one that a file names: LightGBM writes `_` for a blank."""
    return known.name in (column, column.replace(" ", "_"))


def _check_kind(own: Any, known: FileColumn, what: str, file: str) -> None:
    if isinstance(own, Coded) != known.is_category:
        kinds = {True: "categories", False: "numbers"}
        raise ModelError(
            f"{what}: column {own.column!r} holds {kinds[not known.is_category]}, and "
            f"{kinds[known.is_category]} in {file}; make it "
            f"{'coded' if known.is_category else 'plain'}"
        )
    if not isinstance(own, Coded) or not known.categories or own.vocabulary == known.categories:
        return
    place, ours, theirs = _first_difference(own.vocabulary, known.categories)
    raise ModelError(
        f"{what}: column {own.column!r} has other categories than {file}: code {place} is {ours}, "
        f"and {theirs} there; take the categories of training, in their order"
    )


def _first_difference(ours: Sequence[object], theirs: Sequence[object]) -> tuple[int, str, str]:
    length = min(len(ours), len(theirs))
    place = next((n for n in range(length) if ours[n] != theirs[n]), length)
    shown = [repr(each[place])[:60] if place < len(each) else "absent" for each in (ours, theirs)]
    return place, shown[0], shown[1]
