"""JSON of an output: written for people, and read with bounds on its size, depth and text."""

from __future__ import annotations

import json
import re
from typing import Any

MOST_BYTES = 256 << 20
"""Of any document; a manifest of a million files has about as many."""
MOST_DEPTH = 64
"""Of lists and mappings in each other; what batchscore writes has eight at most."""

_TOO_LARGE = f"it has more than {MOST_BYTES:,} bytes"
_TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """Returns the value of a JSON document in UTF-8.

    Raises:
        ValueError: It is no such document, is too large or nested too deep, or holds a text that
            no encoding has; the message is short and holds nothing of the document.
    """
    value = _parse(data)
    # Brackets within texts may seem to nest: only then the texts are taken out, which costs more.
    if not _is_shallow(data) and not _is_shallow(_TEXTS.sub(b"", data)):
        raise ValueError(_TOO_DEEP)
    if _HALVES.search(data):
        _check_texts(value)
    return value


def _parse(data: bytes) -> Any:
    if len(data) > MOST_BYTES:
        raise ValueError(_TOO_LARGE)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start:,}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON at line {error.lineno:,}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:  # of a whole number with thousands of digits
        raise ValueError("a number of it has too many digits") from error


def _is_shallow(data: bytes) -> bool:
    """Tells whether brackets, as if texts held none, are nested at most `MOST_DEPTH` deep."""
    left = data.translate(None, _NO_BRACKETS)
    for _ in range(MOST_DEPTH):
        if not left:
            return True
        left = left.replace(b"[]", b"").replace(b"{}", b"")
    return not left


def _check_texts(value: Any) -> None:
    """Raises ValueError where a text holds half of a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text of it holds half of a character") from error


def encode_json(value: Any) -> bytes:
    """Returns JSON that people can read: of a mapping, and of its lists, a line for each item."""
    if not isinstance(value, dict):
        return f"{_compact(value)}\n".encode()
    entries = [f"{_compact(key)}: {_lines(item)}" for key, item in value.items()]
    return "{{\n{}\n}}\n".format(",\n".join(entries)).encode()


def _lines(value: Any) -> str:
    if not (isinstance(value, list | tuple) and any(isinstance(i, dict) for i in value)):
        return _compact(value)
    return "[\n  {}\n ]".format(",\n  ".join(map(_compact, value)))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
