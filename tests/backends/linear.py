"""A backend of another package, as one would write it: a linear model in an .npz file.

The file holds `weights` (features,) and `bias` ().
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscore.columnar.arrays import Array
from batchscore.errors import ModelError
from batchscore.models.backends.facts import Facts, Inputs, Promises
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.loadable import Model, localize


@dataclass(frozen=True)
class LinearPredictor(Predictor):
    """One product and a sum a row, added up in the order of the columns."""

    name: str
    weights_f: Array
    bias: float

    @property
    def promises(self) -> Promises:
        """A row's bits do not depend on others: its sum has the same order everywhere."""
        return Promises(None, True, "nan", "cpu", 1, np.__version__)

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        features_bf = inputs[self.name]
        assert isinstance(features_bf, np.ndarray)
        score_b = np.full(len(features_bf), self.bias, np.float32)
        for place, weight in enumerate(self.weights_f):
            score_b += features_bf[:, place] * weight
        return {"score": score_b}


class LinearBackend(Backend):
    """Linear models in .npz files."""

    packages = ("numpy",)
    unpinned = ("npz",)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        weights_f, bias = _read(localize(model) / model.weights)
        return LinearPredictor(model.inputs[0].name, weights_f, bias)

    def inspect(self, model: Model) -> Facts:
        weights_f, _ = _read(localize(model) / model.weights)
        return Facts(inputs={model.inputs[0].name: weights_f.shape}, outputs={"score": ()})


def _read(path: Path) -> tuple[Array, float]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["weights"].astype(np.float32), float(file["bias"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} is not a linear model ({error}); expected an .npz file with the arrays "
            "weights and bias"
        ) from error


BACKEND = LinearBackend()
