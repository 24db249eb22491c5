"""A manifest's lists in segments, so that a slice that only grows rewrites each unit a few times.

A manifest holds what its run added. What it keeps of its base lies in segments, each a file that
its own SHA-256 names. As soon as eight segments have about the same size, the next manifest
refers to one that holds all of them. So a slice of n units has at most seven segments for each
power of eight up to n, and each unit is written once for each of these powers.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.runs.manifest_model import SEGMENTED, VERSION, WHOLE, Manifest, decode_manifest
from batchscore.storage.documents import parse_json
from batchscore.storage.store import Store, encode_json

_THREADS = 16
_BITS = 3  # eight segments become one
_SCORED = ("units", "files", "shards")
_LISTS = (*_SCORED, "inputs", "bad_shards")
_FORM = ("composed", "segments", "own")
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)

# What a manifest lists: units with shards and files, other shards, and bad shards.
_Items = dict[tuple[str, str], Any]


@dataclass(frozen=True)
class _Segment:
    """What a segment lists, and its name once it is written: the SHA-256 of its bytes."""

    items: _Items
    sha256: str | None = None


def segment_path(slice_: str, sha256: str) -> str:
    """Returns the path of a segment of a slice."""
    return layout.slice_file(slice_, f"segments/{sha256}.json")


def inline(manifest: Manifest) -> Manifest:
    """Returns a manifest with the lists of what its run added; others are left out."""
    own = manifest.document.get("own", {})
    return decode_manifest({**manifest.document, **own}, manifest.run)


def expand(store: Store, manifest: Manifest) -> Manifest:
    """Returns a manifest with whole lists.

    Raises:
        RecordError: A segment is missing or damaged.
        LookupError, TypeError, ValueError, AttributeError: The manifest itself is damaged.
    """
    if manifest.batchscore_manifest == WHOLE:
        return manifest
    kept = [part.items for part in _read_all(store, manifest)]
    lists = _compose(_union([*kept, _unpack(manifest.document["own"])]))
    return decode_manifest(_whole(manifest.document, lists), manifest.run)


def compact(store: Store, manifest: Manifest, base: Manifest | None) -> Manifest:
    """Returns a manifest that refers to segments for what it keeps of its base.

    The segments are on disk when the call returns. The manifest is returned as it is where it
    keeps nothing, or where its lists are in another order than those of a run.

    Args:
        store: The output.
        manifest: Has whole lists.
        base: The manifest of the run before, as it was written.

    Raises:
        RecordError: A segment of the base is missing or damaged.
    """
    if base is None:
        return manifest
    document = manifest.document
    made = _copied(document)
    parts = _parts(_read_all(store, base), _added(base), _unpack(made))
    own = _without(_unpack(made), [part.items for part in parts])
    lists = _compose(_union([*(part.items for part in parts), own]))
    composed = [key for key in lists if lists[key] == made.get(key)]
    if not parts or not {*_SCORED} <= {*composed}:
        return manifest
    layout.raise_format(store)
    segments = [part.sha256 or _write(store, manifest.slice, part.items) for part in parts]
    rest = {key: value for key, value in document.items() if key not in composed}
    if "rejects" in composed:
        rejects = document["rejects"]
        rest["rejects"] = {key: rejects[key] for key in rejects if key != "files"}
    form = {VERSION: SEGMENTED, "composed": composed}
    made = {**rest, **form, "segments": segments, "own": _pack(own)}
    return decode_manifest(made, manifest.run)


def _added(base: Manifest) -> _Items:
    """Returns what a base's own lists hold; RecordError if they are damaged."""
    try:
        return _unpack(_copied(inline(base).document))
    except _UNREADABLE as error:
        raise RecordError(
            f"manifest of run {base.run!r}: damaged ({reason(error)}); restore it from a "
            "copy, or score the slice again with --rescore"
        ) from error


def _parts(segments: Sequence[_Segment], added: _Items, mine: _Items) -> list[_Segment]:
    """Returns the segments all of whose items stay, and one of what else stays."""
    kept = [s for s in segments if all(mine.get(key) == s.items[key] for key in s.items)]
    known = _union([*(segment.items for segment in segments), added])
    left = _without(mine, [segment.items for segment in kept])
    rest = {key: value for key, value in left.items() if known.get(key) == value}
    return _merged([*kept, _Segment(rest)] if rest else kept)


