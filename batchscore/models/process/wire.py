"""Messages between a model's process and those that call it: a header of one size, then a body.

A body is JSON from the model's process, whose code may be anybody's. Towards it a body may be a
pickle, since it runs the code of whoever started it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batchscore.models.process.memory import UnreadableError

OPEN, ASK, CALL, ANSWER = 1, 2, 3, 4
"""Open a connection, do something, call the model, and the answer to each of the last two."""

SLOTS = 3
"""Calls that may be under way on one connection: two wait for results, one is handed over."""

_MAGIC = b"bsm1"
# Magic, kind, slot, sequence number, bytes of the body.
_HEADER = struct.Struct("<4sBBxxQI")
_BODY_BYTES = 1 << 28
_DESCRIPTORS = 2 * SLOTS


@dataclass(frozen=True)
class Message:
    """One message.

    Args:
        kind: What it is.
        sequence: Its number on its connection; an answer has that of its question.
        body: What it says.
        slot: Whose shared memory a call uses.
        descriptors: Of files that go with it; the receiver closes them.
    """

    kind: int
    sequence: int
    body: bytes = b""
    slot: int = 0
    descriptors: Sequence[int] = field(default_factory=tuple)

    def json(self) -> dict[str, Any]:
        """Returns the body of an answer.

        Raises:
            UnreadableError: It is no JSON object.
        """
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"the body is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise UnreadableError("the body is no JSON object")
        return found


def send(to: socket.socket, message: Message) -> None:
    """Sends a message.

    Raises:
        OSError: The other side is gone.
    """
    header = (message.kind, message.slot, message.sequence, len(message.body))
    packed = _HEADER.pack(_MAGIC, *header)
    if message.descriptors:
        # The descriptors come with the first byte; the rest of the header cannot be cut off.
        sent = socket.send_fds(to, [packed], list(message.descriptors))
        to.sendall(packed[sent:] + message.body)
    else:
        to.sendall(packed + message.body)


def receive(source: socket.socket) -> Message | None:
    """Waits for the next message; None where the other side has closed the connection.

    Raises:
        UnreadableError: What comes is no message.
        TimeoutError: Nothing comes within the connection's timeout.
        OSError: The other side is gone.
    """
    start, descriptors, _, _ = socket.recv_fds(source, _HEADER.size, _DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if not start:
        return None
    header = start + _exactly(source, _HEADER.size - len(start))
    magic, kind, slot, sequence, size = _HEADER.unpack(header)
    if magic != _MAGIC or kind not in (OPEN, ASK, CALL, ANSWER) or slot >= SLOTS:
        raise UnreadableError(f"{header[:8]!r} begins no message")
    if size > _BODY_BYTES:
        raise UnreadableError(f"a body of {size:,} bytes")
    return Message(kind, sequence, _exactly(source, size), slot, tuple(descriptors))


def _exactly(source: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = source.recv(min(size - len(found), 1 << 20))
        if not piece:
            raise ConnectionResetError("the connection ended within a message")
        found += piece
    return bytes(found)
