"""A model file as what saves it takes it: the framework's own object, or the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.messages.wording import reason
from batchscore.models.backends.built_in import FORMATS, format_of
from batchscore.models.backends.facts import Facts
from batchscore.models.backends.file_saving import FILE_SAVER
from batchscore.models.backends.registry import backend_of, naming
from batchscore.models.backends.saving import Saver
from batchscore.models.file_kinds import describe_file, format_by_content
from batchscore.models.folder import bare_model, refused_model
from batchscore.models.foreign import misnamed
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput, localize
from batchscore.models.process.loading_trial import try_loading
from batchscore.storage.store import Store


def open_model_file(address: str) -> tuple[Saver, Any]:
    """Returns what saves a model file, and what it takes of it.

    A file whose loading can end a process is loaded in another one first.

    Raises:
        ModelError: It is missing, damaged, or no model file that describes itself.
    """
    model = _file(address)
    backend = backend_of(model.format)
    FILE_SAVER.require_savable(model)
    backend.prepare()
    saver = import_module(FORMATS[model.format].saver).SAVER
    assert isinstance(saver, Saver)
    if saver.takes_paths:
        return saver, str(localize(model) / model.weights)
    try:
        with naming(model.format):
            facts = backend.inspect(model)
    except ModelError as error:
        raise misnamed(model, error) from error
    if backend.is_fragile:
        try_loading(with_facts(model, facts))
    found = saver.opened(model)
    return (FILE_SAVER, model) if found is None else (saver, found)


def _file(address: str) -> Model:
    try:
        with Store(address).open(""):
            pass
    except IsADirectoryError as error:
        raise ModelError(
            f"model {address}: is a folder; expected a model file. A model folder needs no saving: "
            "its path is enough for a job"
        ) from error
    except FileNotFoundError as error:
        raise ModelError(f"model {address}: no such model file; correct the path") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {address}: cannot be read ({reason(error)}); correct the address"
        ) from error
    return recognize(address).model


class Recognized(NamedTuple):
    """A file of a format that is scored.

    Args:
        model: The file with its format, of which nothing else is known.
        what: What it is by its content; None if that does not tell.
        bytes: Its size.
        is_named: Whether its ending alone says the format.
    """

    model: Model
    what: str | None
    bytes: int
    is_named: bool


def recognize(address: str) -> Recognized:
    """Returns what a file is, by its content before its ending.

    Raises:
        ModelError: It is of no format that is scored.
    """
    model = bare_model(address, "")
    path = localize(model) / model.weights
    size, named = path.stat().st_size, format_of(address)
    what = describe_file(path) if size else None
    form = format_by_content(what) or (named if size and what in (None, "a JSON text") else None)
    if form is None or form not in FORMATS:
        raise refused_model(address)
    return Recognized(replace(model, format=form), what, size, named == form)


def with_facts(model: Model, facts: Facts) -> Model:
    """Returns a model with the inputs and outputs that its file has, where nobody declares any."""
    taken = tuple(
        ModelInput(each.name, each.dtype, _known(each.shape), each.columns) for each in facts.taken
    )
    inputs = taken or tuple(
        ModelInput(name, facts.input_type, shape, ()) for name, shape in facts.inputs.items()
    )
    inputs += tuple(ModelInput(c.name, TEXT, (), (c.name,)) for c in facts.columns if c.is_text)
    made = tuple(ModelOutput(each.name, each.dtype, _known(each.shape)) for each in facts.made)
    outputs = made or tuple(ModelOutput(o.name, o.dtype, o.shape) for o in facts.declared)
    return replace(model, inputs=model.inputs or inputs, outputs=model.outputs or outputs)


def _known(shape: Sequence[int | None] | None) -> tuple[int, ...]:
    """Returns a shape with 1 in place of each size that a file leaves open."""
    return tuple(1 if size is None else size for size in shape or ())
