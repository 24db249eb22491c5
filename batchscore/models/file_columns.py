"""Columns that a model's own file names, as the features that they are encoded by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.facts import Facts, FileColumn
from batchscore.models.features import Feature, Features, input_shapes, required_columns
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Coded, Plain

_ONLY = "features"
"""The input of a model that says no name of one."""
_UNSAID = "float32"
"""The type of an input for which a job says nothing but its columns."""


def with_file_columns(model: Model, facts: Facts, typed: bool) -> Model:
    """Returns a model with inputs, outputs and features that its file names.

    Args:
        model: One whose inputs may name their columns, in the order of the file's.
        facts: What its file says.
        typed: Whether each input that is declared has a type; otherwise it may have the default.

    Raises:
        ModelError: The file does not name its columns, and nobody else does.
    """
    name, own, known = _own_columns(model, facts, typed)
    where = f"model {model.weights}"
    missing = _missing_texts(model, where, own, known)
    members = [
        feature_of(where, column, each, facts.input_type, missing.get(column))
        for column, each in zip(own, known, strict=True)
    ]
    features = features_of(name, members)
    inputs = tuple(_input(each, features) for each in features.inputs)
    outputs = model.outputs or tuple(ModelOutput(o.name, o.dtype, o.shape) for o in facts.declared)
    return dataclasses.replace(model, inputs=inputs, outputs=outputs, features=features)


def _own_columns(
    model: Model, facts: Facts, typed: bool
) -> tuple[str, tuple[str, ...], tuple[FileColumn, ...]]:
    """Returns the input's name, the table's columns, and those of the file that they stand for."""
    where = f"model {model.weights}"
    name, (width,) = next(iter(facts.inputs.items()), (_ONLY, (len(facts.columns),)))
    known = facts.columns or (FileColumn(""),) * width
    rest = [each for each in model.inputs if each.dtype != TEXT]
    given = rest[0].columns if rest else ()
    unsaid = () if typed else (_UNSAID,)
    declared = [
        (facts.input_type if each.dtype in unsaid else each.dtype, each.shape) for each in rest
    ]
    # A card's input of numbers is as wide as there are numbers, and has no columns of its own.
    wide = width if given == (name,) else len(known)
    if declared not in ([], [(facts.input_type, (wide,))]):
        raise ModelError(
            f"{where}: the file takes one input of {facts.input_type} and shape [{wide}]; "
            f"found {', '.join(f'{kind} {list(shape)}' for kind, shape in declared)}: correct the "
            "inputs, which name the columns in the order of training"
        )
    is_named = bool(facts.columns) and all(each.name for each in known)
    if given == (name,) and (len(known) > 1 or is_named):
        given = ()
    if not given and not is_named:
        raise ModelError(
            f"{where}: the file does not name its {counted(len(known), 'column')}, since it was "
            f"trained on an array; give model.inputs as {{{name}: [...]}}, in the order of "
            "training, or write a model folder with bs.save_model"
        )
    return name, given or tuple(each.name for each in known), known


def _missing_texts(
    model: Model, where: str, own: Sequence[str], known: Sequence[FileColumn]
) -> dict[str, str | None]:
    """Returns by column of texts what takes the place of null, as a job says it."""
    texts = [column for column, each in zip(own, known, strict=True) if each.is_text]
    found = {each.columns[0]: each.missing for each in model.inputs if each.dtype == TEXT}
    for column in found:
        if column not in texts:
            raise ModelError(
                f"{where}: an input of text is column {column!r}, which the model does not take as "
                f"texts; {nearest(column, texts)}"
            )
    return found


def _input(name: str, features: Features) -> ModelInput:
    members = features.inputs[name]
    kind, shape = input_shapes(Features({name: members}))[name]
    missing = members[0].missing if isinstance(members[0], Verbatim) else None
    columns = required_columns(Features({name: members}))
    return ModelInput(name, kind, shape, columns, missing=missing)


def features_of(name: str, members: Sequence[Plain | Coded | Verbatim]) -> Features:
    """Returns features of columns in the order of training: numbers together, each text alone.

    Args:
        name: Of the input that the numbers make; one of a text has its column's name.
        members: The columns' features.
    """
    found: dict[str, tuple[Feature, ...]] = {}
    numbers = tuple(each for each in members if not isinstance(each, Verbatim))
    if numbers:
        found[name] = numbers
    for each in members:
        if isinstance(each, Verbatim):
            taken = each.column
            while taken in found:
                taken += "_"
            found[taken] = (each,)
    return Features(found)


def feature_of(
    where: str, column: str, known: FileColumn, kind: Any, missing: str | None = None
) -> Plain | Coded | Verbatim:
    """Returns what encodes a column that a file names.

    Args:
        where: For a message.
        column: Its name in the table.
        known: What the file says of it.
        kind: Type of the input.
        missing: What takes the place of a missing text.
    """
    if known.is_text:
        return Verbatim(column=column, missing=missing)
    if not known.is_category:
        return Plain(column=column, type=kind, nulls=known.nulls)
    if not known.categories:
        raise ModelError(
            f"{where}: column {known.name!r} holds categories, and the file does not list them; "
            "write a model folder with bs.save_model, or batchscore model save, with rows of the "
            "training's types as sample"
        )
    return Coded(
        column=column,
        type=kind,
        vocabulary=known.categories,
        unseen=known.unseen,
        nulls=known.nulls,
    )


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
    members = [each for found in model.features.inputs.values() for each in found]
    members.sort(key=lambda each: isinstance(each, Verbatim))
    columns = sorted(facts.columns, key=lambda each: each.is_text)
    texts = [sum(isinstance(each, Verbatim) for each in members), sum(c.is_text for c in columns)]
    if columns and texts[0] != texts[1]:
        raise ModelError(
            f"{what}: has {counted(texts[0], 'text feature')}, and {model.weights} reads "
            f"{counted(texts[1], 'column')} of categories as texts; make as many"
        )
    plain = all(isinstance(each, Plain | Coded | Verbatim) for each in members)
    if not columns or not plain or len(members) != len(columns):
        return
    names = [each.name for each in columns]
    for place, (own, known) in enumerate(zip(members, columns, strict=True)):
        if known.name and not is_named(known, own.column):
            raise ModelError(
                f"{what}: feature {place} is column {own.column!r}, and column {known.name!r} in "
                f"{model.weights}; {nearest(own.column, names)}: keep the order of training"
            )
        _check_kind(own, known, what, model.weights)


def is_named(known: FileColumn, column: str) -> bool:
    """Tells whether a column is the one that a file names: LightGBM writes `_` for a blank."""
    return known.name in (column, column.replace(" ", "_"))


def _check_kind(own: Any, known: FileColumn, what: str, file: str) -> None:
    if known.is_text:
        return
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
