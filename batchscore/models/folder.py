"""The model folder: its card `model.yaml`, its hashes, and what scoring needs to know of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest, reason
from batchscore.models.backends.protocol import Backend
from batchscore.models.backends.registry import backend_of
from batchscore.models.card import CARD, CardDumper, Format, ModelCard, parse_card
from batchscore.models.code import hashes
from batchscore.models.features import Features, input_shapes, load_features, required_columns
from batchscore.models.imported import imported_files
from batchscore.models.inputs import ModelInput, check_varying, model_input
from batchscore.models.validate import validated
from batchscore.storage.reading import TooLargeError, read_at_most
from batchscore.storage.store import Store, is_local, open_filesystem

_CARD_BYTES = 1 << 20
_PREPROCESSING_BYTES = 256 << 20
_CODE_BYTES = 16 << 20
_COPY_BYTES = 1 << 20
_RESTORE = "restore it, or correct the model's path"
# What a score does not depend on; everything else that is listed may be read or imported.
_NO_INFLUENCE = ("golden", "evaluation", "profile")


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
    it may import or read there, with their SHA-256.
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
        return _hash_of(decides)


def _spell_input(each: ModelInput) -> list[Any]:
    """Return what a hash is made of, field by field, so that it does not go with the class."""
    vary = each.varying and [each.varying.max_length, each.varying.pad, each.varying.truncate]
    return [each.name, each.dtype, list(each.shape), list(each.columns), vary]


def read_model_folder(address: str) -> Model:
    """Return the model in the folder at any fsspec `address`, after verifying each listed file.

    Raises ModelError for a card that is not valid, a file that is missing, not listed, or whose
    SHA-256 differs; the message names the file, both hashes and the remedy.
    """
    store = _store(address)
    card = validated(ModelCard, parse_card(_read(store, CARD, _CARD_BYTES)), CARD)
    _check_architecture(backend_of(card.format), card.format, card.architecture, CARD)
    _check_listed(card)
    _verify(store, card.files)
    features = None
    if card.preprocessing:
        sha256 = card.files[card.preprocessing]
        text = _read_verified(store, card.preprocessing, sha256, _PREPROCESSING_BYTES)
        features = load_features(text)
        _check_inputs(card, features)
    inputs = _inputs(card, features)
    return Model(
        name=card.name,
        version=card.version,
        format=card.format,
        folder=_address(store),
        weights=card.weights,
        architecture=card.architecture or "",
        architecture_args=card.architecture_args,
        inputs=inputs,
        outputs=tuple(ModelOutput(k, t.type, t.shape) for k, t in card.outputs.items()),
        sha256=dict(sorted(card.files.items())),
        features=features,
        golden=card.golden,
        profile=card.profile,
        tolerance=card.tolerance,
        no_influence=tuple(filter(None, (getattr(card, each) for each in _NO_INFLUENCE))),
    )


def write_model_folder(
    address: str, card: Mapping[str, Any], files: Mapping[str, bytes]
) -> ModelCard:
    """Write `files` (name to content) and their card to `address`; return the card as written.

    `card` holds the keys of ModelCard without `batchscore_model` and `files`. The card is checked
    first and written last; the same content gives the same bytes. Raises ModelError.
    """
    listed = hashes({name: files[name] for name in sorted(files)})
    checked = validated(ModelCard, {"batchscore_model": 1, **card, "files": listed}, CARD)
    _check_architecture(backend_of(checked.format), checked.format, checked.architecture, CARD)
    _check_listed(checked)
    _inputs(checked, None)
    content = checked.model_dump(mode="json", exclude_none=True)
    text = yaml.dump(content, Dumper=CardDumper, sort_keys=False)
    store = _store(address)
    try:
        store.write_all(files)
        store.write(CARD, text.encode())
    except OSError as error:
        raise ModelError(f"model folder {address} cannot be written: {error}") from error
    return checked


def single_file_model(
    weights: str,
    *,
    format: Format,
    architecture: str | None,
    inputs: Iterable[ModelInput],
    outputs: Iterable[ModelOutput],
    base: str,
    code_files: Mapping[str, str] | None = None,
    architecture_args: Mapping[str, Any] | None = None,
    sha256: str | None = None,
    name: str | None = None,
    version: str | None = None,
) -> Model:
    """Return the model in one weights file at any fsspec address; `base` holds its code, locally.

    Only formats that can hold no code, such as "safetensors", may go without `sha256`; the version
    is by default
    the hash's first 12 digits. Raises ModelError for a missing file or another hash.
    """
    declared = tuple(inputs)
    check_varying(declared)
    backend = backend_of(format)
    _check_architecture(backend, format, architecture, f"model {weights}")
    store, file = _store_of_file(weights)
    found = _sha256(store, file)
    _check_pinned(_shown(store, file), format, backend, sha256, found)
    return Model(
        name=name or file.rpartition(".")[0] or file,
        version=version or found[:12],
        format=format,
        folder=_address(store),
        weights=file,
        architecture=architecture or "",
        architecture_args=dict(architecture_args or {}),
        inputs=declared,
        outputs=tuple(outputs),
        sha256={file: found},
        **_job_code(architecture, base, code_files),
    )


def _job_code(
    architecture: str | None, base: str, code_files: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return what a model says of the job's own code; nothing if none builds it."""
    if architecture is None:
        return {}
    return {
        "code": os.path.abspath(base),
        "code_sha256": _code_sha256(architecture, base),
        "code_files": _code_files(architecture, base) if code_files is None else code_files,
    }


