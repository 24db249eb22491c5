"""Finds the backend of a model's format: built in, or an entry point of another package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from batchscore.errors import BatchscoreError, ModelError
from batchscore.messages.wording import nearest, reason, type_of
from batchscore.models.backends.protocol import Backend

GROUP = "batchscore.models"
_TORCH = "batchscore.models.backends.torch.backend:BACKEND"
_BUILT_IN = {"pt": _TORCH, "safetensors": _TORCH}


@cache
def backend_of(format: str) -> Backend:
    """Returns the backend for models of a format, such as `safetensors`.

    Raises:
        ModelError: No installed backend has the format, or the backend cannot be imported.
    """
    if format in _BUILT_IN:
        return _loaded(EntryPoint(format, _BUILT_IN[format], GROUP))
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
    return tuple(sorted({*_BUILT_IN, *entry_points(group=GROUP).names}))


@contextmanager
def naming(format: str) -> Iterator[None]:
    """Names the format, if its backend raises what nobody else expects.

    Raises:
        ModelError: In place of that.
    """
    try:
        yield
    except (BatchscoreError, OSError, MemoryError):
        raise
    except Exception as error:  # another package's code raises what it likes
        raise ModelError(
            f"model format {format!r}: its backend failed with {type(error).__name__}: "
            f"{reason(error)}; compare the model's files with its card, or repair or upgrade the "
            "package that brings the backend"
        ) from error


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
