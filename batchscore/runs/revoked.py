"""Which runs of a slice were taken back, so that what they published does not come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.storage.store import Store

_REVOKED = "revoked.json"
_TEXTS = ("run", "score", "by", "at", "reason")

RevokedShard = tuple[str, int, str]
"""Path, size and modification mark of a shard."""


@dataclass(frozen=True)
class Revocation:
    """What was taken back of a slice.

    Args:
        run: The run that published it.
        score: The hash that names how that run scored.
        shards: The shards that it scored so; none if the run was published again.
        by: Who took it back, as `user@host`.
        at: When, in UTC.
        reason: Why, in the person's words.
    """

    run: str
    score: str
    shards: tuple[RevokedShard, ...]
    by: str
    at: str
    reason: str


def revocations(store: Store, slice_: str) -> list[Revocation]:
    """Returns what was taken back of a slice.

    An entry without shards is of a run that was published again; it holds nothing back.
    """
    path = revoked_path(slice_)
    try:
        return [_decode(each) for each in store.read_json(path)]
    except FileNotFoundError:
        return []
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(
            f"{store.url(path)}: damaged ({reason(error)}); restore it from a copy, or "
            "remove it to forget what was taken back"
        ) from error


def encode_revocations(found: Sequence[Revocation]) -> list[dict[str, Any]]:
    """Returns revocations as JSON-able values."""
    return [asdict(each) for each in found]


def lifted(revocation: Revocation) -> Revocation:
    """Returns a revocation that holds nothing back any more.

    It stays in the file, so that the file never has the same bytes twice: a late
    compare-and-swap would take them for those that it was made for.
    """
    return replace(revocation, shards=())


def _decode(facts: Any) -> Revocation:
    texts = {key: str(facts[key]) for key in _TEXTS}
    shards = [(str(path), int(size), str(mark)) for path, size, mark in facts["shards"]]
    return Revocation(**texts, shards=tuple(shards))


def revoked_path(slice_: str) -> str:
    """Where a slice's revocations are written."""
    return layout.slice_file(slice_, _REVOKED)
