"""A model of CatBoost as it is called: numbers and texts to what its card says.

Suffixes: `_bk` rows by classes, `_bg` rows by raw scores, `_bge` these by
contributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import catboost
import numpy as np
import pandas as pd

from batchscore.columnar.array_type import Array
from batchscore.columnar.texts import TEXT, Texts
from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.catboost.backend import call_of_file
from batchscore.models.backends.catboost.cbm_file import CbmFile
from batchscore.models.backends.facts import DEFAULT_OUTPUT, Inputs, Promises
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.tree_calls import (
    TreeCall,
    explained,
    in_parts,
    require_explained,
    require_version,
)
from batchscore.models.backends.tree_files import INPUT
from batchscore.models.loadable import Model

_VALUES = {
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}
"""What CatBoostRegressor returns by default, by the loss function; of others the raw value."""


@dataclass(frozen=True)
class CatBoostPredictor(Predictor):
    """A loaded model.

    Args:
        model: Called with one thread each time.
        found: What its file says.
        call: What of it is called.
        numbers: Name of the input of numbers; there is none where all columns are texts.
        texts: Names of the inputs of texts, in the order of training.
        made: Name of the output.
    """

    model: Any
    found: CbmFile
    call: TreeCall
    numbers: str
    texts: tuple[str, ...]
    made: str

    @property
    def promises(self) -> Promises:
        """Each row goes through the trees alone, and NaN has a way of its own."""
        return Promises(None, True, "nan", "cpu", 1, str(catboost.__version__), True)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the output of each row."""
        pool = self.pool(inputs)
        made = self.model.predict(
            pool,
            prediction_type=prediction_type(self.call, self.found.loss),
            ntree_start=self.call.start,
            ntree_end=self.call.stop,
            thread_count=1,
        )
        return {self.made: returned(np.asarray(made), self.call, self.found)}

    def explaining(self) -> Predictor:
        """Returns what explains its raw scores.

        Raises:
            ModelError: Only some of its rounds are called, or its trees are not symmetric.
        """
        require_explained(self.call, self.found.dimension)
        if not self.model._object._is_oblivious():
            raise ModelError(
                "explain: CatBoost's contributions do not add up for trees of grow_policy "
                "Lossguide or Depthwise; train with SymmetricTree, or leave explain out"
            )
        if (self.call.start, self.call.stop) != (0, self.call.every):
            raise ModelError(
                f"explain: CatBoost explains all {self.call.every} rounds of a model, and its card "
                f"calls {self.call.start} to {self.call.stop - 1}; save it with these rounds alone "
                "(model.shrink), or leave explain out"
            )
        return CatBoostContributions(self)

    def pool(self, inputs: Inputs) -> Any:
        """Returns rows as CatBoost takes them; it copies and hashes with the interpreter held."""
        texts = [inputs[name] for name in self.texts]
        if not texts:
            # Column by column it is taken as it is; rows would be taken apart one by one.
            return catboost.Pool(
                np.asfortranarray(inputs[self.numbers], np.float32), thread_count=1
            )
        numbers = iter(np.asarray(inputs[self.numbers], np.float32).T if self.numbers else ())
        categories = iter(texts)
        columns: dict[int, Any] = {}
        for place, each in enumerate(self.found.columns):
            columns[place] = _category(next(categories)) if each.is_text else next(numbers)
        frame = pd.DataFrame(columns, copy=False)
        # CatBoost compares names with those of training, and these are compared already.
        frame.columns = pd.Index(self.model.feature_names_)
        places = [place for place, each in enumerate(self.found.columns) if each.is_text]
        return catboost.Pool(frame, cat_features=places, thread_count=1)


