"""How S3 is spoken to: no listings are kept, every request ends, puts may have a condition."""

from __future__ import annotations

import asyncio
from typing import Any

import fsspec
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ReadTimeoutError

from batchscore.storage.retries import answer

_SLOWEST = 256 * 1024
"""Bytes a second at which an upload may at least be expected to go."""
_ONE_REQUEST = 6 * 2**30
"""More than S3 takes at once, so that nothing is sent in parts, which know no condition."""
_MARK = "put"
_FAILED_CONDITION = 412


class BoundedSession(AIOHTTPSession):
    """A session whose uploads time out too; aiohttp waits for them, and for 100 Continue, forever.

    A request has the seconds that connecting and reading may take, and what its body needs at
    256 KiB a second.
    """

    def __init__(self, *args: Any, timeout: tuple[float, float], **options: Any) -> None:
        super().__init__(*args, timeout=timeout, **options)
        self._seconds = sum(timeout)

    async def send(self, request: Any) -> Any:
        """Returns the response, whose body is still to be read; ReadTimeoutError if none came."""
        names = ("Content-Length", "X-Amz-Decoded-Content-Length")
        size = max(int(request.headers.get(name) or 0) for name in names)
        try:
            return await asyncio.wait_for(super().send(request), self._seconds + size / _SLOWEST)
        except asyncio.TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error


def options(once: bool) -> dict[str, Any]:
    """Returns the options of s3fs that are added to those of fsspec's own configuration.

    Args:
        once: Whether each request is tried once, instead of 5 times.
    """
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    bounded = {**configured, "http_session_cls": BoundedSession}
    if once:
        bounded["retries"] = {"total_max_attempts": 1}
    return {"use_listings_cache": False, "config_kwargs": bounded}


def put_new(filesystem: Any, path: str, data: bytes, mark: str) -> bool:
    """Puts an object where there is none; False if there is one.

    `mark`, the caller's own, is kept with the object: when the answer to a put is lost, and the
    put repeated (aiohttp does so unasked), it tells the caller's object from another's.
    """
    try:
        filesystem.pipe_file(path, data, mode="create", Metadata={_MARK: mark})
    except FileExistsError:
        return _bears(filesystem, path, mark)
    return True


def put_matching(filesystem: Any, path: str, old: bytes, new: bytes, mark: str) -> bool:
    """Replaces an object that still holds `old`; else False. `mark` is as in `put_new`."""
    try:
        with filesystem.open(path, "rb") as file:
            held, tag = file.read(), file.details["ETag"]
        if held != old:
            return _bears(filesystem, path, mark)
        filesystem.pipe_file(path, new, chunksize=_ONE_REQUEST, IfMatch=tag, Metadata={_MARK: mark})
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return False
        if answer(error) == _FAILED_CONDITION:
            return _bears(filesystem, path, mark)
        raise
    return True


def _bears(filesystem: Any, path: str, mark: str) -> bool:
    try:
        return bool(filesystem.metadata(path).get(_MARK) == mark)
    except FileNotFoundError:
        return False
