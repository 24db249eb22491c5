"""Says why code cannot be imported, and what a module defines, in one line each."""

from __future__ import annotations

import traceback
import types
from pathlib import Path

from batchscore.errors import FunctionError
from batchscore.messages.wording import error_text
from batchscore.models.importing import plain

_NAMES_SHOWN = 20


def attribute(found: types.ModuleType, module: str, name: str) -> object:
    """Returns what a module calls `name`.

    Args:
        module: The module's name in messages.

    Raises:
        FunctionError: It defines no such name; the message lists those that it does define.
    """
    if not hasattr(found, name):
        public = [key for key in vars(found) if not key.startswith("_")]
        listed = ", ".join(sorted(public)[:_NAMES_SHOWN])
        raise FunctionError(
            f"{module} defines no {name!r}; define it or name one of: {listed or 'it is empty'}"
        )
    return getattr(found, name)


def import_failure(what: str, folder: Path | None, error: BaseException, install: str) -> str:
    """Returns where in the user's own code an import failed, and what to do.

    Args:
        what: The file or module that was imported.
        folder: Where the user's own code lies, if it is a folder of files.
        install: The remedy for a module that is missing.
    """
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
        return f"{what} is not valid Python: {error.msg} ({place}); correct it"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder is not None and Path(frame.filename).is_relative_to(folder)
    ]
    place = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    remedy = install if isinstance(error, ImportError) else "correct it"
    text = plain(error_text(error))
    return f"{what} cannot be imported{place}: {type(error).__name__}: {text}; {remedy}"