def _merged(parts: list[_Segment]) -> list[_Segment]:
    """Returns parts of which fewer than eight have about the same size."""
    levels = defaultdict[int, list[_Segment]](list)
    for part in parts:
        levels[(len(part.items).bit_length() - 1) // _BITS].append(part)
    for level, alike in levels.items():
        if len(alike) >= 1 << _BITS:
            others = [each for key in levels if key != level for each in levels[key]]
            return _merged([*others, _Segment(_union(part.items for part in alike))])
    return parts


def _without(items: _Items, parts: Iterable[_Items]) -> _Items:
    listed = _union(parts)
    return {key: value for key, value in items.items() if key not in listed}


def _union(parts: Iterable[_Items]) -> _Items:
    return {key: value for part in parts for key, value in part.items()}


def _copied(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the lists of a manifest as they are once they were written and read."""
    found = {key: document[key] for key in _LISTS if key in document}
    if "rejects" in document:
        found["rejects"] = document["rejects"].get("files")
    copied: dict[str, Any] = json.loads(json.dumps(found))
    return copied


def _whole(document: Mapping[str, Any], lists: dict[str, list[Any]]) -> dict[str, Any]:
    composed: dict[str, Any] = {key: lists[key] for key in document["composed"]}
    if "rejects" in composed:
        composed["rejects"] = {**document["rejects"], "files": lists["rejects"]}
    kept = {k: v for k, v in document.items() if k not in _FORM}
    return {**kept, VERSION: WHOLE, **composed}


def _unpack(lists: Mapping[str, Any]) -> _Items:
    """Returns what lists hold, each unit with its shards and files."""
    shards, files = lists.get("shards", ()), defaultdict[str, list[Any]](list)
    for file in lists.get("files", ()):
        files[file["unit"]].append(file)
    items: _Items = {}
    for unit in lists.get("units", ()):
        pieces = [[shards[index], *rest] for index, *rest in unit.get("pieces", ())]
        items["unit", str(unit["unit"])] = [{**unit, "pieces": pieces}, files[unit["unit"]]]
    of_units = {_text(shard) for shard in shards}
    others = {_text(shard): shard for shard in lists.get("inputs", ())}
    items |= {("input", text): shard for text, shard in others.items() if text not in of_units}
    return items | {("bad", _text(bad)): bad for bad in lists.get("bad_shards", ())}


def _pack(items: _Items) -> dict[str, list[Any]]:
    """Reverses `_unpack`: units by name, shards in the order in which units have them."""
    shards: dict[str, tuple[int, Any]] = {}
    units, files = [], []
    for _, (unit, unit_files) in _sorted(items, "unit"):
        pieces = [
            [shards.setdefault(_text(shard), (len(shards), shard))[0], *rest]
            for shard, *rest in unit["pieces"]
        ]
        units.append({**unit, "pieces": pieces})
        files += unit_files
    return {
        "units": units,
        "files": files,
        "shards": [shard for _, shard in shards.values()],
        "inputs": [shard for _, shard in _sorted(items, "input")],
        "bad_shards": [bad for _, bad in _sorted(items, "bad")],
    }


def _compose(items: _Items) -> dict[str, list[Any]]:
    """Returns the lists of a manifest, as a run orders them."""
    lists = _pack(items)
    inputs = sorted([*lists["shards"], *lists["inputs"]], key=lambda shard: str(shard["path"]))
    bad = sorted(lists["bad_shards"], key=lambda each: str(each["path"]))
    rejects = [unit["rejects_file"] for unit in lists["units"] if unit.get("rejects_file")]
    return {**lists, "inputs": inputs, "bad_shards": bad, "rejects": rejects}


def _sorted(items: _Items, kind: str) -> list[tuple[tuple[str, str], Any]]:
    return sorted(
        ((key, value) for key, value in items.items() if key[0] == kind), key=lambda each: each[0]
    )


def _text(facts: Any) -> str:
    return repr(facts)  # several times as quick as JSON


def _write(store: Store, slice_: str, items: _Items) -> str:
    """Writes a segment unless it is there; returns its name."""
    data = encode_json(_pack(items))
    sha256 = hashlib.sha256(data).hexdigest()
    path = segment_path(slice_, sha256)
    if not store.create_new(path, data) and store.read(path) != data:
        store.write(path, data)
    return sha256


def _read_all(store: Store, manifest: Manifest) -> list[_Segment]:
    """Returns a manifest's segments."""
    if not manifest.segments:
        return []
    with ThreadPoolExecutor(_THREADS) as pool:
        return [*pool.map(partial(_read, store, manifest.slice), manifest.segments)]


def _read(store: Store, slice_: str, sha256: str) -> _Segment:
    path = segment_path(slice_, sha256)
    try:
        data = store.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("its SHA-256 is not the one of its name")
        return _Segment(_unpack(parse_json(data)), sha256)
    except FileNotFoundError as error:
        raise _damaged(store, path, "no such file") from error
    except (*_UNREADABLE, IsADirectoryError) as error:
        raise _damaged(store, path, f"damaged ({reason(error)})") from error


def _damaged(store: Store, path: str, what: str) -> RecordError:
    return RecordError(
        f"segment {store.url(path)}, which lists published units: {what}; restore it from a copy, "
        "or score the slice again with --rescore"
    )
