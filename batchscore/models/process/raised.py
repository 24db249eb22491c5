"""Errors on their way out of a model's process: as JSON, and as exceptions again."""

from __future__ import annotations

import traceback
from functools import cache
from typing import Any

from batchscore import errors
from batchscore.errors import BatchscoreError

_OURS = {
    each.__name__: each
    for each in (
        errors.ModelError,
        errors.FunctionError,
        errors.DeviceError,
        errors.InvalidError,
        errors.FailedError,
        errors.StepError,
    )
}
_PLAIN = {each.__name__: each for each in (MemoryError, OSError)}
_TEXT_CHARACTERS = 1 << 16
_TRACE_CHARACTERS = 8_000


def failure_to_json(error: BaseException) -> dict[str, Any]:
    """Returns an error's class and words, with those of its cause."""
    found: dict[str, Any] = {"class": _class_of(error), "text": _text_of(error)}
    if isinstance(error, OSError):
        found["errno"], found["filename"] = error.errno, _name(error.filename)
        found["text"] = error.strerror or found["text"]
    if error.__cause__ is not None:
        found["cause"] = failure_to_json(error.__cause__)
    else:
        found["trace"] = "".join(traceback.format_tb(error.__traceback__))[-_TRACE_CHARACTERS:]
    return found


def failure_from_json(fields: dict[str, Any]) -> Exception:
    """Returns an error as it was raised in the other process; one that we do not know by its name.

    A row's reason has the class and the words of what a network raised, so both stay the same.
    """
    name, text = str(fields.get("class")), str(fields.get("text"))
    error: Exception
    if fields.get("errno") is not None:
        error = OSError(fields["errno"], text, fields.get("filename"))
    else:
        error = (_OURS.get(name) or _PLAIN.get(name) or foreign_class(name))(text)
    if isinstance(fields.get("cause"), dict):
        error.__cause__ = failure_from_json(fields["cause"])
    if "trace" in fields and hasattr(error, "add_note"):  # not in Python 3.10
        error.add_note(f"In the model's process:\n{fields['trace']}")
    return error


@cache
def foreign_class(name: str) -> type[Exception]:
    """Returns a class for errors of another process, the same for each name."""
    return type(name, (Exception,), {"__module__": __name__})


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_TEXT_CHARACTERS]
    except Exception:  # an error of somebody else's class may not be able to say what it is
        return ""


def _class_of(error: BaseException) -> str:
    known = (each.__name__ for each in type(error).__mro__ if each.__name__ in _OURS)
    if isinstance(error, BatchscoreError):
        return next(known, "FailedError")
    if isinstance(error, OSError):
        return "OSError"
    return type(error).__name__


def _name(filename: Any) -> str | None:
    return None if filename is None else str(filename)
