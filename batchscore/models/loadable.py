"""A verified model, as what loads and calls it knows it, and its files on this machine.

The process of a model imports this and no reader of cards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import FailedError, ModelError
from batchscore.models.inputs import ModelInput
from batchscore.models.model_files import (
    code_sha256,
    compare,
    copy_file,
    open_folder,
    read_verified,
    sha256_of,
    shown,
    verify,
)
from batchscore.storage.private_folder import private_folder, put_in_place
from batchscore.storage.store import Store

if TYPE_CHECKING:
    from batchscore.models.features import Features

_CODE_BYTES = 16 << 20
_WEIGHTS_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True)
class ModelOutput:
    """A model output; `shape` is without the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A verified model, from a model folder or from a single weights file.

    `folder` is the address that the files of `sha256` lie in; `code` is the local folder that an
    architecture file is relative to, None for the model folder itself; `code_files` are those that
    it may import or read there, with their SHA-256. `call` says what of the model is called,
    where its format leaves a choice.
    """

    name: str
    version: str
    format: str
    folder: str
    weights: str
    architecture: str
    architecture_args: Mapping[str, Any]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    sha256: Mapping[str, str]
    features: Features | None = None
    golden: str | None = None
    profile: str | None = None
    tolerance: float = 1e-5
    code: str | None = None
    code_sha256: str | None = None
    code_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    no_influence: tuple[str, ...] = ()
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256 over everything that changes scores or their `model_version` column.

        The golden rows, the evaluation, the reference profile and where the files lie do not.
        """
        decides = {
            "version": self.version,
            "format": self.format,
            "weights": self.weights,
            "architecture": [self.architecture, self.architecture_args, self.code_sha256],
            "inputs": [_spell_input(each) for each in self.inputs],
            "outputs": [[each.name, each.dtype, list(each.shape)] for each in self.outputs],
            "files": {k: v for k, v in self.sha256.items() if k not in self.no_influence},
        }
        return _hash_of({**decides, "call": dict(self.call)} if self.call else decides)

    @property
    def names_inputs(self) -> str:
        """What names the columns of the inputs, for a message."""
        if self.features is None and any(each.types for each in self.inputs):
            return f"model {self.name}"
        if self.features is None:
            return "model.inputs"
        # A file alone, or with what changes no score, has no other preprocessing than its own.
        alone = {*self.sha256} - {*self.no_influence} == {self.weights}
        return f"model {self.weights}" if alone else "the model's preprocessing"


def _spell_input(each: ModelInput) -> list[Any]:
    """Return what a hash is made of, field by field, so that it does not go with the class."""
    vary = each.varying and [each.varying.max_length, each.varying.pad, each.varying.truncate]
    spelled = [each.name, each.dtype, list(each.shape), list(each.columns), vary]
    return spelled if each.missing is None else [*spelled, each.missing]


def localize(model: Model) -> Path:
    """Return a local folder with the model's files, each verified again, right before it is used.

    A local folder is returned as it is; a remote one is copied to a folder of the temporary
    directory that bears the files' hash, in one step, and reused by later calls. Raises ModelError.
    """
    store = open_folder(model.folder)
    if model.code is not None and model.code_sha256 is not None:
        found = code_sha256(model.architecture, model.code)
        compare(f"{model.code}/{model.architecture}", model.code_sha256, str(found))
    if store.is_local:
        verify(store, model.sha256)
        return Path(store.path(""))
    target = _cache_folder() / _hash_of(model.sha256)[:32]
    if _intact(target, model.sha256):
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        copied = Path(staging) / "model"
        copied.mkdir()
        for name in model.sha256:
            copy_file(store, name, copied / name)
        verify(Store(str(copied)), model.sha256)
        if not put_in_place(copied, target, lambda: _intact(target, model.sha256)):
            # Another worker was first; what it put there must be whole.
            verify(Store(str(target)), model.sha256)
    return target


def read_sources(model: Model, folder: Path) -> dict[str, bytes]:
    """Return the Python files of a model folder, as bytes whose SHA-256 was compared.

    `folder` is where `localize` put them. One weights file has none: its code is the job's. Raises
    ModelError.
    """
    names = [name for name in model.sha256 if name.endswith(".py") and model.code is None]
    store = Store(str(folder))
    return {n: read_verified(store, n, model.sha256[n], _CODE_BYTES) for n in names}


def read_weights(model: Model) -> bytes:
    """Return the weights file, as bytes whose SHA-256 was compared. Raises ModelError."""
    store = open_folder(model.folder)
    return read_verified(store, model.weights, model.sha256[model.weights], _WEIGHTS_BYTES)


def copy_verified(model: Model, names: Iterable[str], folder: Path) -> None:
    """Copies some of a model's files to a private folder; the copies' SHA-256 are compared.

    Raises:
        ModelError: A file is missing, or its SHA-256 differs.
    """
    source, target = open_folder(model.folder), Store(str(folder))
    for name in names:
        copy_file(source, name, folder / name)
        compare(shown(source, name), model.sha256[name], sha256_of(target, name))


def _intact(folder: Path, expected: Mapping[str, str]) -> bool:
    try:
        verify(Store(str(folder)), expected)
    except ModelError:
        return False
    return True


def _cache_folder() -> Path:
    """Return this user's own folder for copied models."""
    try:
        return private_folder("batchscore-models")
    except FailedError as error:
        raise ModelError(str(error)) from error


def _hash_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
