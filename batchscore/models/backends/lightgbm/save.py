"""Writes a model of LightGBM in memory to a model folder, with its own scores of a sample."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from batchscore.errors import ModelError
from batchscore.messages.wording import type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.lightgbm.backend import call_of_file
from batchscore.models.backends.lightgbm.predictor import predict
from batchscore.models.backends.lightgbm.text_file import TextFile, read_text_file
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
from batchscore.models.loadable import Model, read_weights

_WEIGHTS = "model.txt"


class LightGBMSaver(Saver):
    """Boosters, and the sklearn wrappers around them."""

    unused = ("args", "features", "inputs")

    def opened(self, model: Model) -> Any:
        """Returns a Booster."""
        return lightgbm.Booster(model_str=read_weights(model).decode())

    def require_savable(self, model: Any) -> None:
        """Requires a fitted model whose file can be scored."""
        _file(model)

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the columns of the file, and of the sample what the file does not say."""
        found = _file(model)
        return draft_of_trees(
            rows, found.columns, found.features, found.categorical, asked, INPUT, kind="float64"
        )

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns what is called, and the file as save_model writes it."""
        call = _call(_file(model), asked)
        return tree_card("lightgbm", _WEIGHTS, _content(model), draft, call)

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the scores that LightGBM's own call has for a frame of these rows."""
        call, frame = _call(_file(model), asked), training_frame(rows, draft)
        given = frame if _file(model).columns else frame.to_numpy(np.float64)
        made = predict(_booster(model), given, call)
        return KnownCalls({output_name(asked): returned(made, call)})


def _booster(model: Any) -> Any:
    if isinstance(model, lightgbm.Booster):
        return model
    if not isinstance(model, lightgbm.LGBMModel):
        raise ModelError(
            f"model is {type_of(model)}; expected a Booster of LightGBM or one of its sklearn "
            "wrappers, such as LGBMClassifier"
        )
    if not hasattr(model, "fitted_") or not model.fitted_:
        raise ModelError("model is not fitted; call its fit before saving it")
    return model.booster_


def _content(model: Any) -> bytes:
    return str(_booster(model).model_to_string()).encode()


def _file(model: Any) -> TextFile:
    return read_text_file(_content(model))


def _call(found: TextFile, asked: Asked) -> TreeCall:
    return call_of_file(found, call_of_card(asked))


SAVER = LightGBMSaver()
