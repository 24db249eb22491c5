"""Finds the backend of a model's format: built in, or an entry point of another package."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from batchscore.errors import ModelError, naming_package
from batchscore.messages.wording import nearest, reason, type_of
from batchscore.models.backends.built_in import FORMATS
from batchscore.models.backends.protocol import Backend

GROUP = "batchscore.models"


@cache
def backend_of(format: str) -> Backend:
    """Returns the backend for models of a format, such as `safetensors`.

    Raises:
        ModelError: No installed backend has the format, or the backend cannot be imported.
    """
    if format in FORMATS:
        return _loaded(EntryPoint(format, FORMATS[format].entry, GROUP))
    found = next(iter(entry_points(group=GROUP, name=format)), None)
    if found is None:
        raise ModelError(
            f"model format {format!r}: no installed backend reads it; "
            f"{nearest(format, list(known_formats()))}. A package adds a format by an entry point "
            f"of the group {GROUP!r}, named as the format: install the package that has it, or "
            "correct the format"
        )
    return _loaded(found)


def known_formats() -> tuple[str, ...]:
    """Returns the formats of all installed backends, sorted."""
    return tuple(sorted({*FORMATS, *entry_points(group=GROUP).names}))


def naming(format: str) -> AbstractContextManager[None]:
    """Names the format in a ModelError, if its backend raises what nobody else expects."""
    return naming_package(
        ModelError,
        f"model format {format!r}: its backend",
        "compare the model's files with its card, or repair or upgrade the package that brings the "
        "backend",
    )


def _loaded(found: EntryPoint) -> Backend:
    try:
        backend = found.load()
    except Exception as error:  # another package's code raises what it likes
        raise ModelError(
            f"model format {found.name!r}: its backend {found.value} cannot be imported "
            f"({reason(error)}); repair or upgrade the package that brings it"
        ) from error
    if not isinstance(backend, Backend):
        raise ModelError(
            f"model format {found.name!r}: its entry point {found.value} is "
            f"{type_of(backend)}; expected an instance of {Backend.__module__}.Backend"
        )
    return backend
