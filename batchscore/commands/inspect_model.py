"""What `batchscore model inspect` finds of a model file or folder; it runs none of its code."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np

from batchscore.columnar.texts import TEXT
from batchscore.commands.recognize import recognize, with_facts
from batchscore.errors import ModelError
from batchscore.messages.addresses import holds_secret, redacted_address
from batchscore.messages.wording import reason
from batchscore.models.backends.facts import Facts
from batchscore.models.backends.protocol import Backend
from batchscore.models.backends.registry import backend_of, naming
from batchscore.models.card import ModelCard
from batchscore.models.file_kinds import describe_file
from batchscore.models.folder import (
    completed,
    read_card,
    read_model_folder,
)
from batchscore.models.foreign import misnamed
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, localize
from batchscore.models.model_files import open_folder
from batchscore.storage.store import Store, is_local
from batchscore.system.packages import version


@dataclass(frozen=True)
class InputColumn:
    """A column that feeds a model.

    Args:
        name: Name of the column.
        input: The input that it is a part of.
        kind: What becomes of it, such as `number` or `category`.
        categories: The values that have a code, in the order of these; None for other kinds, and
            where nobody lists them.
    """

    name: str
    input: str
    kind: str
    categories: tuple[str, ...] | tuple[int, ...] | None = None


@dataclass(frozen=True)
class ModelFound:
    """What a model says of itself.

    Args:
        address: As the user gave it.
        is_folder: Whether it is a model folder.
        what: What its weights file is, in words; None if its content does not tell.
        model: The model; of a file that lacks something, as far as it is known.
        facts: What its files say.
        columns: The columns that feed it; empty where only the job can tell.
        bytes: Size of each file.
        installed: Version of each package that computes it; None if it is not installed.
        card: What a folder's `model.yaml` says.
        missing: What is missing to score it: what to install, and what the job has to say.
        job: The keys of the job file's section `model`.
    """

    address: str
    is_folder: bool
    what: str | None
    model: Model
    facts: Facts
    columns: tuple[InputColumn, ...]
    bytes: Mapping[str, int]
    installed: Mapping[str, str | None]
    card: ModelCard | None
    missing: tuple[str, ...]
    job: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON-able values."""
        model, facts = self.model, self.facts
        return {
            "exit_code": 0,
            "address": redacted_address(self.address),
            "kind": "folder" if self.is_folder else "file",
            "what": self.what,
            "name": model.name,
            "version": model.version,
            "format": model.format,
            "weights": model.weights,
            "files": [
                {"name": name, "bytes": self.bytes.get(name), "sha256": sha256}
                for name, sha256 in model.sha256.items()
            ],
            "counts": dict(facts.counts),
            "said": dict(facts.said),
            "runs_code": facts.runs_code,
            "architecture": model.architecture or None,
            "versions": {"file": dict(facts.versions), "installed": dict(self.installed)},
            "inputs": [_input_json(each) for each in model.inputs],
            "columns": [_column_json(each) for each in self.columns],
            "outputs": [
                {"name": each.name, "type": each.dtype, "shape": list(each.shape)}
                for each in model.outputs
            ],
            "golden_rows": self.card is not None and self.card.golden is not None,
            "reference": self.card is not None and self.card.profile is not None,
            "missing": list(self.missing),
            "job": {"model": dict(self.job)},
        }


def _input_json(each: ModelInput) -> dict[str, Any]:
    return {
        "name": each.name,
        "type": each.dtype,
        "shape": [*([None] if each.varying else []), *each.shape],
        "columns": list(each.columns),
    }


def _column_json(each: InputColumn) -> dict[str, Any]:
    return {
        "name": each.name,
        "input": each.input,
        "kind": each.kind,
        "categories": None if each.categories is None else [*each.categories],
    }


def inspect_model(address: str) -> ModelFound:
    """Looks at a model file or folder, imports no framework, and runs no code of it.

    Args:
        address: A path, or any fsspec address.

    Raises:
        ModelError: It is not there, is no model that jobs score with, or is damaged. The message
            says what it is, and what to do.
    """
    if holds_secret(address):
        raise ModelError(
            f"{redacted_address(address)}: may hold a credential; give it in the environment, or "
            "in fsspec's own configuration files"
        )
    found = _inspect_folder(address) if _is_folder(address) else _inspect_file(address)
    return replace(found, missing=(*found.missing, *_older(found)))


def _is_folder(address: str) -> bool:
    try:
        with Store(address).open(""):
            return False
    except IsADirectoryError:
        return True
    except FileNotFoundError as error:
        raise ModelError(f"{address}: no such file or folder; correct the path") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{address}: cannot be read ({reason(error)}); correct the address"
        ) from error