@dataclass(frozen=True)
class CatBoostContributions(Predictor):
    """What columns contributed to the raw scores of a loaded model."""

    model: CatBoostPredictor

    @property
    def promises(self) -> Promises:
        """Those of the model."""
        return self.model.promises

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns contributions and raw score of each row."""
        pool, places = self.model.pool(inputs), self._places(inputs)
        return in_parts(
            lambda start, stop: self._explained(pool.slice(np.arange(start, stop)), places),
            pool.num_row(),
            self.model.found.dimension * len(places),
        )

    def _explained(self, pool: Any, places: Sequence[int]) -> Mapping[str, Array]:
        own = self.model
        found = own.model.get_feature_importance(pool, type="ShapValues", thread_count=1)
        raw = own.model.predict(pool, prediction_type="RawFormulaVal", thread_count=1)
        raw_bg = np.asarray(raw).reshape(len(raw), -1)
        found_bge = np.asarray(found).reshape(*raw_bg.shape, -1)
        return explained(found_bge[:, :, places], raw_bg, own.call)

    def _places(self, inputs: Inputs) -> list[int]:
        """Returns the places of training's columns in the order of the inputs, the base last."""
        known = self.model.found.columns
        texts = iter([place for place, each in enumerate(known) if each.is_text])
        numbers = [place for place, each in enumerate(known) if not each.is_text]
        places: list[int] = []
        for name in inputs:
            places += numbers if name == self.model.numbers else [next(texts)]
        return [*places, len(known)]


def _category(texts: Any) -> pd.Categorical:
    """Returns texts as codes, whose values CatBoost hashes once each."""
    assert isinstance(texts, Texts)
    values = np.empty(len(texts.encoded_k), object)
    values[:] = texts.encoded_k
    return pd.Categorical.from_codes(texts.place_b, pd.Index(values, dtype=object))


def prediction_type(call: TreeCall, loss: str) -> str:
    """Returns CatBoost's name of what is called."""
    if call.returns == "value":
        return _VALUES.get(loss, "RawFormulaVal")
    return {"raw": "RawFormulaVal", "probability": "Probability", "class": "Class"}[call.returns]


def returned(made: Array, call: TreeCall, found: CbmFile) -> Array:
    """Returns what a call returns of CatBoost's own values."""
    if call.is_of_class:
        return np.ascontiguousarray(made[:, call.positive])
    if call.returns == "class":
        return _labels(made.reshape(-1), found)
    return made


def _labels(made_b: Array, found: CbmFile) -> Array:
    """Returns labels that are whole numbers, or else the place of each among the classes."""
    if all(type(each) is int for each in found.classes):
        return np.asarray(made_b.astype(np.int64))
    names = np.array([str(each) for each in found.classes])
    is_class_bk = made_b.astype(str)[:, None] == names
    if not is_class_bk.any(axis=1).all():
        raise ValueError("CatBoost returned a label that the file does not list")
    return np.asarray(is_class_bk.argmax(axis=1).astype(np.int64))


def load_trees(model: Model, content: bytes, found: CbmFile) -> Predictor:
    """Loads the bytes of a file.

    Raises:
        ModelError: CatBoost cannot read them, or is of another version.
    """
    here, golden = str(catboost.__version__), model.golden is not None
    loaded = catboost.CatBoost()
    try:
        if found.version:
            require_version("CatBoost", found.version, here, "catboost", golden)
        loaded.load_model(blob=content)
        require_same(loaded, found)
    except ModelError as error:
        raise ModelError(f"{model.folder}/{model.weights}: {error}") from error
    except catboost.CatBoostError as error:
        raise ModelError(
            f"{model.folder}/{model.weights}: CatBoost {here} cannot read it "
            f"({one_line(error, 200)}); restore the file, or save the model again"
        ) from error
    texts = tuple(each.name for each in model.inputs if each.dtype == TEXT)
    numbers = [each.name for each in model.inputs if each.dtype != TEXT]
    made = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    is_number = any(not each.is_text for each in found.columns)
    name = (numbers or [INPUT])[0] if is_number else ""
    return CatBoostPredictor(loaded, found, call_of_file(found, model.call), name, texts, made)


def require_same(loaded: Any, found: CbmFile) -> None:
    """Raises ModelError where CatBoost reads something else of a file than was read of it."""
    names, known = loaded.feature_names_, found.columns
    places = [place for place, each in enumerate(known) if each.is_text]
    alike: Sequence[bool] = [
        len(names) == len(known),
        all(c.name in ("", name) for c, name in zip(known, names, strict=False)),
        loaded._get_cat_feature_indices() == places,
        loaded.tree_count_ == found.trees,
    ]
    if not all(alike):
        raise ModelError(
            "CatBoost reads other columns or trees of the file than the file's own list says; "
            "restore the file, or save the model again"
        )
