"""Makes a JSON line of each line of its standard input; a program that needs nothing else.

`json_lines` starts it by its path. Lines that are ours already are passed on.

Many processes and threads write to its pipe. Only so many bytes at once reach a pipe unbroken, so a
longer line comes in pieces, which are put together here.
"""

from __future__ import annotations

import json
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone

END = b"\n\x1eend\n"
"""Ends the program, also if others have its input open."""
_CONTEXT = "\x1e{"
_HEAD = '{"time": "'
_KEYS = frozenset({"time", "level", "logger", "message"})
_PIECE = b"\x1f"
_MORE, _LAST = b"+", b"."
_LINE_BYTES = 1 << 16
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_ours(line: str) -> bool:
    """Tells whether a line is a JSON line of batchscore."""
    if not line.startswith(_HEAD):
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.keys() >= _KEYS


def pieces(line: bytes, name: str) -> Iterator[bytes]:
    """Yields what to write to the pipe for a line, each piece in one call.

    Each piece begins a line, so that a text without an end before it stays apart.

    Args:
        line: The line, without its line break.
        name: Tells its pieces from those of all other lines; it has no space.
    """
    if len(line) <= select.PIPE_BUF - 2:
        yield b"\n" + line + b"\n"
        return
    head = b"\n" + _PIECE + name.encode() + b" "
    size = select.PIPE_BUF - len(head) - 2
    for start in range(0, len(line), size):
        sign = _MORE if start + size < len(line) else _LAST
        yield head + sign + line[start : start + size] + b"\n"


class Pieces:
    """The pieces that came of lines that are not complete."""

    def __init__(self) -> None:
        self._found: dict[bytes, bytearray] = {}

    def whole(self, raw: bytes) -> bytes | None:
        """Returns a line that is complete with this; None if more is to come."""
        name, space, rest = raw[1:].rstrip(b"\r\n").partition(b" ")
        if not raw.startswith(_PIECE) or not space or rest[:1] not in (_MORE, _LAST):
            return raw
        self._found.setdefault(name, bytearray()).extend(rest[1:])
        return None if rest[:1] == _MORE else bytes(self._found.pop(name))

    def rests(self) -> list[bytes]:
        """Returns what came of lines whose process did not end them."""
        return [bytes(each) for each in self._found.values()]


def context(facts: Mapping[str, str]) -> bytes:
    """Returns what has the program name these facts with later lines."""
    return b"\n\x1e" + json.dumps(dict(facts)).encode() + b"\n"


def wrapped(line: str, facts: Mapping[str, str]) -> str:
    """Returns a line as an object, of which no more is known than that it came."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    found = {"time": now, "level": "INFO", "logger": "stderr", "message": line}
    return json.dumps({**found, **facts})


def main() -> None:
    """Reads until the end, also if nobody takes what it writes."""
    for each in _IGNORED:  # it ends with who started it
        signal.signal(each, signal.SIG_IGN)
    facts: dict[str, str] = {}
    found = Pieces()
    try:
        while (raw := sys.stdin.buffer.readline(_LINE_BYTES)) and raw != END.lstrip():
            if (line := found.whole(raw)) is not None:
                facts = _pass_on(line, facts)
        for rest in found.rests():
            _pass_on(rest, facts)
    except (OSError, ValueError):
        pass


def _pass_on(raw: bytes, facts: dict[str, str]) -> dict[str, str]:
    """Writes a line as an object; returns the facts that later lines have."""
    line = raw.decode(errors="replace").rstrip("\r\n")
    if line.startswith(_CONTEXT):
        return dict(json.loads(line[1:]))
    if line.strip():
        text = line if is_ours(line) else wrapped(line, facts)
        # If nobody takes it, the rest is read all the same: a writer must not fail or wait.
        with suppress(OSError):
            sys.stdout.buffer.write(f"{text}\n".encode())
            sys.stdout.buffer.flush()
    return facts


if __name__ == "__main__":
    main()
