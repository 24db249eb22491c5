"""How S3 is spoken to: no listings are kept, every request ends, puts may have a condition."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import fsspec
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ReadTimeoutError

from batchscore.storage.moments import dated
from batchscore.storage.retries import answer

CONDITIONAL = True
_SLOWEST = 256 * 1024
"""Bytes a second at which an upload may at least be expected to go."""
_ONE_REQUEST = 6 * 2**30
"""More than S3 takes at once, so that nothing is sent in parts, which know no condition."""
_CONNECTIONS = 64
"""Of one client, which all threads share; botocore's own 10 would hold footers up."""
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


def connect(address: str, once: bool) -> tuple[Any, str]:
    """Returns the filesystem of an address and the path within it, as `Client` says."""
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    bounded = {"max_pool_connections": _CONNECTIONS, **configured}
    bounded["http_session_cls"] = BoundedSession
    if once:
        bounded["retries"] = {"total_max_attempts": 1}
    options = {"use_listings_cache": False, "config_kwargs": bounded}
    filesystem, path = fsspec.core.url_to_fs(address, **options)
    if once:
        filesystem.retries = 1
    return filesystem, str(path)


def tag(info: dict[str, Any]) -> str | None:
    """Returns the ETag of an object that was listed."""
    return info.get("ETag")


def read(filesystem: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Returns an object's bytes, or those between two places, in one request."""
    return bytes(filesystem.cat_file(path, start=start, end=end, max_concurrency=1))


def age(filesystem: Any, path: str) -> float | None:
    """Returns the seconds since an object was put, by the answer's own date."""
    bucket, key, _ = filesystem.split_path(path)
    found = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    now = dated(found["ResponseMetadata"]["HTTPHeaders"])
    return None if now is None else now - float(found["LastModified"].timestamp())


def put_new(filesystem: Any, path: str, data: bytes, mark: str) -> bool:
    """Puts an object where there is none; False if there is one.

    aiohttp repeats a put whose answer is lost unasked.
    """
    try:
        filesystem.pipe_file(path, data, mode="create", Metadata={_MARK: mark})
    except FileExistsError:
        return _bears(filesystem, path, mark)
    return True


def put_matching(filesystem: Any, path: str, old: bytes, new: bytes, mark: str) -> bool:
    """Replaces an object that still holds `old`; else False."""
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


def copy(filesystem: Any, source: str, target: str, tag: str | None) -> None:
    """Copies an object, of no other version than that of `tag`."""
    filesystem.cp_file(source, target, **({"CopySourceIfMatch": tag} if tag else {}))


def abort_uploads(filesystem: Any, folder: str) -> None:
    """Removes the parts of uploads that were not ended, which S3 keeps and bills for ever."""
    bucket, prefix, _ = filesystem.split_path(folder)
    with suppress(PermissionError, NotImplementedError):
        listed = filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        for upload in listed.get("Uploads", []):
            with suppress(FileNotFoundError):
                filesystem.abort_mpu(bucket, upload["Key"], upload["UploadId"])


def _bears(filesystem: Any, path: str, mark: str) -> bool:
    try:
        return bool(filesystem.metadata(path).get(_MARK) == mark)
    except FileNotFoundError:
        return False