def _check_architecture(
    backend: Backend, format: str, architecture: str | None, where: str
) -> None:
    if backend.needs_architecture and not architecture:
        raise ModelError(
            f"{where} is not valid: architecture: missing; models of format "
            f"{format!r} need it: the code that builds the model, as 'file.py:Name'"
        )
    if architecture and not backend.needs_architecture:
        raise ModelError(
            f"{where} is not valid: architecture: models of format "
            f"{format!r} are built without code; leave architecture out"
        )


def files_below(model: Model, base: str) -> frozenset[str]:
    """Return those of a model's files that lie below a folder and decide scores, by path there."""
    if not is_local(model.folder):
        return frozenset()
    folder = os.path.relpath(os.path.realpath(model.folder), os.path.realpath(base))
    kept = (name for name in model.sha256 if name not in model.no_influence)
    return frozenset(os.path.normpath(f"{folder}/{name}") for name in kept)


def map_inputs(model: Model, columns: Mapping[str, Iterable[str]]) -> Model:
    """Return `model` with the columns that feed the inputs named in `columns`.

    Raises ModelError for an unknown input, and where the number of columns is neither 1 (a list
    column) nor, for an input of one length, its values a row; a model with its own preprocessing
    takes none.
    """
    known = {each.name: each for each in model.inputs}
    if columns and model.features is not None:
        raise ModelError(
            f"model {model.name} has its own preprocessing, which names its columns; "
            "leave model.inputs out of the job file"
        )
    for name in columns:
        if name not in known:
            raise ModelError(f"model {model.name} has no input {name!r}: {nearest(name, [*known])}")
        taken, width = tuple(columns[name]), math.prod(known[name].shape)
        if known[name].varying and len(taken) != 1:
            raise ModelError(
                f"model input {name!r} is of varying length, found "
                f"{counted(len(taken), 'column')}; give one list column"
            )
        if len(taken) not in (1, width):
            raise ModelError(
                f"model input {name!r} takes {counted(width, 'value')} per row, found "
                f"{counted(len(taken), 'column')}; give {counted(width, 'column')}, or one list "
                "column"
            )
        known[name] = dataclasses.replace(known[name], columns=taken)
    return dataclasses.replace(model, inputs=tuple(known.values()))


def localize(model: Model) -> Path:
    """Return a local folder with the model's files, each verified again, right before it is used.

    A local folder is returned as it is; a remote one is copied to a folder of the temporary
    directory that bears the files' hash, in one step, and reused by later calls. Raises ModelError.
    """
    store = _store(model.folder)
    if model.code is not None and model.code_sha256 is not None:
        found = _code_sha256(model.architecture, model.code)
        _compare(f"{model.code}/{model.architecture}", model.code_sha256, str(found))
    if store.is_local:
        _verify(store, model.sha256)
        return Path(store.path(""))
    target = _cache_folder() / _hash_of(model.sha256)[:32]
    if _intact(target, model.sha256):
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        copy = Path(staging) / "model"
        copy.mkdir()
        for name in model.sha256:
            _copy(store, name, copy / name)
        _verify(Store(str(copy)), model.sha256)
        if target.exists() and not _intact(target, model.sha256):
            target.rename(Path(staging) / "damaged")
        try:
            copy.rename(target)
        except OSError:
            # Another worker was first; what it put there must be whole.
            _verify(Store(str(target)), model.sha256)
    return target


def read_sources(model: Model, folder: Path) -> dict[str, bytes]:
    """Return the Python files of a model folder, as bytes whose SHA-256 was compared.

    `folder` is where `localize` put them. One weights file has none: its code is the job's. Raises
    ModelError.
    """
    names = [name for name in model.sha256 if name.endswith(".py") and model.code is None]
    store = Store(str(folder))
    return {n: _read_verified(store, n, model.sha256[n], _CODE_BYTES) for n in names}


def _store(address: str) -> Store:
    """Return the folder at an address; ModelError if no filesystem is there for it."""
    store = Store(str(address))
    try:
        store.path("")
    except OSError as error:
        raise ModelError(f"model cannot be opened: {error}; correct the address") from error
    return store


def _store_of_file(address: str) -> tuple[Store, str]:
    """Return a file's folder and its name there."""
    path = _store(address).path("")
    root, _, file = path.rpartition("/")
    return Store((root or "/") if is_local(address) else _remote_address(address, root)), file


