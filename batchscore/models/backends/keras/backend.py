"""The Keras backend as the registry knows it; Keras itself is imported when it is needed."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING

from batchscore.models.backends.facts import DEFAULT_KERNELS, TILE_ROWS, Call, Facts, KernelTrial
from batchscore.models.backends.keras.model_file import KerasFile, read_keras_file
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.backend import TorchBackend
from batchscore.models.backends.tree_files import importing, naming_file, require_package
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.inputs import ModelInput
    from batchscore.models.loadable import Model

_ROOM = "batchscore.models.backends.keras"
# Of inputs with more numbers a row, such as images, fewer rows stay in a CPU's caches.
_FEW_NUMBERS = 256
_ROWS_OF_MANY = 64


class KerasBackend(TorchBackend):
    """Model files of Keras, `.keras` and `.h5`, which torch computes."""

    packages = ("keras", "torch")
    unpinned = ("keras",)
    needs_architecture = False
    names_tensors = True
    is_fragile = True
    trial_values = (0.0, 1.0)
    compiles = False
    kernels = (DEFAULT_KERNELS,)
    preloads = (f"{_ROOM}.preloaded",)

    def require(self) -> None:
        """Looks for Keras and h5py, and does not import them."""
        for package in ("keras", "h5py"):
            require_package(package, "keras")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at all of its configuration."""
        return facts_of(described(read_weights(model), model))

    def examine(self, model: Model) -> Facts:
        """Returns the same: the file is no state_dict, whose tensors torch's backend counts."""
        return self.inspect(model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the file; `threads` counts tiles next to each other, and a tile has one."""
        self.prepare()
        from batchscore.models.backends.keras.predictor import load_keras

        content = read_weights(model)
        return load_keras(model, content, described(content, model), device)

    def prepare(self) -> None:
        """Imports Keras, torch, and what calls them."""
        self.require()
        from batchscore.models.backends.keras.lean_keras import import_keras

        with importing("keras"):
            import_keras()
            import_module(f"{_ROOM}.predictor")

    def scores_as_earlier(self, model: Model) -> bool:
        """Tells that no earlier version scored such a model."""
        return True

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns a tile on the CPU, by the size of a row; on a GPU what an earlier run found."""
        if call.device != "cpu" or call.rows != TILE_ROWS:
            return super().known_rows(model, call)
        return tile_rows(model.inputs), self.usual_call

    def known_kernels(self, model: Model, call: Call) -> KernelTrial | None:
        """Tells that there is no choice."""
        return None


def tile_rows(inputs: tuple[ModelInput, ...]) -> int:
    """Returns the rows of a tile on the CPU; those of varying length have their own rule."""
    numbers = sum(math.prod(each.shape) for each in inputs)
    return TILE_ROWS if numbers <= _FEW_NUMBERS else _ROWS_OF_MANY


def described(content: bytes, model: Model) -> KerasFile:
    """Returns what a file's content says; ModelError with its path where it cannot be loaded."""
    with naming_file(model):
        return read_keras_file(content)


def facts_of(found: KerasFile) -> Facts:
    """Returns what a file says as all backends say it."""
    fixed = {
        each.name: tuple(size for size in each.shape or () if size is not None)
        for each in found.inputs
        if None not in (each.shape or ()) and len(each.shape or ()) < 2
    }
    return Facts(
        inputs=fixed,
        versions={"keras": ".".join(map(str, found.version))},
        taken=found.inputs,
        takes_lengths=True,
        casts=True,
        counts={"layers": found.structure.layers, "parameters": found.parameters},
        said={"outputs": ", ".join(found.structure.outputs)},
    )


BACKEND = KerasBackend()
