"""Writes a model of XGBoost in memory to a model folder, with XGBoost's own scores of a sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost

from batchscore.errors import InputError, ModelError
from batchscore.messages.wording import one_line, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.saving import Asked, Draft, Saver
from batchscore.models.backends.tree_calls import TreeCall, returned
from batchscore.models.backends.tree_files import INPUT
from batchscore.models.backends.tree_saving import (
    KnownCalls,
    call_of_card,
    draft_of_trees,
    output_name,
    training_frame,
    tree_card,
)
from batchscore.models.backends.xgboost.backend import call_of_file
from batchscore.models.backends.xgboost.model_file import ModelFile, read_model_file
from batchscore.models.loadable import Model, read_weights

_WEIGHTS = "model.ubj"


class XGBoostSaver(Saver):
    """Boosters, and the sklearn wrappers around them."""

    unused = ("args", "features", "inputs")

    def opened(self, model: Model) -> Any:
        """Returns a Booster."""
        booster = xgboost.Booster()
        booster.load_model(bytearray(read_weights(model)))
        return booster

    def require_savable(self, model: Any) -> None:
        """Requires a fitted model whose file can be scored."""
        _file(model)

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the columns of the file, and of the sample what the file does not say."""
        found = _file(model)
        missing = getattr(model, "missing", math.nan)
        gap = None if missing is None or math.isnan(missing) else float(missing)
        return draft_of_trees(
            rows, found.columns, found.features, found.categorical, asked, INPUT, gap
        )

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns what is called, and the file as save_model writes it."""
        call = _call(_file(model), asked)
        return tree_card("xgboost", _WEIGHTS, _content(model), draft, call)

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the scores that XGBoost's own call has for a frame of these rows."""
        found = _file(model)
        call, frame = _call(found, asked), training_frame(rows, draft)
        try:
            made = _booster(model).inplace_predict(
                frame if found.columns else frame.to_numpy(np.float64),
                iteration_range=(call.start, call.stop),
                predict_type="margin" if call.returns == "raw" else "value",
                missing=getattr(model, "missing", math.nan),
            )
        except xgboost.core.XGBoostError as error:
            text = one_line(str(error).partition("Stack trace")[0], 200)
            raise InputError(
                f"sample: XGBoost cannot score it ({text}); give rows of the training's types, "
                "with the same categories in the same order"
            ) from error
        return KnownCalls({output_name(asked): returned(np.asarray(made), call)})


def _booster(model: Any) -> Any:
    if isinstance(model, xgboost.Booster):
        return model
    if not isinstance(model, xgboost.XGBModel):
        raise ModelError(
            f"model is {type_of(model)}; expected a Booster of XGBoost or one of its sklearn "
            "wrappers, such as XGBClassifier"
        )
    try:
        return model.get_booster()
    except Exception as error:  # sklearn's NotFittedError, which need not be installed
        raise ModelError("model is not fitted; call its fit before saving it") from error


def _content(model: Any) -> bytes:
    return bytes(_booster(model).save_raw("ubj"))


def _file(model: Any) -> ModelFile:
    return read_model_file(_content(model))


def _call(found: ModelFile, asked: Asked) -> TreeCall:
    return call_of_file(found, call_of_card(asked))


SAVER = XGBoostSaver()
