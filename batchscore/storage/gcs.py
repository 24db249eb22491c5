"""How Google Cloud Storage is spoken to: no listings are kept, every request ends, puts may have a
condition, and an object is seen once all of it is there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp
import google.auth
import google_crc32c
from fsspec.spec import AbstractBufferedFile
from gcsfs.core import GCSFileSystem, quote
from gcsfs.retry import ChecksumError, HttpError
from google.auth.exceptions import DefaultCredentialsError, RefreshError

from batchscore.storage.gcs_upload import PartedUpload
from batchscore.storage.moments import dated
from batchscore.storage.retries import patiently_awaited

CONDITIONAL = True
_SECONDS = 20.0
_SLOWEST = 256 * 1024
"""Bytes a second at which an upload may at least be expected to go."""
_MARK = "put"
_FILE_OPTIONS = {"cache_type", "cache_options", "size"}
_CANCELLED = 499  # so is answered who cancels an upload
_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_TOO_MANY = {"rateLimitExceeded", "userRateLimitExceeded"}


class BoundedGcs(GCSFileSystem):
    """A filesystem whose requests end, and whose refusals are Python's own errors.

    gcsfs would print tracebacks, wait for minutes, and cut uploads at a text that they may hold.

    Args:
        once: Whether each request is tried once.
        options: Those of gcsfs. Without `token`, the credentials are those of the environment, and
            none where it has none or names an emulator.
    """

    def __init__(self, *args: Any, once: bool = False, **options: Any) -> None:
        self._once, self._without = once, ""
        if options.get("token") is None:
            options["token"], self._without = _find_credentials()
        super().__init__(*args, **options)

    async def _request(self, *args: Any, **options: Any) -> Any:
        """Returns status, headers, request and body of an answer, as `patiently` asks for it."""
        return await patiently_awaited(partial(self._ask, *args, **options), self._once)

    async def _ask(
        self,
        method: str,
        path: str,
        *args: Any,
        headers: Any = None,
        data: Any = None,
        **options: Any,
    ) -> Any:
        for name in ("cache_type", "cache_source"):
            options.pop(name, None)
        body, seconds = options.pop("json", None), float(self.requests_timeout or _SECONDS)
        await self._set_session()
        asked = self.session.request(
            method,
            self._format_path(path, args),
            params=self._get_params(options),
            json=body,
            headers=self._headers(headers),
            data=data,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds),
        )
        # aiohttp waits for ever for a peer that does not take what is sent.
        longest = 2 * seconds + len(data or b"") / _SLOWEST
        async with await asyncio.wait_for(asked, longest) as answer:
            found = await answer.read()
            self._refuse(answer.status, found, path.format(*args) if args else path)
            _check_whole(path, answer, found)
            return answer.status, answer.headers, answer.request_info, found

    def _headers(self, headers: Any) -> Any:
        try:
            return self._get_headers(headers)
        except (RefreshError, HttpError) as error:
            cause = error.__cause__ or error
            text = cause.args[0] if cause.args else cause
            raise PermissionError(f"the credentials were refused: {text}") from None

    def _refuse(self, status: int, body: bytes, path: str) -> None:
        if status < 400 or status == _CANCELLED:
            return
        reasons, message = _said(body)
        what = f"{status}, {message or 'no reason'}, for {path.partition('?')[0]}"
        if status == 404:
            raise FileNotFoundError(f"no such bucket or object: {what}")
        if status == 412:
            raise FileExistsError(f"precondition failed: {what}")
        if status == 401 or (status == 403 and not reasons & _TOO_MANY):
            raise PermissionError(f"{what}{self._without}")
        raise HttpError({"code": 429 if status == 403 else status, "message": what})

    async def _pipe_file(
        self, path: str, data: bytes, mode: str = "overwrite", mark: str = "", generation: str = ""
    ) -> None:
        """Puts an object in one request; FileExistsError if its condition does not hold.

        Args:
            path: Within the filesystem.
            data: Its bytes.
            mode: `create`: only where there is none.
            mark: Is kept with the object.
            generation: Only in place of this one.
        """
        bucket, key, _ = self.split_path(path)
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        described = {"md5Hash": digest, "metadata": {_MARK: mark}}
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(described)}\r\n--{boundary}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        await self._call(
            "POST",
            f"{self._location}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="multipart",
            name=key,
            ifGenerationMatch="0" if mode == "create" else generation or None,
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=b"".join([head.encode(), data, f"\r\n--{boundary}--".encode()]),
        )

    async def _info(self, path: str, generation: str | None = None, **_: Any) -> Any:
        """Returns what there is at a path: of an object in one request, else in two."""
        path = self._strip_protocol(path).rstrip("/")
        if "/" not in path:
            return await super()._info(path)
        try:
            found = await self._get_object(path if generation is None else f"{path}#{generation}")
            if not found["name"].endswith("/"):
                return found
        except FileNotFoundError:
            pass
        inside, folders = await self._do_list_objects(path, max_results=1)
        if not inside and not folders:
            raise FileNotFoundError(path)
        return {"name": path, "size": 0, "type": "directory"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            return PartedUpload(self, path)
        # gcsfs's own file looks at the object first, and fetches ahead of what is asked for.
        known = {name: options[name] for name in _FILE_OPTIONS & options.keys()}
        return AbstractBufferedFile(self, path, mode, **known)


def _find_credentials() -> tuple[Any, str]:
    """Returns the environment's credentials, or none and what a refusal says of that."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return "anon", ""
    try:
        return google.auth.default(scopes=[_SCOPE])[0], ""
    except DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise PermissionError(f"GOOGLE_APPLICATION_CREDENTIALS: {error}") from error
        # Who has none may still read what is public.
        return "anon", "; no credentials were found on this machine"