def _remote_address(address: str, root: str) -> str:
    return str(open_filesystem(address)[0].unstrip_protocol(root))


def _address(store: Store) -> str:
    """Return the address that opens the folder again, from any working directory."""
    root = store.path("")
    return root if store.is_local else _remote_address(store.address, root)


def _check_listed(card: ModelCard) -> None:
    """Raise ModelError where a file that the card uses is not among its hashed files."""
    used = [card.weights, card.preprocessing, card.golden, card.evaluation, card.profile]
    module = (card.architecture or "").partition(":")[0]
    for name in [*used, module if module.endswith(".py") else None]:
        if name is not None and name not in card.files:
            raise ModelError(
                f"{CARD} uses {name!r} but does not list it under files; add its SHA-256, "
                "or write the folder again"
            )


def _check_inputs(card: ModelCard, features: Features) -> None:
    declared = {name: (t.type, t.shape) for name, t in card.inputs.items()}
    encoded = {name: (dtype, (width,)) for name, (dtype, width) in input_shapes(features).items()}
    if declared != encoded:
        raise ModelError(
            f"{CARD} declares the inputs {declared}, but {card.preprocessing} makes {encoded}; "
            "make them agree"
        )


def _inputs(card: ModelCard, features: Features | None) -> tuple[ModelInput, ...]:
    def columns(name: str) -> tuple[str, ...]:
        if features is None:
            return (name,)
        return required_columns(Features(inputs={name: features.inputs[name]}))

    inputs = tuple(model_input(name, each, columns(name)) for name, each in card.inputs.items())
    check_varying(inputs)
    return inputs


def _verify(store: Store, expected: Mapping[str, str]) -> None:
    for name, sha256 in expected.items():
        _compare(_shown(store, name), sha256, _sha256(store, name))


def _compare(path: str, expected: str, found: str) -> None:
    if expected != found:
        raise ModelError(
            f"{path} has SHA-256 {found}, expected {expected}; the file was changed or is damaged: "
            "restore it, or write the model again and give it a new version"
        )


def _check_pinned(
    path: str, format: str, backend: Backend, expected: str | None, found: str
) -> None:
    if expected is None and format not in backend.unpinned:
        raise ModelError(
            f"model {path} is of format {format} and needs its sha256; if you trust the file "
            f"whose SHA-256 is {found}, set sha256 to it, or convert the weights to safetensors"
        )
    _compare(path, expected or found, found)


def _intact(folder: Path, expected: Mapping[str, str]) -> bool:
    try:
        _verify(Store(str(folder)), expected)
    except ModelError:
        return False
    return True


def _sha256(store: Store, name: str) -> str:
    with _reading(store, name):
        return store.digest(name).sha256


def _read_verified(store: Store, name: str, sha256: str, limit: int) -> bytes:
    content = _read(store, name, limit)
    _compare(_shown(store, name), sha256, hashlib.sha256(content).hexdigest())
    return content


def _read(store: Store, name: str, limit: int) -> bytes:
    with _reading(store, name), store.open(name) as file:
        return read_at_most(file, limit)


def _copy(store: Store, name: str, target: Path) -> None:
    with _reading(store, name), store.open(name) as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)


@contextmanager
def _reading(store: Store, name: str) -> Iterator[None]:
    """Raise what the block cannot read as a ModelError that names the file and the remedy."""
    shown = _shown(store, name)
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{shown} is missing; {_RESTORE}") from error
    except TooLargeError as error:
        raise ModelError(f"{shown} is too large: {error}; {_RESTORE}") from error
    except OSError as error:
        cause = reason(error).removeprefix(f"{shown}: ")
        raise ModelError(f"{shown} cannot be read: {cause}; {_RESTORE}") from error


def _shown(store: Store, name: str) -> str:
    return store.path(name) if store.is_local else store.url(name)


def _cache_folder() -> Path:
    """Return this user's own folder for copied models."""
    folder = Path(tempfile.gettempdir()) / f"batchscore-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat()
    if owner.st_uid != os.getuid() or folder.is_symlink() or owner.st_mode & 0o022:
        raise ModelError(
            f"{folder} belongs to somebody else or is open to others; remove it, or set TMPDIR"
        )
    return folder


def _code_sha256(architecture: str, base: str) -> str | None:
    """Return the hash of an architecture file; code of an installed module has none."""
    module = architecture.partition(":")[0]
    if not module.endswith(".py"):
        return None
    path = os.path.join(os.path.abspath(base), module)
    return _sha256(Store(os.path.dirname(path)), os.path.basename(path))


def _code_files(architecture: str, base: str) -> dict[str, str]:
    """Return the hashes of an architecture's file and of those that it imports."""
    return hashes(imported_files(base, architecture.partition(":")[0]))


def _hash_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
