"""An upload to Google Cloud Storage: seen once it is closed, however many parts it was sent in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

from fsspec.asyn import sync
from gcsfs.core import quote

_PART = 16 * 2**20
"""Bytes of a part, a multiple of 256 KiB as the store demands."""
_INCOMPLETE = 308


class PartedUpload(io.BufferedIOBase):
    """A new object that is being written; one of a single part is put in one request.

    Args:
        filesystem: Tries each request again by itself.
        path: Within the filesystem.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._buffer, self._sent, self._session = bytearray(), 0, ""
        self._md5 = hashlib.md5(usedforsecurity=False)

    def writable(self) -> bool:
        """Tells that it is there to be written."""
        return True

    def tell(self) -> int:
        """Returns the bytes written so far."""
        return self._sent + len(self._buffer)

    def write(self, data: Any, /) -> int:
        """Takes bytes, and sends those that make a part."""
        view = memoryview(data).cast("B")
        self._buffer += view
        self._md5.update(view)
        while len(self._buffer) > _PART:
            self._send(_PART, "*")
        return len(view)

    def close(self) -> None:
        """Sends the rest, after which the object is seen; OSError if the store has other bytes."""
        if self.closed:
            return
        super().close()
        if not self._session:
            self._filesystem.pipe_file(self._path, bytes(self._buffer))
            return
        size, answer = self.tell(), b""
        while not answer:
            answer = self._send(len(self._buffer), str(size))
        self._check(json.loads(answer), size)

    def __del__(self) -> None:
        """Leaves an object that nobody closed unseen: its end is missing."""
        super().close()

    def discard(self) -> None:
        """Ends the upload without an object."""
        if not self.closed:
            super().close()
            if self._session:
                self._filesystem.call("DELETE", self._session)

    def _check(self, kept: dict[str, Any], size: int) -> None:
        digest = base64.b64encode(self._md5.digest()).decode()
        if int(kept["size"]) != size or kept.get("md5Hash", digest) != digest:
            raise OSError(
                f"of {size} bytes that were sent, the store kept {kept['size']}, or others"
            )

    def _send(self, size: int, total: str) -> bytes:
        """Sends the next bytes of the buffer; returns the store's answer once it has them all."""
        self._session = self._session or self._start()
        place = f"bytes {self._sent}-{self._sent + size - 1}/{total}"
        status, headers, _, answer = sync(
            self._filesystem.loop,
            self._filesystem._request,
            *("PUT", self._session),
            headers={"Content-Range": place},
            data=bytes(self._buffer[:size]),
        )
        if status != _INCOMPLETE:
            return bytes(answer)
        kept = int(headers["Range"].rpartition("-")[2]) + 1 if "Range" in headers else 0
        if not self._sent < kept <= self._sent + size:
            raise OSError(f"of {place} the store says that it kept {kept:,} bytes")
        del self._buffer[: kept - self._sent]
        self._sent = kept
        return b""

    def _start(self) -> str:
        bucket, key, _ = self._filesystem.split_path(self._path)
        headers, _ = self._filesystem.call(
            "POST",
            f"{self._filesystem._location}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="resumable",
            name=key,
            headers={"X-Upload-Content-Type": "application/octet-stream"},
        )
        return str(headers["Location"])
