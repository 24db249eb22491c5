"""What a format does to write a model folder of a model in memory."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pyarrow as pa

from batchscore.columnar.ragged import Varying
from batchscore.errors import ArgumentError, ModelError
from batchscore.models.backends.built_in import FORMATS
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.tree_files import importing
from batchscore.models.card import InputTensor, model_input
from batchscore.models.features import Features, input_shapes, required_columns
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model

MODEL_PROTO = "model_proto"
"""The ONNX model of what torch.onnx.export returns."""


@dataclass(frozen=True)
class Draft:
    """What is known of a model before its outputs are.

    Args:
        columns: The columns that feed each input.
        declared: What the card says of each input.
        features: Features that make the inputs, if any.
    """

    columns: Mapping[str, tuple[str, ...]]
    declared: Mapping[str, InputTensor]
    features: Features | None

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs as scoring knows them."""
        found = self.declared.items()
        return tuple(model_input(name, each, self.columns[name]) for name, each in found)

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(name for each in self.columns.values() for name in each))

    @property
    def varying(self) -> dict[str, Varying]:
        """The inputs whose rows differ in length."""
        return {each.name: each.varying for each in self.inputs if each.varying}


@dataclass(frozen=True)
class Asked:
    """What a caller of `save_model` says of a model; what is left out is found.

    Args:
        args: Keyword arguments that the model's class is built with.
        features: Fitted preprocessing.
        columns: The columns that make up each input.
        inputs: What the sample does not show of an input.
        outputs: Names of the outputs.
        call: What of the model is called, as the card says it.
        sample: The sample as it was given.
    """

    args: Mapping[str, Any] | None
    features: Features | None
    columns: Mapping[str, Sequence[str]] | None
    inputs: Mapping[str, Mapping[str, Any]] | None
    outputs: Sequence[str]
    call: Mapping[str, Any] | None
    sample: Any = None


class Saver(ABC):
    """Writes models of a framework."""

    unused: tuple[str, ...] = ()
    """What of `Asked` does not go with it."""
    takes_paths: bool = False
    """Whether it takes a model file as its path, and looks at it itself."""
    if_differs: str = "Give as sample rows of the training's columns and types"
    """What to do if the model gives other scores once it is loaded."""

    def refuse_unused(self, asked: Asked) -> None:
        """Raises ArgumentError where something is given that means nothing for the model."""
        given = [name for name in self.unused if getattr(asked, name)]
        if given:
            raise ArgumentError(f"{given[0]}: means nothing for a model of this kind; leave it out")

    def scoring(self) -> AbstractContextManager[None]:
        """Returns what undoes changes of the framework's settings that scoring makes."""
        return nullcontext()

    def opened(self, model: Model) -> Any:
        """Returns the framework's own object of one model file, whose loading was tried before.

        None if it has none; then the file is called by its backend.
        """
        return None

    @abstractmethod
    def require_savable(self, model: Any) -> None:
        """Raises ModelError for a model that cannot be saved; the message says what to do."""

    @abstractmethod
    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Returns what is known of a model before its outputs are.

        Raises:
            InputError, ModelError: Model, rows and what is asked do not fit.
        """

    @abstractmethod
    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns a card's keys of the format, and the files that hold the model."""

    @abstractmethod
    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the framework's own calls of the model, for all of these rows."""


def best_of_search(model: Any) -> Any:
    """Returns the best estimator of a search of scikit-learn; any other model is returned as it is.

    Raises:
        ModelError: The search was not fitted, or keeps no estimator.
    """
    kinds = [kind.__module__ for kind in type(model).__mro__]
    if not any(kind.startswith("sklearn.model_selection._search") for kind in kinds):
        return model
    if not hasattr(model, "best_estimator_"):
        raise ModelError("model has no best_estimator_; call its fit, with refit=True")
    return model.best_estimator_


def saver_of(model: Any) -> Saver:
    """Returns what saves a model, by the package of its class or of a class above; else torch's.

    The content of a file is one of ONNX.
    """
    # A wrapper of another library is an estimator of scikit-learn too, further up.
    roots = [each for kind in type(model).__mro__ for each in _packages(kind.__module__)]
    known = {name: each for each in FORMATS.values() for name in (each.framework, *each.others)}
    found = next((known[root] for root in roots if root in known), FORMATS["safetensors"])
    if isinstance(model, bytes) or hasattr(model, MODEL_PROTO):
        found = FORMATS["onnx"]
    with importing(found.framework):
        saver = import_module(found.saver).SAVER
    assert isinstance(saver, Saver)
    return saver


def _packages(module: str) -> list[str]:
    """Returns a module and the packages that it lies in, the outermost last."""
    return [*itertools.accumulate(module.split("."), "{}.{}".format)][::-1]


def draft_of_features(features: Features) -> Draft:
    """Returns what is known of a model whose inputs features make."""
    read = {name: _columns_of(features, name) for name in features.inputs}
    shapes = input_shapes(features).items()
    declared = {name: InputTensor(type=t, shape=shape) for name, (t, shape) in shapes}  # type: ignore[arg-type]
    return Draft(read, declared, features)


def _columns_of(features: Features, name: str) -> tuple[str, ...]:
    """Returns the columns that feed an input."""
    return required_columns(Features(inputs={name: features.inputs[name]}))