def _inspect_folder(address: str) -> ModelFound:
    store = open_folder(address)
    card = read_card(store)
    model = read_model_folder(address)
    backend = backend_of(model.format)
    with naming(model.format):
        facts = backend.examine(model)
    sizes = {name: found.bytes for name, found in store.find(model.sha256).items()}
    return ModelFound(
        address=address,
        is_folder=True,
        what=describe_file(localize(model) / model.weights),
        model=with_facts(model, facts),
        facts=facts,
        columns=_columns(model),
        bytes=sizes,
        installed=_installed(backend),
        card=card,
        missing=(*_to_install(backend), *(_LEAVE if backend.files_run_code else ())),
        job={"path": _absolute(address)},
    )


_LEAVE = ("model.allow_code: true, if you trust the file as you trust a program",)


def _inspect_file(address: str) -> ModelFound:
    model, what, size, is_named = recognize(address)
    form, backend = model.format, backend_of(model.format)
    try:
        with naming(form):
            facts = backend.examine(model)
    except ModelError as error:
        raise misnamed(model, error) from error
    job: dict[str, Any] = {"path": _absolute(address)}
    if not is_named:
        job["format"] = form
    job["sha256"] = model.sha256[model.weights]
    model, lacks, more = _completed(model, facts, backend)
    return ModelFound(
        address=address,
        is_folder=False,
        what=what,
        model=with_facts(model, facts),
        facts=facts,
        columns=_columns(model),
        bytes={model.weights: size},
        installed=_installed(backend),
        card=None,
        missing=(*_to_install(backend), *lacks, *(_LEAVE if backend.files_run_code else ())),
        job={**job, **more},
    )


def _completed(
    model: Model, facts: Facts, backend: Backend
) -> tuple[Model, tuple[str, ...], dict[str, Any]]:
    """Returns a file with what it names, what is missing of it, and the job's keys for that."""
    if backend.needs_architecture:
        return (
            model,
            (
                "model.architecture: the code that builds the network, as file.py:Name next to "
                "the job file",
                "model.inputs: the columns of each argument of forward, by its name",
            ),
            {"architecture": "net.py:Net", "inputs": {"x": ["COLUMN", "COLUMN"]}},
        )
    try:
        return completed(model, f"model {model.weights}"), (), {}
    except ModelError as error:
        text = str(error).removeprefix(f"model {model.weights}: ")
        unnamed = "does not name its" in text
        inputs = {
            name: ["COLUMN"] * min(int(np.prod(shape)), 3) for name, shape in facts.inputs.items()
        }
        return model, (text,), {"inputs": inputs} if unnamed else {}


def _columns(model: Model) -> tuple[InputColumn, ...]:
    if model.features is None:
        return tuple(
            InputColumn(column, each.name, _stacked_kind(each))
            for each in model.inputs
            for column in each.columns
        )
    return tuple(
        InputColumn(each.column, name, _kind(each), getattr(each, "vocabulary", None))
        for name, members in model.features.inputs.items()
        for each in members
    )


def _stacked_kind(given: ModelInput) -> str:
    """Returns what a column holds that becomes an input, or a part of one, as it is."""
    if given.varying:
        return "list of numbers"
    width = math.prod(given.shape)
    if len(given.columns) > 1 or width == 1:
        return "text" if given.dtype == TEXT else "number"
    return f"list of {width:,} numbers"


def _kind(feature: Any) -> str:
    kinds = {"plain": "number", "coded": "category", "categorical": "category"}
    if feature.kind == "calendar":
        return f"{feature.part} of a date"
    if feature.kind == "numeric":
        return "number, standardised"
    return kinds.get(feature.kind, str(feature.kind))


def _absolute(address: str) -> str:
    return os.path.abspath(address) if is_local(address) else address


def _installed(backend: Backend) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in backend.packages:
        found[package] = None
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _to_install(backend: Backend) -> tuple[str, ...]:
    try:
        backend.require()
    except ModelError as error:
        return (str(error),)
    return ()


def _older(found: ModelFound) -> Sequence[str]:
    """Returns what says that an installed package is older than the one that wrote the file."""
    pairs = ((name, found.facts.versions.get(name), here) for name, here in found.installed.items())
    return [
        f"{name} {written} wrote the model, and {here} is installed, which is older and may be "
        f"refused; install a newer {name}"
        for name, written, here in pairs
        if written and here and _numbers(here, written) < _numbers(written, here)
    ]


def _numbers(text: str, other: str) -> tuple[int, ...]:
    """Returns as many numbers of a version as both have, at most two: a patch changes no score."""
    parts = [each for each in text.split(".") if each.isdigit()]
    length = min(2, len(parts), len(other.split(".")))
    return tuple(int(each) for each in parts[:length])
