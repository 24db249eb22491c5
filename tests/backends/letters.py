"""A backend of another package whose models take texts: numbers of letters, weighted.

The file holds the weight of each byte as JSON. A score is the sum of a text's weights, and of a
number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from batchscore.columnar.arrays import Array
from batchscore.columnar.texts import Texts
from batchscore.models.backends.facts import Inputs, Promises
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.loadable import Model, read_weights


@dataclass(frozen=True)
class LettersPredictor(Predictor):
    """Adds up the weights of each distinct text once."""

    weights: Mapping[int, float]

    @property
    def promises(self) -> Promises:
        return Promises(None, True, "nan", "cpu", 1, "1")

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        texts, number_b = inputs["letters"], np.asarray(inputs["number"])
        assert isinstance(texts, Texts)
        # No text is missing: a null would be taken for the last one.
        assert (texts.place_b >= 0).all()
        weight_k = [sum(self.weights.get(each, 0) for each in text) for text in texts.encoded_k]
        return {"score": np.array(weight_k, np.float64)[texts.place_b] + number_b}


class LettersBackend(Backend):
    """Weights of letters in JSON files."""

    unpinned = ("letters",)
    takes_texts = True

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        found = json.loads(read_weights(model))
        return LettersPredictor({int(letter): weight for letter, weight in found.items()})


BACKEND = LettersBackend()
