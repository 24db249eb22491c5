"""A backend that fails as native code can: what it does depends on the values of its rows.

It returns its inputs as they are, so that what comes back can be compared with what went in.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping

import numpy as np

from batchscore.columnar.arrays import Array
from batchscore.columnar.ragged import Ragged
from batchscore.columnar.texts import Texts
from batchscore.models.backends.facts import Inputs, Promises
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.loadable import Model

CLOSE, SEGFAULT, EXIT, RAISE, PRINT, HANG, SAY_PID, SAY_THREAD = range(-8, 0)


class FaultyPredictor(Predictor):
    """Does what the smallest number of its input `x` stands for, if that is negative."""

    @property
    def promises(self) -> Promises:
        return Promises(None, True, "nan", "cpu", 1, "1")

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        x_bf = inputs.get("x")
        if isinstance(x_bf, np.ndarray) and x_bf.dtype == np.float32:
            return self._act(float(x_bf.min()), x_bf)
        found: dict[str, Array] = {}
        for name, values in inputs.items():
            if isinstance(values, Ragged):
                found |= {f"{name} steps": values.steps_n, f"{name} offsets": values.offsets}
            elif isinstance(values, Texts):
                texts = {"places": values.place_b, "bytes": values.bytes_k.steps_n}
                texts["ends"] = values.bytes_k.offsets
                found |= {f"{name} {part}": array for part, array in texts.items()}
            else:
                found[name] = values
        return found

    def _act(self, what: float, x_bf: Array) -> Mapping[str, Array]:
        if what == SEGFAULT:
            signal.raise_signal(signal.SIGSEGV)
        elif what == EXIT:
            os._exit(3)
        elif what == CLOSE:
            os.closerange(3, 4096)
        elif what == RAISE:
            raise ZeroDivisionError("no such row")
        elif what == PRINT:
            print("a line of the model")
            print("another line of the model", file=sys.stderr)
        elif what == HANG:
            threading.Event().wait()
        elif what == SAY_PID:
            return {"score": np.full(len(x_bf), os.getpid(), np.int64)}
        elif what == SAY_THREAD:
            return {"score": np.full(len(x_bf), threading.get_ident(), np.int64)}
        return {"score": x_bf.sum(axis=1, dtype=np.float32)}


class FaultyBackend(Backend):
    """Models that are in no file."""

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        if model.version == "dies":
            os._exit(4)
        return FaultyPredictor()


BACKEND = FaultyBackend()
