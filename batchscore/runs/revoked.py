"""Which runs of a slice were taken back, so that what they published does not come back."""

from __future__ import annotations

from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.storage.store import Store

_REVOKED = "revoked.json"
_KEYS = ("run", "score", "by", "at", "reason")


def revocations(store: Store, slice_: str) -> list[dict[str, Any]]:
    """Returns what was taken back of a slice: run, how it scored which shards, who, when, why.

    An entry without shards is of a run that was published again; it holds nothing back.
    """
    path = revoked_path(slice_)
    try:
        found = store.read_json(path)
        return [
            {**{key: str(each[key]) for key in _KEYS}, "shards": _shards(each["shards"])}
            for each in found
        ]
    except FileNotFoundError:
        return []
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(
            f"{store.url(path)}: damaged ({reason(error)}); restore it from a copy, or "
            "remove it to forget what was taken back"
        ) from error


def lifted(revocation: dict[str, Any]) -> dict[str, Any]:
    """Returns a revocation that holds nothing back any more.

    It stays in the file, so that the file never has the same bytes twice: a late
    compare-and-swap would take them for those that it was made for.
    """
    return {**revocation, "shards": []}


def _shards(found: Any) -> list[list[Any]]:
    return [[str(path), int(size), str(mark)] for path, size, mark in found]


def revoked_path(slice_: str) -> str:
    """Where a slice's revocations are written."""
    return layout.slice_file(slice_, _REVOKED)
