"""The model folder: its card `model.yaml`, its hashes, and what scoring needs to know of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import yaml
from fsspec.implementations.local import LocalFileSystem

from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.card import CARD, CardDumper, Format, ModelCard, parse_card
from batchscore.models.code import hashes
from batchscore.models.features import Features, input_shapes, load_features, required_columns
from batchscore.models.imported import imported_files
from batchscore.models.inputs import ModelInput, check_varying, model_input
from batchscore.models.validate import validated
from batchscore.storage.store import is_local

_CARD_BYTES = 1 << 20
_PREPROCESSING_BYTES = 256 << 20
_CODE_BYTES = 16 << 20
_COPY_BYTES = 1 << 20
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
    files, root = _open(address)
    card = validated(ModelCard, parse_card(_read(files, root, CARD, _CARD_BYTES)), CARD)
    _check_listed(card)
    _verify(files, root, card.files)
    features = None
    if card.preprocessing:
        sha256 = card.files[card.preprocessing]
        text = _read_verified(files, root, card.preprocessing, sha256, _PREPROCESSING_BYTES)
        features = load_features(text)
        _check_inputs(card, features)
    inputs = _inputs(card, features)
    return Model(
        name=card.name,
        version=card.version,
        format=card.format,
        folder=_address(files, root),
        weights=card.weights,
        architecture=card.architecture,
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
    _check_listed(checked)
    _inputs(checked, None)
    content = checked.model_dump(mode="json", exclude_none=True)
    text = yaml.dump(content, Dumper=CardDumper, sort_keys=False)
    target, root = _open(address)
    try:
        target.makedirs(root, exist_ok=True)
        for name, body in [*files.items(), (CARD, text.encode())]:
            target.pipe_file(f"{root}/{name}", body)
    except OSError as error:
        raise ModelError(f"model folder {address} cannot be written: {error}") from error
    return checked


def single_file_model(
    weights: str,
    *,
    format: Format,
    architecture: str,
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

    Only "safetensors", which can hold no code, may go without `sha256`; the version is by default
    the hash's first 12 digits. Raises ModelError for a missing file or another hash.
    """
    declared = tuple(inputs)
    check_varying(declared)
    files, path = _open(weights)
    root, _, file = path.rpartition("/")
    found = _sha256(files, path)
    _check_pinned(path, format, sha256, found)
    return Model(
        name=name or file.rpartition(".")[0] or file,
        version=version or found[:12],
        format=format,
        folder=_address(files, root),
        weights=file,
        architecture=architecture,
        architecture_args=dict(architecture_args or {}),
        inputs=declared,
        outputs=tuple(outputs),
        sha256={file: found},
        code=os.path.abspath(base),
        code_sha256=_code_sha256(architecture, base),
        code_files=_code_files(architecture, base) if code_files is None else code_files,
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
                f"model input {name!r} takes {counted(width, 'value')} a row, found "
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
    files, root = _open(model.folder)
    local = LocalFileSystem()
    if model.code is not None and model.code_sha256 is not None:
        found = _code_sha256(model.architecture, model.code)
        _compare(f"{model.code}/{model.architecture}", model.code_sha256, str(found))
    if isinstance(files, LocalFileSystem):
        _verify(local, root, model.sha256)
        return Path(root)
    target = _cache_folder() / _hash_of(model.sha256)[:32]
    if _intact(target, model.sha256):
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        copy = Path(staging) / "model"
        copy.mkdir()
        for name in model.sha256:
            _copy(files, f"{root}/{name}", copy / name)
        _verify(local, str(copy), model.sha256)
        if target.exists() and not _intact(target, model.sha256):
            target.rename(Path(staging) / "damaged")
        try:
            copy.rename(target)
        except OSError:
            # Another worker was first; what it put there must be whole.
            _verify(local, str(target), model.sha256)
    return target


def read_sources(model: Model, folder: Path) -> dict[str, bytes]:
    """Return the Python files of a model folder, as bytes whose SHA-256 was compared.

    `folder` is where `localize` put them. One weights file has none: its code is the job's. Raises
    ModelError.
    """
    names = [name for name in model.sha256 if name.endswith(".py") and model.code is None]
    local, root = LocalFileSystem(), str(folder)
    return {n: _read_verified(local, root, n, model.sha256[n], _CODE_BYTES) for n in names}


def _open(address: str) -> tuple[Any, str]:
    try:
        files, root = fsspec.core.url_to_fs(str(address))
    except (ImportError, ValueError) as error:
        raise ModelError(
            f"model address {address} cannot be opened: {error}; correct the address, or install "
            "the file system it names"
        ) from error
    return files, str(root).rstrip("/")


def _address(files: Any, root: str) -> str:
    """Return the address that opens `root` again, from any working directory."""
    return root if isinstance(files, LocalFileSystem) else str(files.unstrip_protocol(root))


def _check_listed(card: ModelCard) -> None:
    """Raise ModelError where a file that the card uses is not among its hashed files."""
    used = [card.weights, card.preprocessing, card.golden, card.evaluation, card.profile]
    module = card.architecture.partition(":")[0]
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


def _verify(files: Any, root: str, expected: Mapping[str, str]) -> None:
    for name, sha256 in expected.items():
        _compare(f"{root}/{name}", sha256, _sha256(files, f"{root}/{name}"))


def _compare(path: str, expected: str, found: str) -> None:
    if expected != found:
        raise ModelError(
            f"{path} has SHA-256 {found}, expected {expected}; the file was changed or is damaged: "
            "restore it, or write the model again and give it a new version"
        )


def _check_pinned(path: str, format: str, expected: str | None, found: str) -> None:
    if expected is None and format == "pt":
        raise ModelError(
            f"model {path} is of format pt and needs its sha256; where {found} is the file that "
            "you trust, set sha256 to that, or convert the weights to safetensors"
        )
    _compare(path, expected or found, found)


def _intact(folder: Path, expected: Mapping[str, str]) -> bool:
    try:
        _verify(LocalFileSystem(), str(folder), expected)
    except ModelError:
        return False
    return True


def _sha256(files: Any, path: str) -> str:
    _check_file(files, path)
    digest = hashlib.sha256()
    try:
        with files.open(path, "rb") as source:
            while part := source.read(_COPY_BYTES):
                digest.update(part)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def _read_verified(files: Any, root: str, name: str, sha256: str, limit: int) -> bytes:
    content = _read(files, root, name, limit)
    _compare(f"{root}/{name}", sha256, hashlib.sha256(content).hexdigest())
    return content


def _read(files: Any, root: str, name: str, limit: int) -> bytes:
    path = f"{root}/{name}"
    _check_file(files, path)
    try:
        with files.open(path, "rb") as source:
            content: bytes = source.read(limit + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if len(content) > limit:
        raise ModelError(f"{path} is larger than the {limit} bytes that are read of it")
    return content


def _check_file(files: Any, path: str) -> None:
    """Raise ModelError where `path` is missing or, like a pipe or a folder, is no plain file."""
    try:
        kind = files.info(path)["type"]
    except OSError as error:
        raise ModelError(
            f"{path} is missing or unreadable ({type(error).__name__}); "
            "restore it, or correct the model's path"
        ) from error
    if kind != "file":
        raise ModelError(f"{path} is a {kind}, expected a file")


def _copy(files: Any, source: str, target: Path) -> None:
    try:
        with files.open(source, "rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, _COPY_BYTES)
    except OSError as error:
        raise ModelError(f"{source} cannot be copied to {target}: {error}") from error


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
    return _sha256(LocalFileSystem(), os.path.join(os.path.abspath(base), module))


def _code_files(architecture: str, base: str) -> dict[str, str]:
    """Return the hashes of an architecture's file and of those that it imports."""
    return hashes(imported_files(base, architecture.partition(":")[0]))


def _hash_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
