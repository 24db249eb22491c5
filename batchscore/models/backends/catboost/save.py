"""Writes a model of CatBoost in memory to a model folder, with its own scores of a sample."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd
import pyarrow as pa

from batchscore.errors import InputError, ModelError
from batchscore.messages.wording import one_line, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.catboost.backend import call_of_file
from batchscore.models.backends.catboost.cbm_file import CbmFile, read_cbm_file
from batchscore.models.backends.catboost.predictor import prediction_type, returned
from batchscore.models.backends.saving import Asked, Draft, Saver
from batchscore.models.backends.tree_calls import TreeCall
from batchscore.models.backends.tree_files import INPUT
from batchscore.models.backends.tree_saving import (
    KnownCalls,
    call_of_card,
    column_values,
    draft_of_trees,
    output_name,
    tree_card,
)
from batchscore.models.loadable import Model, read_weights
from batchscore.models.text_features import Verbatim

_WEIGHTS = "model.cbm"


class CatBoostSaver(Saver):
    """CatBoost models, classifiers, regressors and rankers."""

    unused = ("args", "features")

    def opened(self, model: Model) -> Any:
        """Returns a CatBoost."""
        return catboost.CatBoost().load_model(blob=read_weights(model))

    def require_savable(self, model: Any) -> None:
        """Requires a fitted model whose file can be scored."""
        _file(model)

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the columns of the file, and of the sample what the file does not say."""
        found = _file(model)
        return draft_of_trees(rows, found.columns, len(found.columns), (), asked, INPUT)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns what is called, and the file as save_model writes it."""
        call = _call(_file(model), asked)
        return tree_card("catboost", _WEIGHTS, _content(model), draft, call)

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the scores that CatBoost's own call has for a frame of these rows."""
        found = _file(model)
        call, places = _call(found, asked), [n for n, c in enumerate(found.columns) if c.is_text]
        try:
            made = model.predict(
                catboost.Pool(_frame(rows, draft, model), cat_features=places),
                prediction_type=prediction_type(call, found.loss),
                ntree_start=call.start,
                ntree_end=call.stop,
                thread_count=1,
            )
        except catboost.CatBoostError as error:
            raise InputError(
                f"sample: CatBoost cannot score it ({one_line(error, 200)}); give rows of the "
                "training's types"
            ) from error
        return KnownCalls({output_name(asked): returned(np.asarray(made), call, found)})


def _frame(rows: pa.RecordBatch, draft: Draft, model: Any) -> pd.DataFrame:
    """Returns rows as CatBoost was trained on them: texts and whole numbers as categories."""
    assert draft.features is not None
    members = [each for found in draft.features.inputs.values() for each in found]
    numbers = iter([each for each in members if not isinstance(each, Verbatim)])
    texts = iter([each for each in members if isinstance(each, Verbatim)])
    made: dict[str, Any] = {}
    for name, known in zip(model.feature_names_, _file(model).columns, strict=True):
        if not known.is_text:
            made[name] = column_values(rows.column(next(numbers).column))
            continue
        each = next(texts)
        values = rows.column(each.column).to_pylist()
        made[name] = pd.Series([_text(value, each) for value in values], dtype=object)
    return pd.DataFrame(made)


def _text(value: Any, feature: Verbatim) -> Any:
    if value is not None or feature.missing is not None:
        return feature.missing if value is None else value
    raise InputError(
        f"sample: column {feature.column!r} has a null, and CatBoost takes none as a category; "
        "fill it as training did, and say how: "
        f"inputs={{{feature.column!r}: {{'missing': 'nan'}}}}, or --missing {feature.column}=nan"
    )


def _content(model: Any) -> bytes:
    if not isinstance(model, catboost.CatBoost):
        raise ModelError(
            f"model is {type_of(model)}; expected a CatBoost model, such as CatBoostClassifier"
        )
    if not model.is_fitted():
        raise ModelError("model is not fitted; call its fit before saving it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _WEIGHTS
        model.save_model(str(path), format="cbm")
        return path.read_bytes()


def _file(model: Any) -> CbmFile:
    return read_cbm_file(_content(model))


def _call(found: CbmFile, asked: Asked) -> TreeCall:
    return call_of_file(found, call_of_card(asked))


SAVER = CatBoostSaver()
