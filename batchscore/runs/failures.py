"""Errors of workers, kept as records: across processes an exception arrives as mere text."""

from __future__ import annotations

import re
import secrets
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from batchscore import __version__, errors
from batchscore.errors import BatchscoreError, FailedError, ShardError, StepError, StoppedError
from batchscore.messages.addresses import redacted_text
from batchscore.messages.wording import remedy_of
from batchscore.runs import layout
from batchscore.storage.store import Store

_OS_ERROR = re.compile(r"\w+Error: \[Errno (\d+)\] (.+?)(?: \[while running .*)?$")
_OWN_ERROR = re.compile(
    r"^batchscore\.errors\.(\w+Error): (.+?)(?: \[while running .*)?$", re.MULTILINE
)
_ABSENT = re.compile(
    r"^ModuleNotFoundError: No module named '(batchscore(?:\.\w+)*)'", re.MULTILINE
)
_BASE = r"beam:version:sdk_base:apache/beam_python([\d.]+)_sdk:(\S+)\."
_OTHER_BEAM = re.compile(f"Submission environment: {_BASE} Runtime environment: {_BASE}")
_ALIKE = "nothing was published: install the launcher's versions where the workers run"
_unwritten: dict[str, dict[str, str]] = {}


@contextmanager
def recorded(store: Store, run: str) -> Iterator[None]:
    """Writes down an error that leaves the block, once, and lets it go on.

    What cannot be written, as on a full disk, is kept in this process.
    """
    try:
        yield
    except Exception as error:
        if not getattr(error, "recorded", False):
            facts = describe(error)
            try:
                store.write_json(_path(run), facts, flush=False)
            except Exception:
                _unwritten[run] = facts
            with suppress(AttributeError):
                error.recorded = True  # type: ignore[attr-defined]
        raise


def describe(error: BaseException) -> dict[str, str]:
    """Returns an error's class, message and trace; a foreign class is named in the message."""
    message = f"unexpected {type(error).__name__}: {error}"
    if isinstance(error, BatchscoreError):
        message = str(error)
    elif isinstance(error, OSError):
        remedy = remedy_of(error, "check the disk or store")
        message = (
            f"a file could not be read or written ({error}); {remedy} and run again; "
            "finished units are kept"
        )
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    shown = {"message": redacted_text(message), "trace": redacted_text(trace)}
    return {"type": type(error).__name__, **shown}


def find_own_error(text: str) -> BatchscoreError | None:
    """Returns what a worker could not write down, from the traceback in an engine's words; or None.

    That is an error of ours, or one of a worker whose Python, Beam or batchscore is not the
    launcher's.
    """
    if found := _OTHER_BEAM.search(text):
        ours, theirs = (f"Python {found[i]} and apache-beam {found[i + 1]}" for i in (1, 3))
        return FailedError(f"a worker has {theirs}, and the launcher {ours}; {_ALIKE}")
    if found := _ABSENT.search(text):
        return FailedError(
            f"a worker has no module {found[1]!r}: no batchscore is installed there, or another "
            f"than the launcher's {__version__}; {_ALIKE}"
        )
    own = _OWN_ERROR.findall(text)
    return _revive({"type": own[-1][0], "message": own[-1][1], "trace": ""})[0] if own else None


def find_os_error(text: str) -> OSError | None:
    """Returns the system's error that a worker's traceback ends with, or None."""
    lines = text.strip().splitlines()
    found = _OS_ERROR.search(lines[-1]) if lines else None
    return OSError(int(found[1]), found[2]) if found else None


def read_failure(store: Store, run: str) -> tuple[BatchscoreError, str] | None:
    """Returns the error that workers of a run wrote down, with its trace; the first by name.

    One that this process could not write down comes after those. That a run was stopped is
    reported only where nothing else went wrong.
    """
    names = store.names(layout.failures(run))
    found = [each for name in names for each in _read(store, f"{layout.failures(run)}/{name}")]
    if run in _unwritten:
        found.append(_revive(_unwritten[run]))
    found.sort(key=lambda pair: isinstance(pair[0], StoppedError))
    return found[0] if found else None


def _read(store: Store, path: str) -> Iterator[tuple[BatchscoreError, str]]:
    """Yields the error that a worker wrote down; nothing where that is damaged."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        yield _revive(store.read_json(path))


def _revive(facts: dict[str, Any]) -> tuple[BatchscoreError, str]:
    kind = getattr(errors, str(facts["type"]), FailedError)
    if issubclass(kind, ShardError):  # which is made of more than its message
        kind = StepError
    error: BatchscoreError = kind(facts["message"])
    if error.exit_code == 2:
        # Work had started: whatever was wrong is a failure of the run now.
        error = FailedError(facts["message"])
    return error, str(facts["trace"])


def _path(run: str) -> str:
    return f"{layout.failures(run)}/{secrets.token_hex(4)}.json"
