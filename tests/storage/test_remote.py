"""Test which errors of remote stores are waited out, and how those that stay are reported."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import fsspec
import pytest
from tenacity import wait_none

from batchscore.storage import remote, retries
from batchscore.storage.remote import is_object_store
from batchscore.storage.retries import is_passing, patiently

botocore = pytest.importorskip("botocore.exceptions")
aiohttp = pytest.importorskip("aiohttp")


def answered(status: int, code: str = "X") -> Exception:
    """The error that botocore raises for an answer."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = botocore.ClientError(response, "PutObject")
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    """An error as s3fs raises it, from another's."""
    error.__cause__ = cause
    return error


class HttpError(Exception):
    """An error as gcsfs raises it."""

    def __init__(self, code: int) -> None:
        self.code = code


PASSING = [
    ConnectionResetError(),
    TimeoutError(),
    asyncio.TimeoutError(),
    fsspec.exceptions.FSTimeoutError(),
    botocore.EndpointConnectionError(endpoint_url="x"),
    botocore.ReadTimeoutError(endpoint_url="x"),
    botocore.ConnectionClosedError(endpoint_url="x"),
    botocore.ResponseStreamingError(error="x"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError(),
    HttpError(503),
    *(answered(status) for status in (409, 429, 500, 502, 503, 504)),
    caused(OSError(16, "busy"), answered(503, "SlowDown")),
]
MISMATCH = botocore.FlexibleChecksumError(error_msg="x")
LASTING = [
    FileNotFoundError("x"),
    PermissionError("x"),
    FileExistsError("x"),
    caused(FileExistsError("x"), answered(409)),
    botocore.NoCredentialsError(),
    botocore.ParamValidationError(report="x"),
    HttpError(404),
    *(answered(status) for status in (400, 403, 412, 501)),
    caused(OSError(22, "bad"), answered(400)),
    OSError(28, "no space"),
    ValueError("x"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overload, lost connections and timeouts are tried five times, and end as an OSError."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise error

    with pytest.raises(OSError, match=r"s3://b/x: \w+: .*run again later") as caught:
        patiently("s3://b/x", fail)
    assert (len(tries), caught.value.__cause__) == (5, error)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "InvalidToken", "renew the credentials, or have them permitted to do this"),
        (404, "XAdminUserNotFound", "renew the credentials, or have them permitted to do this"),
        (403, "AccessDenied", "renew the credentials, or have them permitted to do this"),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_refusal_says_what_helps(status: int, code: str, remedy: str, wrapped: bool) -> None:
    """Whatever status the server gives it, and also where s3fs makes another error of it."""
    error = answered(status, code)

    def fail() -> None:
        raise caused(OSError(22, "bad"), error) if wrapped else error

    with pytest.raises(OSError, match=rf"s3://b/x: .*{code}.*; {remedy}$"):
        patiently("s3://b/x", fail)


def test_a_last_step_tries_for_minutes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the time that it takes, not by the number of tries; one line says that it waits."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    monkeypatch.setattr(retries, "_PERSISTENT_SECONDS", 0.3)
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise ConnectionError("no route to s3://key:secret@b")

    for _ in persistent(2):
        with pytest.raises(OSError, match="run again later"):
            patiently("s3://b/x", fail)
    assert len(tries) > 20
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    tries.clear()
    with pytest.raises(OSError, match="run again later"):
        patiently("s3://b/x", fail)
    assert len(tries) == 5


def persistent(times: int) -> Iterator[None]:
    """Yields within blocks of `persistently`, each in another."""
    with ExitStack() as blocks:
        for _ in range(times):
            blocks.enter_context(retries.persistently())
            yield


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_stays_is_reported_at_once(error: Exception) -> None:
    """Refusals and mistakes are raised at the first try, as the Python error that they are."""
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise error

    with pytest.raises(OSError, match=r"^s3://b/x: ") as caught:
        patiently("s3://b/x", fail)
    assert len(tries) == 1
    kept = isinstance(error, FileNotFoundError | PermissionError | FileExistsError)
    assert type(caught.value) is (type(error) if kept else OSError)


def test_tries_are_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store has about 20 seconds to recover; half a second of chance parts the workers."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)

    def fail() -> None:
        raise TimeoutError

    with pytest.raises(OSError, match="run again later"):
        patiently("s3://b/x", fail)
    least = (0.5, 1.5, 4.5, 13.5)
    assert [each <= wait <= each + 0.5 for each, wait in zip(least, waited, strict=True)] == [
        True
    ] * 4


def test_it_ends_with_the_first_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the store answers, its answer is returned."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    left: list[Any] = [TimeoutError(), answered(503)]

    def answer() -> str:
        if left:
            raise left.pop()
        return "done"

    assert patiently("s3://b/x", answer) == "done"


def test_bytes_that_are_damaged_are_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was damaged on its way is whole the second time; what is damaged in the store is not."""
    monkeypatch.setattr(retries, "_WAIT", wait_none())
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise MISMATCH

    with pytest.raises(OSError, match=r"FlexibleChecksumError"):
        patiently("s3://b/x", fail)
    assert len(tries) == 2


def test_an_interrupt_is_not_an_error() -> None:
    """Ctrl-C leaves at once as itself."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patiently("s3://b/x", stop)
    assert not is_passing(KeyboardInterrupt())


def test_object_stores_are_reported_by_their_addresses() -> None:
    """S3, Google's and Azure's stores have no folders; disks, memory and chains are others."""
    assert all(map(is_object_store, ["s3://b/x", "s3a://b", "gs://b", "gcs://b/x", "abfs://c/x"]))
    others = ["/srv/s3", "file:///x", "memory://x", "simplecache::s3://b/x", "hdfs://x"]
    assert not any(map(is_object_store, others))


def test_a_store_without_its_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library of a store is missing, the error says what to install."""
    monkeypatch.delitem(sys.modules, "batchscore.storage.gcs", raising=False)
    monkeypatch.delattr("batchscore.storage.gcs", raising=False)
    for name in ("gcsfs", "gcsfs.core", "google_crc32c"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OSError, match=r"gs://b/x: .*batchscore\[gcs\]"):
        remote.connect("gs://b/x")
