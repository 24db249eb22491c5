"""Test that units cover every row group once, within their size, under a name of what they read."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.units.unit import Piece, Shard, Unit, make_unit, pack_units, split_piece


def _piece(number: int, sizes: list[int], keep: list[bool]) -> Piece:
    kept = [index for index in range(len(sizes)) if keep[index]]
    starts = [sum(sizes[:index]) for index in kept]
    shard = Shard(f"{number}.parquet", 10, "m", sum(sizes), (("month", number), ("c", None)))
    return Piece(shard, tuple(kept), tuple(starts), tuple(sizes[index] for index in kept))


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """Shards with row groups of any sizes, some of them pruned."""
    layouts = draw(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), max_size=6))
    made = []
    for number, sizes in enumerate(layouts):
        keep = draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
        if any(keep):
            made.append(_piece(number, sizes, keep))
    return made


def _groups(piece: Piece) -> list[tuple[str, int, int, int]]:
    triples = zip(piece.row_groups, piece.starts, piece.sizes, strict=True)
    return [(piece.shard.path, *triple) for triple in triples]


@given(pieces(), st.integers(1, 120))
def test_units_cover_every_row_group_once_in_order(whole: list[Piece], unit_rows: int) -> None:
    """The row groups of all units, one after the other, are those of all pieces."""
    units = pack_units(whole, unit_rows)
    found = [group for unit in units for piece in unit.pieces for group in _groups(piece)]
    assert found == [group for piece in whole for group in _groups(piece)]
    assert sum(unit.rows for unit in units) == sum(piece.rows for piece in whole)


@given(pieces(), st.integers(1, 120))
def test_a_unit_above_the_limit_is_one_row_group(whole: list[Piece], unit_rows: int) -> None:
    """No unit is larger than the limit unless all its rows are of a single row group."""
    for unit in pack_units(whole, unit_rows):
        filled = [size for piece in unit.pieces for size in piece.sizes if size]
        assert unit.rows <= unit_rows or len(filled) == 1


@pytest.mark.slow
@given(pieces(), st.integers(1, 120))
def test_units_are_not_needlessly_small(whole: list[Piece], unit_rows: int) -> None:
    """Of a split shard's parts and packed shards, two neighbours never fit into one unit."""
    units = pack_units(whole, unit_rows)
    for first, second in itertools.pairwise(units):
        assert first.rows + second.pieces[0].rows > unit_rows


@pytest.mark.slow
@given(pieces(), st.integers(1, 120))
def test_ids_differ_and_come_from_what_is_read(whole: list[Piece], unit_rows: int) -> None:
    """Units of one plan have different ids, and the same pieces give the same ids again."""
    units = pack_units(whole, unit_rows)
    assert len({unit.id for unit in units}) == len(units)
    assert pack_units(list(whole), unit_rows) == units


def test_an_id_changes_with_path_size_mark_and_row_groups() -> None:
    """A shard that moved, grew, was rewritten or is read elsewhere makes another unit."""
    piece = _piece(1, [5, 6], [True, True])
    others = [replace(piece, shard=replace(piece.shard, path="2.parquet"))]
    others += [replace(piece, shard=replace(piece.shard, size=11))]
    others += [replace(piece, shard=replace(piece.shard, mark="n"))]
    others += [_piece(1, [5, 6], [False, True])]
    ids = {make_unit((each,)).id for each in [piece, *others]}
    assert len(ids) == 5


@pytest.mark.slow
@given(pieces(), st.integers(1, 120))
def test_units_survive_json(whole: list[Piece], unit_rows: int) -> None:
    """A unit comes back equal from JSON text, hive keys and nulls among them."""
    for unit in pack_units(whole, unit_rows):
        assert Unit.from_json(json.loads(json.dumps(unit.to_json()))) == unit


def test_a_piece_is_split_between_row_groups_only() -> None:
    """A large row group stays whole and the small ones around it are kept together."""
    piece = _piece(1, [3, 3, 50, 2, 2, 2], [True] * 6)
    assert [part.sizes for part in split_piece(piece, 6)] == [(3, 3), (50,), (2, 2, 2)]
