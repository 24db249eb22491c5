"""Troubles of a store: waited out where they pass, raised as Python's own errors."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)
from tenacity.stop import stop_base

from batchscore.messages.addresses import redacted_text
from batchscore.messages.wording import one_line

Result = TypeVar("Result")

_log = logging.getLogger("batchscore.store")
_TRIES = 5
_TRY_SECONDS = 60.0
_PERSISTENT_SECONDS = 300.0
# About 0.5, 1.5, 4.5 and 13.5 s; the jitter keeps workers from coming back all at once.
_WAIT = wait_exponential(multiplier=0.5, exp_base=3, max=13.5) + wait_random(0, 0.5)
# An entry for each block of `persistently` under way, in whatever thread.
_persistent: list[None] = []
# Free until one of the threads has said that a store is waited for.
_untold = threading.Lock()
_LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
_PASSING = (ConnectionError, TimeoutError, asyncio.TimeoutError)
# Bytes that are not those of their checksum: on the way or where they are kept, which a second try
# tells apart.
_MISMATCHES = frozenset({"FlexibleChecksumError", "ChecksumError"})
_MISMATCH_TRIES = 2
# By name, since not all of botocore, aiohttp, requests, google.auth and azure are installed.
_PASSING_NAMES = frozenset(
    {
        "ConnectionError",
        "HTTPClientError",
        "ResponseParserError",
        "IncompleteReadError",
        "IncompleteRead",
        "ClientConnectionError",
        "ClientPayloadError",
        "ChunkedEncodingError",
        "TransportError",
        "ServiceRequestError",
        *_MISMATCHES,
    }
)
_NO_LOGIN = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOError",
    }
)
_REFUSALS = frozenset({401, 403})
# What S3 answers with 400, and servers like it with other numbers, where credentials are wrong.
_WRONG_LOGINS = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "XAdminUserNotFound",
    }
)
_SKEWED = "RequestTimeTooSkewed"
_RENEW = "renew the credentials, or have them permitted to do this"
_LATER = "the store did not recover: run again later"
_CLOCK = "set this machine's clock"
REMEDIES = (_RENEW, _LATER, _CLOCK)
"""What to do, which an error of a store may say already."""
# Timeout, a conditional put that met another one, too early, too many.
_PASSING_ANSWERS = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501}


def patiently(url: str, action: Callable[[], Result]) -> Result:
    """Returns what `action` returns, which must be repeatable.

    Trouble that passes by itself (an overloaded store, a lost connection, a timeout) is waited
    out: 5 tries within about a minute, or five minutes of tries within a block of `persistently`.
    Bytes that differ from their checksum are asked for twice.

    Raises:
        OSError: It did not pass, or is of another kind; names `url`, the class and the cause.
    """
    with naming_store_errors(url):
        return Retrying(**_policy(_TRIES))(action)


@contextmanager
def persistently() -> Iterator[None]:
    """Has the whole process wait longer for stores: all is lost that came before, if one fails."""
    _persistent.append(None)
    try:
        yield
    finally:
        _persistent.pop()
        if not _persistent and _untold.locked():
            _untold.release()


async def patiently_awaited(action: Callable[[], Awaitable[Result]], once: bool = False) -> Result:
    """Returns what `action` comes to, as `patiently` does; raises its own error if it fails."""
    return await AsyncRetrying(**_policy(1 if once else _TRIES))(action)


class _StopIfDamaged(stop_base):
    def __call__(self, retry_state: RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return retry_state.attempt_number >= _MISMATCH_TRIES and _is_any(error, _MISMATCHES)


def _is_any(error: BaseException | None, names: frozenset[str]) -> bool:
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _policy(tries: int) -> dict[str, Any]:
    lasts = tries > 1 and bool(_persistent)
    few = stop_after_attempt(tries) | stop_after_delay(_TRY_SECONDS)
    return {
        "retry": retry_if_exception(is_passing),
        "stop": (stop_after_delay(_PERSISTENT_SECONDS) if lasts else few) | _StopIfDamaged(),
        "wait": _WAIT,
        "reraise": True,
        **({"before_sleep": _report} if lasts else {}),
    }


def _report(state: RetryCallState) -> None:
    """Says once, after as many tries as elsewhere, that a store is waited for."""
    if (
        state.attempt_number == _TRIES
        and state.outcome is not None
        and _untold.acquire(blocking=False)
    ):
        _log.warning(
            "a store gives no good answer (%s); each request is tried for %.0f minutes",
            redacted_text(one_line(state.outcome.exception(), 200)),
            _PERSISTENT_SECONDS / 60,
        )


@contextmanager
def naming_store_errors(url: str) -> Iterator[None]:
    """Raises what leaves the block as an OSError that names `url`, the class and the cause."""
    try:
        yield
    except Exception as error:
        kind = next((kind for kind in _LASTING if isinstance(error, kind)), OSError)
        cause = error.__cause__ or error
        said = f"{type(cause).__name__}: {one_line(cause, 200)}"
        remedy = _remedy(error)
        text = redacted_text(f"{url}: {said}{f'; {remedy}' if remedy else ''}")
        raise kind(text) from error


def _remedy(error: BaseException) -> str:
    if is_passing(error):
        return _LATER
    if (code := _code(error)) == _SKEWED:
        return _CLOCK
    causes = (error, error.__cause__)
    refused = any(isinstance(each, PermissionError) or _is_any(each, _NO_LOGIN) for each in causes)
    return _RENEW if refused or code in _WRONG_LOGINS or answer(error) in _REFUSALS else ""


def is_passing(error: BaseException) -> bool:
    """Tells whether an error of a store may be gone when the same is tried again."""
    if isinstance(error, _LASTING):
        return False
    status = answer(error)
    if isinstance(error, _PASSING) or status in _PASSING_ANSWERS:
        return True
    return _is_any(error, _PASSING_NAMES)


def _code(error: BaseException | None) -> str:
    """Returns by what name S3 calls an error, or what caused it; empty if it does not."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def answer(error: BaseException | None) -> int | None:
    """Returns the HTTP status that an error, or what caused it, was answered with."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        for name in ("status", "status_code", "code"):
            if isinstance(status := getattr(error, name, None), int):
                return status
        error = error.__cause__
    return None
