"""What saving has in common for models of trees: features, card, and frames for the framework."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from batchscore.columnar.array_type import Array
from batchscore.columnar.arrays import to_numpy
from batchscore.columnar.text_columns import is_textual
from batchscore.errors import InputError, ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.facts import DEFAULT_OUTPUT, FileColumn, Inputs, Outputs
from batchscore.models.backends.saving import Asked, Draft, draft_of_features
from batchscore.models.backends.tree_calls import TreeCall
from batchscore.models.card import ModelCall
from batchscore.models.column_values import nearest_floats, plain_values
from batchscore.models.features import dump_features
from batchscore.models.file_columns import features_of, is_named
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Coded, Float, Plain
from batchscore.models.validate import validated

if TYPE_CHECKING:
    import pandas as pd


MOST_CATEGORIES = 10_000
"""The most categories of a sample's column that are recorded.

If there are more, as of customers, a new one says nothing.
"""


@dataclass(frozen=True)
class KnownCalls:
    """Outputs that are known for the rows of one block, in place of a model that is called."""

    outputs: Mapping[str, Array]
    late: bool = False

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Returns the outputs, if they are of as many rows."""
        assert all(len(each) == rows for each in self.outputs.values())
        return lambda: dict(self.outputs)

    def take_extra_seconds(self) -> float:
        """Returns 0: nothing is computed."""
        return 0.0


def output_name(asked: Asked) -> str:
    """Returns the name of the one output."""
    if len(asked.outputs) > 1:
        raise ModelError(
            f"outputs: {[*asked.outputs]} are {len(asked.outputs)}, and a model of trees has one; "
            "give one name"
        )
    return asked.outputs[0] if asked.outputs else DEFAULT_OUTPUT


def call_of_card(asked: Asked) -> dict[str, Any]:
    """Returns what the caller says of the call, as a card holds it."""
    if asked.call is None:
        return {}
    return validated(ModelCall, asked.call, "call").model_dump(exclude_none=True)


def draft_of_trees(
    rows: pa.RecordBatch,
    known: Sequence[FileColumn],
    width: int,
    categorical: Collection[int],
    asked: Asked,
    name: str,
    missing: float | None = None,
    kind: Float = "float32",
) -> Draft:
    """Returns the features of a model: by its file, and by the sample where that is silent.

    Args:
        rows: The sample.
        known: The columns that the file names.
        width: How many columns it reads.
        categorical: Places of the columns that hold categories.
        asked: Whose `columns` name them where the file does not.
        name: Name of the input.
        missing: A number that stands for a gap.
        kind: Type of the input.
    """
    given = tuple(next(iter((asked.columns or {}).values()), ()))
    is_named = all(each.name for each in known)
    named = tuple(_in_sample(each, rows) for each in known) if is_named else ()
    own = given or named or tuple(rows.schema.names)
    if len(own) != width or len(asked.columns or {}) > 1:
        raise InputError(
            f"columns: the model reads {counted(width, 'column')}, and {len(own)} are given; name "
            f"them in the order of training: columns={{{name!r}: [...]}}"
        )
    members: list[Plain | Coded | Verbatim] = []
    for place, column in enumerate(own):
        if column not in rows.schema.names:
            raise InputError(
                f"sample: has no column {column!r}, which the model reads; "
                f"{nearest(column, rows.schema.names)}"
            )
        if known and known[place].is_text:
            members.append(_category_text(rows.column(column), column, asked))
            continue
        if place not in categorical:
            members.append(Plain(column=column, missing=missing, type=kind))
            continue
        table = known[place].categories if known else None
        vocabulary = table or _categories(rows.column(column), column)
        members.append(Coded(column=column, vocabulary=vocabulary, type=kind))
    _require_known(asked, [each.column for each in members if isinstance(each, Verbatim)])
    return draft_of_features(features_of(name, members))


def _category_text(values: pa.Array, column: str, asked: Asked) -> Verbatim:
    """Returns the feature of a category that is taken as a text, with those of the sample."""
    missing, plain = _missing_text(asked, column), plain_values(values)
    if not is_textual(plain.type) or pa.types.is_null(plain.type):
        return Verbatim(column=column, missing=missing)  # the sample is refused when it is encoded
    found = sorted(plain.unique().drop_null().to_pylist())
    kind: Literal["text", "integer"] = "integer" if pa.types.is_integer(plain.type) else "text"
    known = tuple(found) if 0 < len(found) <= MOST_CATEGORIES else None
    return Verbatim(column=column, missing=missing, type=kind, vocabulary=known)


def _missing_text(asked: Asked, column: str) -> str | None:
    """Returns what training had in the place of null in a column of texts, if anybody says so."""
    facts = (asked.inputs or {}).get(column, {})
    if {*facts} - {"missing"} or not isinstance(facts.get("missing", ""), str):
        raise ModelError(
            f"inputs: {column!r} is {dict(facts)}; expected no more than the text that training "
            "had in the place of null: {'missing': 'nan'}"
        )
    return facts.get("missing")


def _require_known(asked: Asked, texts: Sequence[str]) -> None:
    for column in asked.inputs or {}:
        if column not in texts:
            raise InputError(
                f"inputs: the model takes no column {column!r} as texts; {nearest(column, texts)}"
            )


def _in_sample(known: FileColumn, rows: pa.RecordBatch) -> str:
    """Returns the sample's name for a column, in which the file may have `_` for a blank."""
    names = rows.schema.names
    found = (name for name in names if known.name not in names and is_named(known, name))
    return next(found, known.name)


def _categories(column: pa.Array, name: str) -> Any:
    """Returns the categories of a column of the training's type, in their order."""
    if not isinstance(column, pa.DictionaryArray):
        raise InputError(
            f"sample: column {name!r} is {column.type}, and the model's file does not list its "
            "categories; give rows of the training's types, with a categorical column"
        )
    return tuple(column.dictionary.to_pylist())


def tree_card(
    format: str, weights: str, content: bytes, draft: Draft, call: TreeCall
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns a card's keys and the files of a model of trees."""
    assert draft.features is not None
    said: dict[str, Any] = {"returns": call.returns, "iterations": [call.start, call.stop]}
    if call.is_of_class:
        said["positive"] = call.positive
    card = {
        "format": format,
        "weights": weights,
        "call": said,
        "preprocessing": "preprocessing.json",
        "inputs": {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()},
    }
    features = dump_features(draft.features).encode()
    return card, {weights: content, "preprocessing.json": features}


def training_frame(rows: pa.RecordBatch, draft: Draft) -> pd.DataFrame:
    """Returns rows as a frame of the training's columns and types."""
    import pandas as pd

    assert draft.features is not None
    members = next(iter(draft.features.inputs.values()))
    made: dict[str, Any] = {}
    for each in members:
        column = plain_values(rows.column(each.column))
        if isinstance(each, Coded):
            known = {*each.vocabulary}  # pandas will refuse others, which are gaps
            values = [value if value in known else None for value in column.to_pylist()]
            made[each.column] = pd.Categorical(values, [*each.vocabulary])
        else:
            made[each.column] = column_values(column)
    return pd.DataFrame(made)


def column_values(column: pa.Array) -> Array:
    """Returns the numbers (b,) of a column, NaN for null."""
    column = plain_values(column)
    if column.null_count or pa.types.is_decimal(column.type):
        return np.asarray(nearest_floats(column).to_numpy(zero_copy_only=False))
    return to_numpy(column)
