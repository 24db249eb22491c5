"""Errors of workers, kept as records: across processes an exception arrives as mere text."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from batchscore import errors
from batchscore.errors import BatchscoreError, FailedError, ShardError, StepError, StoppedError
from batchscore.runs import layout
from batchscore.storage import Store


@contextmanager
def recorded(store: Store, run: str) -> Iterator[None]:
    """Writes down an error that leaves the block, once, and lets it go on."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "recorded", False):
            with suppress(Exception):
                store.write_json(_path(run), describe(error))
                error.recorded = True  # type: ignore[attr-defined]
        raise


def describe(error: BaseException) -> dict[str, str]:
    """Returns an error's class, message and trace; a foreign class is named in the message."""
    message = f"unexpected {type(error).__name__}: {error}"
    if isinstance(error, BatchscoreError):
        message = str(error)
    elif isinstance(error, OSError):
        message = (
            f"a file could not be read or written ({error}); nothing was published: "
            "make room, or see to the permissions, and run again"
        )
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"type": type(error).__name__, "message": message, "trace": trace}


def read_failure(store: Store, run: str) -> tuple[BatchscoreError, str] | None:
    """Returns the error that workers of a run wrote down, with its trace; the first by name.

    That a run was stopped is told only where nothing else went wrong.
    """
    names = store.names(layout.failures(run))
    found = [_revive(store.read_json(f"{layout.failures(run)}/{name}")) for name in names]
    found.sort(key=lambda pair: isinstance(pair[0], StoppedError))
    return found[0] if found else None


def _revive(facts: dict[str, Any]) -> tuple[BatchscoreError, str]:
    kind = getattr(errors, str(facts["type"]), FailedError)
    if issubclass(kind, ShardError):  # which is made of more than its message
        kind = StepError
    error: BatchscoreError = kind(facts["message"])
    if error.exit_code == 2:
        # Work had begun: whatever was wrong is a failure of the run now.
        error = FailedError(facts["message"])
    return error, str(facts["trace"])


def _path(run: str) -> str:
    return f"{layout.failures(run)}/{secrets.token_hex(4)}.json"
