"""The model folder: its card `model.yaml`, its hashes, and what scoring needs to know of it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.built_in import FORMATS
from batchscore.models.backends.protocol import Backend
from batchscore.models.backends.registry import backend_of
from batchscore.models.card import CARD, CardDumper, Format, ModelCard, model_input, parse_card
from batchscore.models.code import hashes
from batchscore.models.declared_outputs import check_declared_outputs
from batchscore.models.features import Features, input_shapes, load_features, required_columns
from batchscore.models.file_columns import check_file_columns, with_file_columns
from batchscore.models.file_kinds import describe_file, format_by_content
from batchscore.models.file_tensors import with_file_tensors
from batchscore.models.foreign import describe_folder, misnamed, refused_file
from batchscore.models.imported import imported_files
from batchscore.models.inputs import ModelInput, check_varying
from batchscore.models.loadable import Model, ModelOutput, localize
from batchscore.models.model_files import (
    code_sha256,
    compare,
    open_folder,
    read_file,
    read_verified,
    sha256_of,
    shown,
    verify,
)
from batchscore.models.validate import validated
from batchscore.storage.store import Store, is_local, open_filesystem

_CARD_BYTES = 1 << 20
_PREPROCESSING_BYTES = 256 << 20
# What a score does not depend on; everything else that is listed may be read or imported.
_NO_INFLUENCE = ("golden", "evaluation", "profile")


def read_model_folder(address: str) -> Model:
    """Return the model in the folder at any fsspec `address`, after verifying each listed file.

    Raises ModelError for a card that is not valid, a file that is missing, not listed, or whose
    SHA-256 differs; the message names the file, both hashes and the remedy.
    """
    store = open_folder(address)
    card = read_card(store)
    _check_architecture(backend_of(card.format), card.format, card.architecture, CARD)
    _check_listed(card)
    verify(store, card.files)
    features = None
    if card.preprocessing:
        sha256 = card.files[card.preprocessing]
        text = read_verified(store, card.preprocessing, sha256, _PREPROCESSING_BYTES)
        features = load_features(text)
        _check_inputs(card, features)
    inputs = _inputs(card, features)
    model = Model(
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
        call=card.call.model_dump(exclude_none=True) if card.call else {},
    )
    return completed(model, card.preprocessing or CARD, typed=True)


def read_card(store: Store) -> ModelCard:
    """Return the card of the model folder at a store.

    Raises ModelError where there is none, saying what the folder is, or where it is not valid.
    """
    try:
        text = read_file(store, CARD, _CARD_BYTES)
    except ModelError as error:
        names = store.names()
        if not names or CARD in names:
            raise
        raise ModelError(f"{shown(store, '')}: {describe_folder(names)}") from error
    return validated(ModelCard, parse_card(text), CARD)


def bare_model(address: str, format: str) -> Model:
    """Return the model in one file at any fsspec address, hashed, and nothing said of it."""
    store, file = _store_of_file(address)
    found = sha256_of(store, file)
    name = file.rpartition(".")[0] or file
    hashed = {file: found}
    return Model(name, found[:12], format, _address(store), file, "", {}, (), (), hashed)


def refused_model(address: str) -> ModelError:
    """Return the error of a file that is no model by itself: what it is, and what to do."""
    model = bare_model(address, "")
    path, where = localize(model) / model.weights, f"model {address}"
    form = format_by_content(describe_file(path)) if path.stat().st_size else None
    if form in FORMATS:
        return ModelError(
            f"{where}: is {describe_file(path)}; next to the path give model.format: {form}"
            + (
                ", its architecture, inputs and sha256, or write a model folder with bs.save_model"
                if backend_of(form).needs_architecture
                else ""
            )
        )
    return refused_file(path, where)


def completed(model: Model, what: str, typed: bool = False) -> Model:
    """Return a model with what its file names, such as columns, where its format's files do so.

    `what` declares its inputs, and `typed` tells whether each has a type there.
    Raises ModelError where the file cannot be read, or does not name all that nobody else does.
    """
    backend = backend_of(model.format)
    _check_texts(backend, model, what)
    if model.call and not backend.takes_call:
        raise ModelError(
            f"{CARD} is not valid: call: models of format {model.format!r} are called in one way; "
            "leave call out"
        )
    if not backend.names_columns and not backend.names_tensors:
        return model
    try:
        facts = backend.inspect(model)
    except ModelError as error:
        raise misnamed(model, error) from error
    if model.outputs:
        check_declared_outputs(model, facts)
    if backend.names_tensors:
        return with_file_tensors(model, facts, what, typed)
    if model.features is None:
        return with_file_columns(model, facts, typed)
    check_file_columns(model, facts, what)
    return model


def _check_texts(backend: Backend, model: Model, what: str) -> None:
    texts = [each.name for each in model.inputs if each.dtype == TEXT]
    if texts and not backend.takes_texts:
        raise ModelError(
            f"{what} is not valid: input {texts[0]!r} is a text, and models of format "
            f"{model.format!r} take numbers alone; encode it with bs.fit_features"
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
    store = open_folder(address)
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
    found = sha256_of(store, file)
    _check_pinned(shown(store, file), format, backend, sha256, found)
    model = Model(
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
    return completed(model, f"model {weights}")


def _job_code(
    architecture: str | None, base: str, code_files: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return what a model says of the job's own code; nothing if none builds it."""
    if architecture is None:
        return {}
    return {
        "code": os.path.abspath(base),
        "code_sha256": code_sha256(architecture, base),
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
            "name no columns of its inputs (model.inputs of the job file, or --inputs)"
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
        _check_order(known[name], taken)
        kept = known[name].types if taken == known[name].columns else ()
        known[name] = dataclasses.replace(known[name], columns=taken, types=kept)
    return dataclasses.replace(model, inputs=tuple(known.values()))


def _check_order(known: ModelInput, taken: tuple[str, ...]) -> None:
    """Raises ModelError where a column of the card is given at the place of another one of it."""
    for place, name in enumerate(taken if known.types else ()):
        if name in known.columns and known.columns[place : place + 1] != (name,):
            raise ModelError(
                f"model input {known.name!r}: column {name!r} is number {place + 1} of those given,"
                f" and number {known.columns.index(name) + 1} in {CARD}; keep the order of "
                "training, or leave the columns to the card"
            )


def _store_of_file(address: str) -> tuple[Store, str]:
    """Return a file's folder and its name there."""
    path = open_folder(address).path("")
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
    encoded = input_shapes(features)
    if declared != encoded:
        raise ModelError(
            f"{CARD} declares the inputs {declared}, but {card.preprocessing} makes {encoded}; "
            "make them agree"
        )


def _inputs(card: ModelCard, features: Features | None) -> tuple[ModelInput, ...]:
    def columns(name: str) -> tuple[str, ...]:
        if features is None:
            return card.inputs[name].columns or (name,)
        if card.inputs[name].columns:
            raise ModelError(
                f"{CARD} is not valid: inputs.{name}.columns: {card.preprocessing} names the "
                "columns; leave columns and types out"
            )
        return required_columns(Features(inputs={name: features.inputs[name]}))

    inputs = tuple(model_input(name, each, columns(name)) for name, each in card.inputs.items())
    check_varying(inputs)
    return inputs


def _check_pinned(
    path: str, format: str, backend: Backend, expected: str | None, found: str
) -> None:
    if expected is None and format not in backend.unpinned:
        allow = ", and allow_code to true" if backend.files_run_code else ""
        raise ModelError(
            f"model {path} is of format {format} and needs its sha256; if you trust the file "
            f"whose SHA-256 is {found}, set sha256 to it{allow}, or convert the weights to "
            "safetensors"
        )
    compare(path, expected or found, found)


def _code_files(architecture: str, base: str) -> dict[str, str]:
    """Return the hashes of an architecture's file and of those that it imports."""
    return hashes(imported_files(base, architecture.partition(":")[0]))