def _said(body: bytes) -> tuple[set[str], str]:
    """Returns the reasons and the message of an answer that refuses."""
    try:
        error = json.loads(body)["error"]
        return {str(each.get("reason")) for each in error.get("errors", [])}, str(error["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return set(), body[:200].decode(errors="replace").strip()


def _check_whole(path: str, answer: Any, body: bytes) -> None:
    """Raises ChecksumError if bytes are not those of their checksum, or JSON is damaged."""
    if path.startswith("b/") and body:
        try:
            json.loads(body)
        except ValueError:
            raise ChecksumError(f"the answer for {path} is no JSON") from None
    hashes = answer.headers.get("X-Goog-Hash", "")
    found = next((each[7:] for each in hashes.split(",") if each.startswith("crc32c=")), None)
    encoded = answer.headers.get("X-Goog-Stored-Content-Encoding", "identity")
    if found is None or answer.status != 200 or encoded != "identity":
        return
    if base64.b64decode(found) != google_crc32c.Checksum(body).digest():
        raise ChecksumError("the bytes that came are not those of the object's checksum")


def connect(address: str, once: bool) -> tuple[Any, str]:
    """Returns the filesystem of an address and the path within it, as `Client` says."""
    version = BoundedGcs._get_kwargs_from_urls(address)
    filesystem = BoundedGcs(once=once, use_listings_cache=False, **version)
    return filesystem, str(BoundedGcs._strip_protocol(address))


def tag(info: dict[str, Any]) -> str | None:
    """Returns the generation of an object that was listed."""
    found = info.get("generation")
    return None if found is None else str(found)


def read(filesystem: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Returns an object's bytes, or those between two places, in one request."""
    return bytes(filesystem.cat_file(path, start, end))


def age(filesystem: Any, path: str) -> float | None:
    """Returns the seconds since an object was put, by the answer's own date."""
    bucket, key, _ = filesystem.split_path(path)
    headers, found = filesystem.call("GET", "b/{}/o/{}", bucket, key)
    now = dated(headers)
    # To the second, as the answer is dated: Python 3.10 does not read fractions of any length.
    then = datetime.fromisoformat(f"{json.loads(found)['updated'][:19]}+00:00").timestamp()
    return None if now is None else now - then


def put_new(filesystem: Any, path: str, data: bytes, mark: str) -> bool:
    """Puts an object where there is none; False if there is one."""
    try:
        filesystem.pipe_file(path, data, mode="create", mark=mark)
    except FileExistsError:
        return _bears(filesystem, path, mark)
    return True


def put_matching(filesystem: Any, path: str, old: bytes, new: bytes, mark: str) -> bool:
    """Replaces an object that still holds `old`; else False."""
    try:
        headers, held = filesystem.call("GET", filesystem.url(path))
        if held != old:
            return _bears(filesystem, path, mark)
        generation = headers["X-Goog-Generation"]
        filesystem.pipe_file(path, new, mark=mark, generation=generation)
    except FileNotFoundError:
        return False
    except FileExistsError:
        return _bears(filesystem, path, mark)
    return True


def copy(filesystem: Any, source: str, target: str, tag: str | None) -> None:
    """Copies an object, of no other generation than `tag`."""
    try:
        _rewrite(filesystem, source, target, tag)
    except FileNotFoundError:
        if tag is not None and filesystem.exists(source):
            raise OSError(f"precondition failed: it is no longer of generation {tag}") from None
        raise


def _rewrite(filesystem: Any, source: str, target: str, generation: str | None) -> None:
    (bucket, key, _), (to_bucket, to_key, _) = map(filesystem.split_path, (source, target))
    answer: dict[str, Any] = {"done": False}
    while not answer["done"]:  # a large object is copied in several requests
        answer = filesystem.call(
            "POST",
            "b/{}/o/{}/rewriteTo/b/{}/o/{}",
            *(bucket, key, to_bucket, to_key),
            json_out=True,
            sourceGeneration=generation,
            rewriteToken=answer.get("rewriteToken"),
        )


def abort_uploads(filesystem: Any, folder: str) -> None:
    """Does nothing: an upload in parts that was not ended is not seen, and ends after a week."""


def _bears(filesystem: Any, path: str, mark: str) -> bool:
    try:
        return bool(filesystem.info(path).get("metadata", {}).get(_MARK) == mark)
    except FileNotFoundError:
        return False
