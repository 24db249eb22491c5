"""Test that records survive JSON and that damage to them is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from batchscore.errors import RecordError
from batchscore.storage.reading import Digest
from batchscore.units.record import BadShard, StagedFile, UnitRecord
from batchscore.units.unit import Piece, Shard

RECORD = UnitRecord(
    unit="u",
    attempt="u-1",
    run="r",
    pieces=(Piece(Shard("in/0.parquet", 100, "m", 15), (0, 1), (0, 10), (10, 5)),),
    read=10,
    filtered=2,
    scored=7,
    rejected=1,
    reject_reasons={"infer: NonFiniteScore: NaN": 1},
    rejects_file="staging/rejects.parquet",
    files=(StagedFile("staging/0.parquet", "month=9", 7, 100, "ab"),),
    columns=(("id", "int64"), ("score", "float")),
    seconds={"read": 0.5},
    bad_shards=(BadShard("in/1.parquet", 5, "cut off"),),
    rows_file="ledger/u-1.rows.parquet",
    keys_file="ledger/u-1.keys.parquet",
    keys_columns=("id",),
    score_ranges={"score": (0.25, 0.5)},
    sidecars={"rows_file": Digest(9, "cd"), "keys_file": Digest(8, "ef")},
)


def test_a_record_survives_json() -> None:
    """A record comes back equal from JSON text."""
    assert UnitRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": [{"staged": "x"}]},
        {"columns": [["one"]]},
        {"columns": 3},
        {"pieces": [{"shard": {}}]},
        {"score_ranges": {"score": 1}},
        {"score_ranges": 3},
        {"bad_shards": [{}]},
        {"sidecars": {"rows_file": {"bytes": 9}}},
    ],
    ids=str,
)
def test_damage_is_a_record_error(change: dict[str, Any]) -> None:
    """Facts of another form are a RecordError."""
    with pytest.raises(RecordError, match="record is damaged"):
        UnitRecord.from_json({**RECORD.to_json(), **change})


@pytest.mark.parametrize("key", sorted(set(RECORD.to_json()) - {"sidecars"}))
def test_each_missing_fact_is_a_record_error(key: str) -> None:
    """No fact of a record has a default that would hide its loss."""
    facts = RECORD.to_json()
    del facts[key]
    with pytest.raises(RecordError, match=key):
        UnitRecord.from_json(facts)


def test_a_record_of_an_earlier_version_knows_no_digests_of_its_sidecars() -> None:
    """Without the fact that earlier versions did not write, all others come back."""
    facts = RECORD.to_json()
    del facts["sidecars"]
    assert UnitRecord.from_json(facts) == replace(RECORD, sidecars={})
