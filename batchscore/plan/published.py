"""What an output says of the input that it was published from: its shards, its keys' types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from batchscore.errors import InvalidError, RecordError
from batchscore.runs import layout
from batchscore.runs.history import published_manifest
from batchscore.runs.manifest_units import decode_shard
from batchscore.storage.store import Store
from batchscore.units.unit import Shard

_OTHERS = 5
_KINDS: dict[type, str] = {int: "integer", str: "string"}


@dataclass(frozen=True)
class Published:
    """What is published of a slice.

    Args:
        shards: Shards of the slice, by path.
        kinds: `integer` or `string` by hive key, as this slice or else another of the job has it.
        typed: The shards that have these kinds.
    """

    shards: Mapping[str, Shard] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    typed: tuple[Shard, ...] = ()


def read_published(store: Store, job: str, slice_: str) -> Published:
    """Returns what is published; what cannot be read is left to who builds upon it."""
    shards = _shards(store, slice_)
    kinds = _kinds(shards)
    typed = shards
    if not kinds:
        others = (_shards(store, name) for name in _other_slices(store, job, slice_))
        typed = next((found for found in islice(others, _OTHERS) if _kinds(found)), [])
        kinds = _kinds(typed)
    return Published({shard.path: shard for shard in shards}, kinds, tuple(typed))


def published_types(store: Store, job: str, slice_: str) -> Mapping[str, str]:
    """Returns the types of the published columns, as this slice or else another of the job has."""
    names = (slice_, *islice(_other_slices(store, job, slice_), _OTHERS))
    return next((found for name in names if (found := _columns(store, name))), {})


def _columns(store: Store, slice_: str) -> dict[str, str]:
    with suppress(RecordError, InvalidError, KeyError, TypeError, ValueError, AttributeError):
        manifest = published_manifest(store, slice_)
        return dict(manifest.columns) if manifest else {}
    return {}


def _other_slices(store: Store, job: str, slice_: str) -> Iterator[str]:
    """Yields the other slices of a job, the newest by name first."""
    first = layout.slice_id(job, {})
    for name in reversed(store.names(f"{layout.HOME}/slices")):
        if name != slice_ and (name == first or name.startswith(f"{first},")):
            yield name


def _shards(store: Store, slice_: str) -> list[Shard]:
    with suppress(RecordError, InvalidError, KeyError, TypeError, ValueError, AttributeError):
        manifest = published_manifest(store, slice_)
        listed = (*manifest.inputs, *manifest.shards) if manifest else ()
        return [decode_shard(shard) for shard in listed]
    return []


def _kinds(shards: list[Shard]) -> dict[str, str]:
    return {
        name: _KINDS[type(value)]
        for shard in shards
        for name, value in shard.keys
        if type(value) in _KINDS
    }
