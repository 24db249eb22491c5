"""A model of LightGBM as it is called: a matrix of numbers to what its card says.

Suffixes: `_bf` rows by features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import lightgbm
import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import DEFAULT_OUTPUT, Inputs, Promises
from batchscore.models.backends.lightgbm.backend import call_of_file
from batchscore.models.backends.lightgbm.text_file import TextFile
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
from batchscore.models.loadable import Model


@dataclass(frozen=True)
class TreesPredictor(Predictor):
    """A loaded model.

    Args:
        booster: Called with one thread each time, since it sets that for the whole process.
        call: What of it is called.
        given: Name of the input.
        made: Name of the output.
        groups: Raw scores of a row.
        versions: What is to be said of the version that wrote it.
    """

    booster: Any
    call: TreeCall
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
        return TreesContributions(self)

    @property
    def promises(self) -> Promises:
        """Each row goes through the trees alone, and NaN has a way of its own."""
        return Promises(None, True, "nan", "cpu", 1, str(lightgbm.__version__), True)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the output of each row."""
        rows_bf = np.ascontiguousarray(inputs[self.given], np.float64)
        found = predict(self.booster, rows_bf, self.call)
        return {self.made: returned(found, self.call)}


@dataclass(frozen=True)
class TreesContributions(Predictor):
    """What columns contributed to the raw scores of a loaded model."""

    model: TreesPredictor

    @property
    def promises(self) -> Promises:
        """Those of the model."""
        return self.model.promises

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns contributions and raw score of each row."""
        rows_bf = np.ascontiguousarray(inputs[self.model.given], np.float64)
        return in_parts(
            lambda start, stop: self._explained(rows_bf[start:stop]),
            len(rows_bf),
            self.model.groups * (rows_bf.shape[1] + 1),
        )

    def _explained(self, rows_bf: Array) -> Mapping[str, Array]:
        booster, call, groups = self.model.booster, self.model.call, self.model.groups
        found = predict(booster, rows_bf, call, pred_contrib=True)
        raw = predict(booster, rows_bf, replace(call, returns="raw"))
        shape = (len(rows_bf), groups)
        return explained(found.reshape(*shape, -1), raw.reshape(shape), call)


def predict(booster: Any, rows: Any, call: TreeCall, pred_contrib: bool = False) -> Array:
    """Returns what LightGBM's own call makes of a matrix or a frame."""
    found = booster.predict(
        rows,
        start_iteration=call.start,
        num_iteration=call.stop - call.start,
        raw_score=call.returns == "raw" and not pred_contrib,
        pred_contrib=pred_contrib,
        num_threads=1,
    )
    return np.asarray(found)


def load_trees(model: Model, content: bytes, found: TextFile) -> Predictor:
    """Loads the bytes of a file.

    Raises:
        ModelError: LightGBM cannot read them, or is of another version.
    """
    here = str(lightgbm.__version__)
    try:
        golden = model.golden is not None
        notes = require_version("LightGBM", found.version, here, "lightgbm", golden)
        booster = lightgbm.Booster(model_str=content.decode())
    except ModelError as error:
        raise ModelError(f"{model.folder}/{model.weights}: {error}") from error
    except lightgbm.basic.LightGBMError as error:
        raise ModelError(
            f"{model.folder}/{model.weights}: LightGBM {here} cannot read it "
            f"({one_line(error, 200)}); restore the file, or save the model again"
        ) from error
    given = model.inputs[0].name if model.inputs else INPUT
    made = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    call = call_of_file(found, model.call)
    return TreesPredictor(booster, call, given, made, found.classes, notes)
