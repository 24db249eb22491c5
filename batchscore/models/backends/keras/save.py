"""Writes a network of Keras in memory to a model folder, with its own scores of a sample."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, one_line, reason, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Inputs, Outputs
from batchscore.models.backends.keras.backend import KerasBackend
from batchscore.models.backends.keras.model_file import (
    CONFIGURATION,
    METADATA,
    read_keras_file,
)
from batchscore.models.backends.keras.predictor import KerasCall, KerasPredictor
from batchscore.models.backends.saving import Asked, Draft, Saver
from batchscore.models.backends.tensor_saving import draft_of_tensors, tensor_card
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.save import keeping_threads
from batchscore.models.loadable import Model

_WEIGHTS_FILE = "model.keras"
_DATE = (1980, 1, 1, 0, 0, 0)


class KerasSaver(Saver):
    """Sequential and Functional models, as `.keras` files."""

    unused = ("args", "call")

    def scoring(self) -> AbstractContextManager[None]:
        """Returns what gives torch its threads back."""
        return keeping_threads()

    def opened(self, model: Model) -> Any:
        """Returns the Keras model of a file."""
        loaded = KerasBackend().load(model, "cpu")
        assert isinstance(loaded, KerasPredictor)
        assert isinstance(loaded.call, KerasCall)
        return loaded.call.network

    def require_savable(self, model: Any) -> None:
        """Requires a model of Keras on torch, with weights, that a file can hold."""
        if not isinstance(model, keras.Model):
            raise ModelError(f"model is {type_of(model)}; expected a Keras model")
        KerasBackend().prepare()
        if not model.built:
            raise ModelError(
                "model has no weights yet; call it once, or build it, before saving it"
            )
        read_keras_file(_content(model))

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes the inputs of the model, and the columns that fill them."""
        return draft_of_tensors(read_keras_file(_content(model)).inputs, rows, asked)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns the inputs, and the file."""
        return tensor_card("keras", _WEIGHTS_FILE, _content(model), draft)

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the model's own `predict`; for rows of varying length, calls as of a run."""
        structure = read_keras_file(_content(model)).structure
        own = structure.outputs if len(structure.outputs) > 1 else ()
        call = KerasCall(model, structure, "cpu", _named(asked.outputs, structure.outputs) or own)
        if draft.varying:
            return Forward(call, (), "cpu", 1, varying=draft.varying)
        return _PredictCalls(call)


@dataclass(frozen=True)
class _PredictCalls:
    """The framework's own call of a model in memory."""

    call: KerasCall
    late: bool = False

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Returns what `predict` does."""
        given = self.call.given(inputs)
        try:
            made = self.call.named(self.call.network.predict(given, verbose=0))
        except Exception as error:  # Keras raises what it likes
            raise ModelError(
                f"the model's predict raised {type(error).__name__} ({one_line(reason(error), 200)}"
                "); give a sample like the rows of its training"
            ) from error
        named = made if isinstance(made, dict) else {"score": made}
        found = {name: _wide(np.asarray(array)) for name, array in named.items()}
        return lambda: found

    def take_extra_seconds(self) -> float:
        """Returns 0: nothing is computed on threads of ours."""
        return 0.0


def _wide(array: Array) -> Array:
    """Returns an output (rows, …), in which a last dimension of one, and half floats, are gone."""
    # NumPy knows bfloat16 by its name alone.
    is_half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    array = array.astype(np.float32) if is_half else array
    return array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array


def _named(asked: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    if asked and len(asked) != len(own):
        raise ModelError(
            f"outputs: the model returns {', '.join(own)}, and {counted(len(asked), 'name')} "
            "are given; give one for each, in that order"
        )
    return tuple(asked)


def _content(model: Any) -> bytes:
    """Returns the model's file, the same bytes each time."""
    with (
        tempfile.TemporaryDirectory(prefix="batchscore-keras-") as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        file = Path(folder) / _WEIGHTS_FILE
        try:
            model.save(file)
        except Exception as error:  # of layers of a person's own
            raise ModelError(
                f"model cannot be saved by Keras ({one_line(reason(error), 200)}); build it from "
                "layers of Keras"
            ) from error
        return _repacked(file)


def _repacked(file: Path) -> bytes:
    """Returns an archive without the time when it was written, and names by places in memory."""
    made = io.BytesIO()
    with zipfile.ZipFile(file) as own, zipfile.ZipFile(made, "w") as archive:
        for name in own.namelist():
            content = own.read(name)
            if name == METADATA:
                content = json.dumps({"keras_version": keras.__version__}).encode()
            elif name == CONFIGURATION:
                content = json.dumps(_numbered(json.loads(content), {})).encode()
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return made.getvalue()


def _numbered(value: Any, known: dict[int, int]) -> Any:
    """Returns a configuration whose shared objects are numbered as they come."""
    if isinstance(value, list):
        return [_numbered(each, known) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: _numbered(each, known) for key, each in value.items() if key != _SHARED}
    if _SHARED in value:
        made[_SHARED] = known.setdefault(value[_SHARED], len(known))
    return made


_SHARED = "shared_object_id"
SAVER = KerasSaver()
