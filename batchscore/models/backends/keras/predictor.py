"""A loaded network of Keras as it is called: as torch's own, in tiles of one shape.

Keras keeps the device of its tensors for each thread, so every call sets it.
"""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import torch

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line, reason
from batchscore.models.backends.facts import FileTensor
from batchscore.models.backends.keras.backend import tile_rows
from batchscore.models.backends.keras.model_file import (
    CONFIGURATION,
    METADATA,
    WEIGHTS,
    KerasFile,
    weights_of,
)
from batchscore.models.backends.keras.structure import Structure
from batchscore.models.backends.torch.plain_module import ModulePredictor
from batchscore.models.declared_outputs import compare_outputs
from batchscore.models.loadable import Model, ModelOutput


@dataclass(frozen=True)
class KerasCall:
    """Calls a network with tensors by name.

    Args:
        network: The Keras model.
        structure: What it takes and returns.
        device: Where it is.
        names: Names of the outputs, in its order; none: a single one stays without a name.
    """

    network: Any
    structure: Structure
    device: str
    names: tuple[str, ...]

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Returns what the network returns, without what it would do in training."""
        with keras.device(self.device):
            return self.named(self.network(self.given(tensors), training=False))

    def given(self, arrays: Mapping[str, Any]) -> Any:
        """Returns inputs as the network takes them."""
        found = [_shaped(arrays[each.name], each) for each in self.structure.inputs]
        if self.structure.keys is not None:
            return dict(zip(self.structure.keys, found, strict=True))
        return found[0] if self.structure.is_single else found

    def named(self, result: Any) -> Any:
        """Returns outputs by name."""
        if isinstance(result, dict):
            result = [result[key] for key in self.structure.returned or result]
        parts = result if isinstance(result, list | tuple) else [result]
        return dict(zip(self.names, parts, strict=True)) if self.names else parts[0]


def _shaped(array: Any, known: FileTensor) -> Any:
    """Returns an input (rows, …) in the shape that the model takes, of the same numbers."""
    shape = known.shape or ()
    if len(array.shape) == len(shape) + 1 or shape.count(None) > 1:
        return array
    return array.reshape(len(array), *(-1 if size is None else size for size in shape))


def output_names(structure: Structure, outputs: tuple[ModelOutput, ...]) -> tuple[str, ...]:
    """Returns the names of the outputs in the network's order: the card's, or else its own.

    Raises:
        ModelError: The card declares more or fewer.
    """
    own, declared = structure.outputs, tuple(each.name for each in outputs)
    if not declared:
        return own if len(own) > 1 else ()
    if len(declared) != len(own):
        raise ModelError(
            f"the model has outputs {', '.join(own)}, and {', '.join(declared)} are declared; "
            "declare each, in that order"
        )
    return own if {*own} == {*declared} else declared


@dataclass(frozen=True)
class KerasPredictor(ModulePredictor):
    """A network of Keras.

    Args:
        written: Version of the Keras that wrote it.
    """

    written: str

    @property
    def notes(self) -> Mapping[str, str]:
        """Says which Keras wrote a model, where it is another major version."""
        here = str(keras.__version__)
        if self.written.partition(".")[0] == here.partition(".")[0]:
            return {}
        return {"model file": f"written by Keras {self.written}, computed by Keras {here}"}


def load_keras(model: Model, content: bytes, found: KerasFile, device: str) -> KerasPredictor:
    """Loads the bytes of a file.

    Raises:
        ModelError: Keras cannot read them, or is older than the one that wrote them.
    """
    where, here = f"{model.folder}/{model.weights}", str(keras.__version__)
    written = ".".join(map(str, found.version))
    if found.version[:2] > tuple(int(part) for part in here.split(".")[:2]):
        raise ModelError(
            f"{where}: the model was written by Keras {written}, and {here} is installed, which is "
            f"older and may score otherwise; install 'keras>={written}'"
        )
    try:
        names = output_names(found.structure, model.outputs)
        with tempfile.TemporaryDirectory(prefix="batchscore-keras-") as folder:
            file = _as_keras_sees_it(Path(folder), content, found)
            with keras.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = keras.saving.load_model(str(file), compile=False, safe_mode=True)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    except Exception as error:  # Keras raises what it likes
        again = "as .keras, where .h5 does not hold all of it" if found.is_legacy else "again"
        raise ModelError(
            f"{where}: Keras {here} cannot load it ({one_line(reason(error), 300)}); restore the "
            f"file, or save the model {again}"
        ) from error
    call, rows = KerasCall(network, found.structure, device, names), tile_rows(model.inputs)
    compare_outputs(model, _outputs_of(network, found.structure))
    version = f"{here}, torch {torch.__version__}"
    return KerasPredictor(model, call, device, rows, False, version, written)


def _outputs_of(network: Any, structure: Structure) -> list[FileTensor]:
    """Returns the outputs as the loaded network knows them; none of a mapping, by whose keys Keras
    orders them in a way of its own.
    """
    made = network.outputs if structure.returned is None else []
    named = zip(structure.outputs, made, strict=False)
    return [FileTensor(name, str(each.dtype), tuple(each.shape[1:])) for name, each in named]


def _as_keras_sees_it(folder: Path, content: bytes, found: KerasFile) -> Path:
    """Writes the model with its checked configuration, and returns its path."""
    configuration = json.dumps(found.configuration)
    if found.is_legacy:
        (folder / "model.h5").write_bytes(content)
        with h5py.File(folder / "model.h5", "r+") as file:
            del file.attrs["model_config"]
            file.attrs["model_config"] = configuration.encode()
        return folder / "model.h5"
    with zipfile.ZipFile(folder / "model.keras", "x") as archive:
        archive.writestr(METADATA, json.dumps({"keras_version": keras.__version__}))
        archive.writestr(CONFIGURATION, configuration)
        archive.writestr(WEIGHTS, weights_of(content))
    return folder / "model.keras"
