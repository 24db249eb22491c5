"""Linear models that also compute on a device, if an environment variable says that it is there.

The device adds columns up in the other order, so that its scores have other bits.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchscore.columnar.arrays import Array
from batchscore.errors import DeviceError
from batchscore.models.backends.facts import Call, Inputs
from batchscore.models.backends.protocol import Predictor
from batchscore.models.loadable import Model
from tests.backends.linear import LinearBackend, LinearPredictor

NAME = "BATCHSCORE_TEST_DEVICE"
"""Variable that holds what the device is called; without it there is none."""


@dataclass(frozen=True)
class BackwardPredictor(LinearPredictor):
    """Adds up in the other order, as the device does."""

    def __call__(self, inputs: Inputs) -> dict[str, Array]:
        score_b = 0.0 * inputs[self.name][:, 0]  # type: ignore[index,operator]
        for place in reversed(range(len(self.weights_f))):
            score_b += inputs[self.name][:, place] * self.weights_f[place]  # type: ignore[index]
        return {"score": score_b + self.weights_f.dtype.type(self.bias)}


class AcceleratedBackend(LinearBackend):
    """Linear models on the CPU or the device."""

    other_devices = ("cuda",)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        found = super().load(model, device, threads, prove)
        return found if device == "cpu" else BackwardPredictor(**vars(found))

    def resolve(self, asked: str) -> str:
        if asked in ("auto", "cpu"):
            return "cuda" if asked == "auto" and NAME in os.environ else "cpu"
        if NAME not in os.environ:
            raise DeviceError(f"runtime.device {asked!r}: this machine has 0 usable GPUs")
        return asked

    def describe(self, device: str) -> str:
        return device if device == "cpu" else f"{device}, {os.environ[NAME]}"

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        return (256, "what the device takes") if call.device != "cpu" else (call.batch_rows, "all")


BACKEND = AcceleratedBackend()
