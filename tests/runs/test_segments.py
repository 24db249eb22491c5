"""Test that a slice that only grows writes metadata that is linear in its units."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest, decode_manifest
from batchscore.runs.manifest_units import encode_shard, encode_units, published_records
from batchscore.runs.segments import compact, expand
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store, encode_json
from batchscore.units.record import StagedFile, UnitRecord
from batchscore.units.unit import Piece, Shard
from tests.manifests import make_manifest

SLICE = "small"
SEGMENTS = f"_batchscore/slices/{SLICE}/segments"
NIGHTS = 130


class Night:
    """A unit of one shard, as one night brings it; `again` counts how often it was rewritten."""

    def __init__(self, number: int, again: int = 0) -> None:
        name = hashlib.sha256(f"{number}-{again}".encode()).hexdigest()
        self.shard = Shard(f"/in/day={number:04d}/part-0.parquet", 12_345, name[:20], 1_000)
        self.record = UnitRecord(
            unit=name[:16],
            attempt=f"{name[:16]}-{name[16:24]}",
            run=f"20261120-{name[:4]}",
            pieces=(Piece(self.shard, (0,), (0,), (1_000,)),),
            read=1_000,
            filtered=0,
            scored=999,
            rejected=1,
            reject_reasons={"NaN": 1},
            rejects_file=f"_batchscore/rejects/20261120-{name[:4]}/{name[:16]}.parquet",
            files=(StagedFile(f"data/r-{name[:16]}-0.parquet", "", 999, 9_999, name),),
            columns=(("id", "int64"),),
            seconds={},
            sidecars={"rejects_file": Digest(99, name)},
        )
        self.lists = encode_units([self.record], "20261120-aaaa")


def listing(run: str, nights: Iterable[Night], unread: Iterable[Shard] = ()) -> Manifest:
    """The manifest of a run after which these nights are published, with whole lists."""
    ordered = sorted(nights, key=lambda night: night.record.unit)
    # Each night is encoded once and has one shard, whose place is that of its unit.
    units = [
        {**unit, "pieces": [[place, *night.lists[0][0]["pieces"][0][1:]]]}
        for place, night in enumerate(ordered)
        for unit in night.lists[0]
    ]
    files, shards = ([each for night in ordered for each in night.lists[at]] for at in (1, 2))
    inputs = sorted([*shards, *map(encode_shard, unread)], key=lambda shard: shard["path"])
    paths = [night.record.rejects_file for night in ordered]
    head = {"batchscore_manifest": 1, "run": run, "slice": SLICE, "columns": [["id", "int64"]]}
    rejects = {"reasons": {}, "files": paths}
    lists = {"files": files, "rejects": rejects, "bad_shards": []}
    return make_manifest(**head, **lists, units=units, shards=shards, inputs=inputs)


def plain(manifest: Manifest) -> Manifest:
    """A manifest as it is once it was written and read."""
    return decode_manifest(json.loads(encode_json(manifest.document)), manifest.run)


def listed(store: Store, manifest: Manifest) -> Any:
    """A manifest with whole lists, as JSON."""
    return expand(store, plain(manifest)).document


def names(store: Store) -> set[str]:
    return {*store.names(SEGMENTS)}


def grown(store: Store, nights: int) -> Manifest:
    """Publish a night a run; return the last manifest as it is written."""
    written = listing("r0", [Night(0)])
    for last in range(1, nights):
        written = plain(compact(store, listing(f"r{last}", map(Night, range(last + 1))), written))
    return written


@pytest.mark.slow
def test_many_nights_are_linear(tmp_path: Path) -> None:
    """The second half of the nights adds what the first did; few segments hold all units."""
    store, sums, held = Store(str(tmp_path)), [0], [0]
    nights = [Night(number) for number in range(NIGHTS)]
    written = listing("r0", nights[:1])
    for last in range(1, NIGHTS):
        written = compact(store, listing(f"r{last}", nights[: last + 1]), written)
        sums.append(sums[-1] + len(encode_json(written.document)))
        held.append(len(written.segments))
    segments = [store.read(f"{SEGMENTS}/{name}") for name in names(store)]
    whole = len(encode_json(listing("r", nights).document))
    assert sums[-1] - sums[NIGHTS // 2] < 1.3 * sums[NIGHTS // 2]
    assert sum(map(len, segments)) < 4 * whole
    assert max(held) <= 21
    assert listed(store, written) == plain(listing(f"r{NIGHTS - 1}", nights)).document


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[set[tuple[int, int]], set[int]]]:
    """What is published run after run, and shards that are read by none of it."""
    states, now, unread = [], dict.fromkeys(range(draw(st.integers(0, 9))), 0), set[int]()
    for _ in range(draw(st.integers(1, 12))):
        first = len(now) + 1
        now |= dict.fromkeys(range(first, first + draw(st.integers(0, 9))), 0)
        unread |= draw(st.sets(st.integers(900, 909), max_size=2))
        for number in draw(st.sets(st.sampled_from(sorted(now)), max_size=2)) if now else ():
            now[number] = draw(st.integers(1, 3))
            if draw(st.booleans()):
                del now[number]
        states.append(({*now.items()}, {*unread}))
        if draw(st.integers(0, 4)) == 0:  # a rollback
            states.append(states[0])
            now, unread = dict(states[0][0]), {*states[0][1]}
    return states


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(histories())
def test_no_history_changes_what_a_manifest_lists(
    history: list[tuple[set[tuple[int, int]], set[int]]],
) -> None:
    """Units added, removed, rewritten and rolled back: readers see the same lists as ever."""
    with TemporaryDirectory() as folder:
        store, written = Store(folder), list[Manifest]()
        for number, (published, unread) in enumerate(history):
            nights = [Night(*each) for each in sorted(published)]
            made = listing(f"r{number}", nights, [Night(each).shard for each in sorted(unread)])
            written.append(plain(compact(store, made, written[-1] if written else None)))
            assert listed(store, written[-1]) == plain(made).document
            assert len(published_records(expand(store, written[-1]))) == len(nights)


def test_a_first_publication_has_whole_lists(tmp_path: Path) -> None:
    """Without a base, or where nothing of it stays, a manifest is written as it always was."""
    store, first, other = Store(str(tmp_path)), listing("r0", [Night(0)]), listing("r1", [Night(1)])
    assert compact(store, first, None) == first
    assert compact(store, other, first) == other
    assert store.names() == []


def test_a_manifest_of_earlier_versions_is_extended(tmp_path: Path) -> None:
    """Whole lists of many units become one segment, and a rollback to them needs no other."""
    store, old = Store(str(tmp_path)), listing("r0", map(Night, range(99)))
    written = compact(store, listing("r1", map(Night, range(100))), old)
    assert (len(written.segments), len(written.own.units)) == (1, 1)
    back = compact(store, listing("r2", map(Night, range(99))), written)
    assert (back.segments, back.own.units) == (written.segments, [])
    assert listed(store, back) == plain(listing("r2", map(Night, range(99)))).document


def test_lists_in_another_order_stay_whole(tmp_path: Path) -> None:
    """A list that segments would give back otherwise is written as it is; units keep all whole."""
    store, made = Store(str(tmp_path)), listing("r1", map(Night, range(9)))
    base = listing("r0", map(Night, range(8)))
    turned = made.updated(inputs=made.inputs[::-1])
    assert compact(store, turned, base).inputs == turned.inputs
    assert listed(store, compact(store, turned, base)) == plain(turned).document
    turned = made.updated(units=(made.units or [])[::-1])
    assert compact(store, turned, base) == turned


def test_a_held_run_lists_no_files(tmp_path: Path) -> None:
    """A manifest that replaces a list has that list, and its other lists from segments."""
    store, base = Store(str(tmp_path)), listing("r0", [Night(0)])
    made = listing("r1", [Night(0), Night(1)])
    nothing: dict[str, Any] = {"files": [], "status": "held"}
    held = compact(store, made, base).updated(**nothing)
    assert listed(store, held) == {**plain(made).document, **nothing}
    assert base.updated(**nothing).document == {**base.document, **nothing}
    assert (held.run, held.units) == ("r1", None)


@pytest.mark.parametrize("spoil", ["gone", "other bytes", "a folder"])
def test_a_spoiled_segment_is_named(tmp_path: Path, spoil: str) -> None:
    """Whoever reads a manifest learns which segment is damaged, and what to do."""
    store, written = Store(str(tmp_path)), grown(Store(str(tmp_path)), 20)
    path = f"{SEGMENTS}/{written.segments[0]}.json"
    data = store.read(path)
    store.remove(path)
    if spoil != "gone":
        store.write(path if spoil == "other bytes" else f"{path}/x", data.replace(b"999", b"998"))
    with pytest.raises(RecordError, match="--rescore") as error:
        expand(store, written)
    assert store.url(path) in str(error.value)
    with pytest.raises(RecordError, match="segment"):
        compact(store, listing("r20", map(Night, range(21))), written)


def test_an_orphan_is_used_or_replaced(tmp_path: Path) -> None:
    """A run that died behind its segments leaves what the next one writes, whole or damaged."""
    store, base = Store(str(tmp_path)), listing("r0", map(Night, range(5)))
    made = listing("r1", map(Night, range(6)))
    (orphan,) = compact(store, made, base).segments
    store.write(f"{SEGMENTS}/{orphan}.json", b"{")
    again = compact(store, made, base)
    assert again.segments == [orphan]
    assert listed(store, again) == plain(made).document


def test_segments_raise_the_format_of_the_output(tmp_path: Path) -> None:
    """Earlier versions refuse an output with segments; one without stays as they wrote it."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    assert store.read_json("_batchscore/format.json") == {"batchscore_output": 1}
    grown(store, 3)
    assert store.read_json("_batchscore/format.json") == {"batchscore_output": 2}
    layout.check_output(store)
