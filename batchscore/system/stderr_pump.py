"""Makes a JSON line of each line of its standard input; a program that needs nothing else.

`json_lines` starts it by its path. Lines that are ours already are passed on.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import datetime, timezone

END = b"\n\x1eend\n"
"""Ends the program, also if others have its input open."""
_CONTEXT = "\x1e{"
_HEAD = '{"time": "'
_LINE_BYTES = 1 << 16
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_ours(line: str) -> bool:
    """Tells whether a line is a JSON line of batchscore."""
    if not line.startswith(_HEAD):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def context(facts: Mapping[str, str]) -> bytes:
    """Returns what has the program name these facts with later lines."""
    return b"\n\x1e" + json.dumps(dict(facts)).encode() + b"\n"


def wrapped(line: str, facts: Mapping[str, str]) -> str:
    """Returns a line as an object, of which no more is known than that it came."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    found = {"time": now, "level": "INFO", "logger": "stderr", "message": line}
    return json.dumps({**found, **facts})


def main() -> None:
    """Reads until the end, and ends quietly if nobody takes what it writes."""
    for each in _IGNORED:  # it ends with who started it
        signal.signal(each, signal.SIG_IGN)
    facts: dict[str, str] = {}
    try:
        while raw := sys.stdin.buffer.readline(_LINE_BYTES):
            if raw == END.lstrip():
                return
            line = raw.decode(errors="replace").rstrip("\r\n")
            if line.startswith(_CONTEXT):
                facts = json.loads(line[1:])
            elif line.strip():
                text = line if is_ours(line) else wrapped(line, facts)
                sys.stdout.buffer.write(f"{text}\n".encode())
                sys.stdout.buffer.flush()
    except (OSError, ValueError):
        pass


if __name__ == "__main__":
    main()
