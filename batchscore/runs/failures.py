"""Errors of workers, kept as records: across processes an exception arrives as mere text."""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from batchscore import __version__, errors
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    RetryError,
    ShardError,
    StepError,
    StoppedError,
    UnseenError,
)
from batchscore.messages.addresses import redacted_text
from batchscore.messages.wording import one_line, remedy_of
from batchscore.runs import layout
from batchscore.storage.retries import is_passing
from batchscore.storage.store import Store

_OS_ERROR = re.compile(r"\w+Error: \[Errno (\d+)\] (.+?)(?: \[while running .*)?$")
_OWN_ERROR = re.compile(
    r"^batchscore\.errors\.(\w+Error): (.+?)(?: \[while running .*)?$", re.MULTILINE
)
_UNSEEN = re.compile(
    r"^batchscore\.errors\.UnseenError: (.+?)(?: \[while running .*)?$", re.MULTILINE
)
_ABSENT = re.compile(
    r"^ModuleNotFoundError: No module named '(batchscore(?:\.\w+)*)'", re.MULTILINE
)
_BASE = r"beam:version:sdk_base:apache/beam_python([\d.]+)_sdk:(\S+)\."
_OTHER_BEAM = re.compile(f"Submission environment: {_BASE} Runtime environment: {_BASE}")
_ALIKE = "nothing was published: install the launcher's versions where the workers run"
_unwritten: dict[str, dict[str, Any]] = {}
_CAUSE = "Caused by: "
_NO_POOL = re.compile(r"UNAVAILABLE(?:.|\n)*ExternalEnvironmentFactory\.createEnvironment")
_ENDED = re.compile(r"^Pipeline \S+ failed in state (\w+): (.*)", re.DOTALL)
_LASTING = (None, errno.ENOENT, errno.EACCES, errno.EPERM)
_listeners = set[Callable[[str], None]]()


def tell_of_failures(listener: Callable[[str], None]) -> None:
    """Has a function called with the message of each error that is written down."""
    _listeners.add(listener)


@contextmanager
def recorded(store: Store, run: str) -> Iterator[None]:
    """Writes down an error that leaves the block, once, and lets it go on.

    What cannot be written, as on a full disk, is kept in this process.
    """
    try:
        yield
    except Exception as error:
        if not getattr(error, "recorded", False):
            described = describe(error)
            for listener in _listeners:
                listener(described["message"])
            facts = {**described, "host": platform.node(), "pid": os.getpid()}
            try:
                written = {**facts, "final": is_final(error)}
                store.write_json(_path(run), written, flush=False)
            except Exception:
                _unwritten[run] = facts
            with suppress(AttributeError):
                error.recorded = True  # type: ignore[attr-defined]
        raise


def describe(error: BaseException) -> dict[str, str]:
    """Returns an error's class, message and trace; a foreign class is named in the message."""
    message = f"unexpected {type(error).__name__}: {error}"
    if ended := _ENDED.search(str(error)):
        message = f"the engine ended the job as {ended[1]}: {shortened(ended[2])}"
    elif isinstance(error, BatchscoreError):
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


def is_final(error: BaseException) -> bool:
    """Tells whether the same work would fail again: an error of ours, whatever the machine does.

    An error that comes from a store, a disk or too little memory may pass, on another machine too.
    """
    if not isinstance(error, BatchscoreError) or isinstance(error, (RetryError, StoppedError)):
        return False
    return not any(map(_may_pass, _causes(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, RetryError)) or is_passing(error):
        return True
    # Arrow raises an OSError without a number for bytes that are not Parquet.
    return isinstance(error, OSError) and error.errno not in _LASTING


def find_own_error(text: str) -> BatchscoreError | None:
    """Returns what a worker could not write down, from the traceback in an engine's words; or None.

    That is an error of ours, or one of a worker whose Python, Beam or batchscore is not the
    launcher's.
    """
    if misfit := find_misfit(text):
        return misfit
    own = _OWN_ERROR.findall(text)
    return _revive({"type": own[-1][0], "message": own[-1][1], "trace": ""})[0] if own else None


def find_misfit(text: str) -> FailedError | None:
    """Returns the error of a worker that can do no work of the run, whatever is tried; or None.

    Its Python, Beam or batchscore is not the launcher's, or it does not see the output.
    """
    if found := _UNSEEN.search(text):
        return UnseenError(found[1])
    if found := _OTHER_BEAM.search(text):
        ours, theirs = (f"Python {found[i]} and apache-beam {found[i + 1]}" for i in (1, 3))
        return FailedError(f"a worker has {theirs}, and the launcher {ours}; {_ALIKE}")
    if found := _ABSENT.search(text):
        return FailedError(
            f"a worker has no module {found[1]!r}: no batchscore is installed there, or another "
            f"than the launcher's {__version__}; {_ALIKE}"
        )
    return None


def shortened(text: str) -> str:
    """Returns the cause that a trace of Java ends with, and what it means if that is known."""
    causes = [line.removeprefix(_CAUSE) for line in text.splitlines() if line.startswith(_CAUSE)]
    said = one_line(causes[-1] if causes else text.partition("\n")[0], 300)
    if _NO_POOL.search(text):
        return (
            f"a worker of the cluster reaches no pool of Python workers ({said}); start one where "
            "runtime.flink.pool says, next to each TaskManager, or correct the address"
        )
    return said


def find_os_error(text: str) -> OSError | None:
    """Returns the system's error that a worker's traceback ends with, or None."""
    lines = text.strip().splitlines()
    found = _OS_ERROR.search(lines[-1]) if lines else None
    return OSError(int(found[1]), found[2]) if found else None


def read_failure(
    store: Store, run: str, final: bool = False, elsewhere: bool = False
) -> tuple[BatchscoreError, str] | None:
    """Returns the error that workers of a run wrote down, with its trace; the first by name.

    One that this process could not write down comes after those. That a run was stopped is
    reported only where nothing else went wrong.

    Args:
        final: Only errors after which work that is done again fails again.
        elsewhere: The workers are not the launcher's own: the message names the one that failed.
    """
    names = store.names(layout.failures(run))
    paths = [f"{layout.failures(run)}/{name}" for name in names]
    found = [each for path in paths for each in _read(store, path, final, elsewhere)]
    if run in _unwritten and not final:
        found.append(_revive(_unwritten[run]))
    found.sort(key=lambda pair: isinstance(pair[0], StoppedError))
    return found[0] if found else None


def _read(
    store: Store, path: str, final: bool, elsewhere: bool
) -> Iterator[tuple[BatchscoreError, str]]:
    """Yields the error that a worker wrote down; nothing where that is damaged."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        facts = store.read_json(path)
        if facts.get("final") or not final:
            yield _revive({**facts, "message": _located(facts)} if elsewhere else facts)


def _located(facts: Mapping[str, Any]) -> str:
    """Returns an error's message with the worker that met it, unless it names that already."""
    message, host = str(facts["message"]), one_line(facts.get("host", ""))
    if not host or f"worker on {host}" in message:
        return message
    return f"{message} (on worker {host}, process {one_line(facts.get('pid'))})"


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
