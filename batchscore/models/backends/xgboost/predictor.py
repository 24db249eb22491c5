"""A model of XGBoost as it is called: a matrix of numbers to what its card says.

Suffixes: `_bf` rows by features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import DEFAULT_OUTPUT, Inputs, Promises
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.tree_calls import (
    TreeCall,
    explained,
    in_parts,
    require_explained,
    require_version,
    returned,
)
from batchscore.models.backends.tree_files import INPUT
from batchscore.models.backends.xgboost.backend import call_of_file
from batchscore.models.backends.xgboost.model_file import ModelFile
from batchscore.models.loadable import Model

_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class BoosterPredictor(Predictor):
    """A loaded model.

    Args:
        booster: Whose parameters are never set again: to do so next to a call ends the process.
        call: What of it is called.
        threads: Threads of a call.
        given: Name of the input.
        made: Name of the output.
        groups: Raw scores of a row.
        versions: What is to be said of the version that wrote it.
    """

    booster: Any
    call: TreeCall
    threads: int
    given: str
    made: str
    groups: int
    versions: Mapping[str, str]

    @property
    def notes(self) -> Mapping[str, str]:
        """The versions, if they are not of one kind."""
        return self.versions

    def explaining(self) -> Predictor:
        """Returns what explains its raw scores."""
        require_explained(self.call, self.groups)
        booster = self.booster[self.call.start : self.call.stop]
        booster.set_param({"nthread": self.threads})
        return BoosterContributions(self, booster, self.groups)

    @property
    def promises(self) -> Promises:
        """Each row goes through the trees alone, and NaN has a way of its own."""
        return Promises(None, True, "nan", "cpu", self.threads, str(xgboost.__version__), True)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the output of each row."""
        rows_bf = np.ascontiguousarray(inputs[self.given], np.float32)
        found = self.booster.inplace_predict(
            rows_bf,
            iteration_range=(self.call.start, self.call.stop),
            predict_type="margin" if self.call.returns == "raw" else "value",
            validate_features=False,
        )
        return {self.made: returned(np.asarray(found), self.call)}


@dataclass(frozen=True)
class BoosterContributions(Predictor):
    """What columns contributed to the raw scores of a loaded model.

    Args:
        model: The model.
        booster: Of the rounds that are called, since contributions are of all rounds from the
            first on.
        groups: Raw scores of a row.
    """

    model: BoosterPredictor
    booster: Any
    groups: int

    @property
    def promises(self) -> Promises:
        """Those of the model."""
        return self.model.promises

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns contributions and raw score of each row."""
        rows_bf = np.ascontiguousarray(inputs[self.model.given], np.float32)
        return in_parts(
            lambda start, stop: self._explained(rows_bf[start:stop]),
            len(rows_bf),
            self.groups * (rows_bf.shape[1] + 1),
        )

    def _explained(self, rows_bf: Array) -> Mapping[str, Array]:
        # No infinity may be in it; the largest number goes the same way at each split.
        finite_bf = np.clip(rows_bf, -_LARGEST, _LARGEST)
        found = self.booster.predict(
            xgboost.DMatrix(finite_bf, nthread=self.model.threads),
            pred_contribs=True,
            validate_features=False,
            strict_shape=True,
        )
        raw = self.booster.inplace_predict(
            rows_bf, predict_type="margin", validate_features=False, strict_shape=True
        )
        return explained(np.asarray(found), np.asarray(raw), self.model.call)


def load_booster(model: Model, content: bytes, found: ModelFile, threads: int) -> Predictor:
    """Loads the bytes of a file.

    Raises:
        ModelError: XGBoost cannot read them, or is of another version.
    """
    golden = model.golden is not None
    here = str(xgboost.__version__)
    try:
        notes = require_version("XGBoost", found.version, here, "xgboost-cpu", golden)
        booster = xgboost.Booster({"nthread": threads})
        booster.load_model(bytearray(content))
    except ModelError as error:
        raise ModelError(f"{model.folder}/{model.weights}: {error}") from error
    except xgboost.core.XGBoostError as error:
        raise ModelError(
            f"{model.folder}/{model.weights}: XGBoost {here} cannot read it "
            f"({one_line(str(error).partition('Stack trace')[0], 200)}); restore the file, or save "
            "the model again"
        ) from error
    # The file may hold another number of threads.
    booster.set_param({"nthread": threads})
    given = model.inputs[0].name if model.inputs else INPUT
    made = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    groups = max(found.classes, found.targets)
    call = call_of_file(found, model.call)
    return BoosterPredictor(booster, call, threads, given, made, groups, notes)
