"""Test that a manifest gives back the records of the units that it publishes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import RecordError
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_units import (
    decode_shard,
    encode_shard,
    encode_units,
    final_path,
    is_published,
    published_records,
)
from batchscore.units.record import BadShard, StagedFile, UnitRecord
from batchscore.units.unit import Piece, Shard
from tests.manifests import make_manifest

RUN = "20261120-7f3a"
COLUMNS = (("id", "int64"), ("score", "float"))
NAMES = st.text("ab/=.-\N{SLIGHTLY SMILING FACE}", min_size=1, max_size=6)
PATHS = st.text("ab/=-\N{SLIGHTLY SMILING FACE}", max_size=6).map(
    lambda text: f"_batchscore/{text}"
)
SMALL = st.integers(0, 9)
SHARDS = st.builds(
    Shard,
    NAMES,
    SMALL,
    NAMES,
    SMALL,
    st.lists(st.tuples(NAMES, SMALL | NAMES | st.none()), max_size=2).map(tuple),
)


@st.composite
def pieces(draw: st.DrawFn, shards: list[Shard]) -> Piece:
    """Some row groups of one of the shards."""
    groups = draw(st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=3))
    return Piece(draw(st.sampled_from(shards)), *(tuple(g[i] for g in groups) for i in range(3)))


@st.composite
def records(draw: st.DrawFn) -> list[UnitRecord]:
    """Records of units that share shards; a unit's files are staged or published."""
    shards = draw(st.lists(SHARDS, min_size=1, max_size=3))
    made = []
    for unit in draw(st.lists(st.sampled_from(["u1", "u2", "u3"]), unique=True)):
        places = draw(st.lists(st.booleans(), max_size=3))
        files = tuple(
            StagedFile(f"data/m=1/r-{unit}-{n}" if done else f"stage/{unit}/{n}", "m=1", n, n, "s")
            for n, done in enumerate(places)
        )
        record = UnitRecord(
            unit=unit,
            attempt=f"{unit}-1",
            run=draw(NAMES),
            pieces=tuple(draw(st.lists(pieces(shards), min_size=1, max_size=3))),
            read=draw(SMALL),
            filtered=draw(SMALL),
            scored=draw(SMALL),
            rejected=draw(SMALL),
            reject_reasons=draw(st.dictionaries(NAMES, SMALL, max_size=2)),
            rejects_file=draw(st.none() | PATHS),
            files=files,
            columns=COLUMNS if files else (),
            seconds={},
            bad_shards=tuple(draw(st.lists(st.builds(BadShard, NAMES, SMALL, NAMES), max_size=2))),
            rows_file=draw(st.none() | PATHS),
            keys_file=draw(st.none() | PATHS),
            keys_columns=tuple(draw(st.lists(NAMES, max_size=2))),
            score_ranges=draw(st.dictionaries(NAMES, st.tuples(SMALL, SMALL), max_size=2)),
        )
        made.append(record)
    return made


def manifest_of(found: list[UnitRecord]) -> Manifest:
    """What a manifest holds of units, read back from its text."""
    units, files, shards = encode_units(found, RUN)
    facts = {"run": RUN, "units": units, "files": files, "shards": shards, "columns": COLUMNS}
    return make_manifest(**json.loads(json.dumps(facts)))


def as_published(record: UnitRecord) -> UnitRecord:
    """The record once its files lie where readers look."""
    files = [replace(f, staged=final_path(f, RUN, record.unit)) for f in record.files]
    return replace(record, files=tuple(files))


@pytest.mark.slow
@given(records())
def test_published_records_are_those_that_were_encoded(found: list[UnitRecord]) -> None:
    """Through JSON, each record comes back equal, but for where its files lie."""
    expected = {record.unit: as_published(record) for record in found}
    assert published_records(manifest_of(found)) == expected


@pytest.mark.slow
@given(records())
def test_encoding_what_came_back_changes_nothing(found: list[UnitRecord]) -> None:
    """Records that stay published run after run keep their files' names and all their facts."""
    first = manifest_of(found)
    again = [*published_records(first).values()]
    units, files, shards = encode_units(again, "20261121-0000")
    assert json.loads(json.dumps([units, files, shards])) == [
        first.units,
        first.files,
        first.shards,
    ]


@pytest.mark.slow
@given(records())
def test_each_shard_is_listed_once(found: list[UnitRecord]) -> None:
    """However many units read a shard, it is written once, in the order of its first use."""
    used = dict.fromkeys(piece.shard for record in found for piece in record.pieces)
    assert [decode_shard(shard) for shard in manifest_of(found).shards] == [*used]


@given(SHARDS)
def test_a_shard_survives_json(shard: Shard) -> None:
    """Path, size, mark, rows and hive keys come back equal, and with their types."""
    assert decode_shard(json.loads(json.dumps(encode_shard(shard)))) == shard


def test_a_published_file_keeps_its_name() -> None:
    """A staged file's final name bears run, unit and partition; a published one's never changes."""
    staged = StagedFile("_batchscore/staging/s/u-1/0003.parquet", "m=1", 1, 1, "")
    final = replace(staged, staged=final_path(staged, RUN, "u"))
    assert final.staged == f"data/m=1/{RUN}-u-0003.parquet"
    assert (is_published(staged), is_published(final)) == (False, True)
    assert final_path(final, "later", "u") == final.staged
    assert final_path(replace(staged, partition=""), RUN, "u") == f"data/{RUN}-u-0003.parquet"


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{}]},
        {"shards": [{"path": "x"}]},
        {"units": [{"unit": "u"}]},
        {"units": [{"unit": "u", "pieces": [[9, [], [], []]]}]},
        {"shards": [{"path": ["x"], "size": 1, "mark": "m", "rows": 1}]},
        {"shards": [{"path": 1e300, "size": 1, "mark": "m", "rows": 1}]},
        {"shards": [{"path": "x", "size": "1", "mark": "m", "rows": 1}]},
    ],
    ids=str,
)
def test_a_damaged_manifest_is_a_record_error(change: dict[str, Any]) -> None:
    """Facts of another form are reported with the run, and how to go on."""
    piece = Piece(Shard("x", 1, "m", 1), (0,), (0,), (1,))
    file = StagedFile("stage/0", "", 1, 1, "")
    facts: dict[str, Any] = {"seconds": {}, "rejects_file": None, "reject_reasons": {}}
    record = UnitRecord(
        "u", "u-1", "r", (piece,), 1, 0, 1, 0, **facts, files=(file,), columns=COLUMNS
    )
    assert published_records(manifest_of([record]))["u"].pieces == (piece,)
    with pytest.raises(RecordError, match=f"{RUN}.*damaged.*--rescore"):
        published_records(manifest_of([record]).updated(**change))
    damage: list[dict[str, Any]] = [
        {"reject_reasons": [{}]},
        {"score_ranges": {"s": ["0", "1"]}},
    ]
    for wrong in damage:
        units = [{**(manifest_of([record]).units or [])[0], **wrong}]
        with pytest.raises(RecordError, match=f"{RUN}.*damaged.*--rescore"):
            published_records(manifest_of([record]).updated(units=units))
    for key in ("files", "shards", "columns", "units"):
        with pytest.raises(RecordError, match=f"{RUN}.*damaged.*{key}.*--rescore"):
            published_records(manifest_of([record]).without(key))
