"""Shards of the input and the units of work that they are cut into."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from batchscore.storage.typed import plain

KeyValue = str | int | None

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What a `key=value` folder has in the place of a null, in Hive, Spark, Arrow and here."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of the input; `keys` are its hive keys, `mark` changes when it does."""

    path: str
    size: int
    mark: str
    rows: int
    keys: tuple[tuple[str, KeyValue], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Contiguous or pruned row groups of one shard.

    Args:
        shard: Where they are.
        row_groups: Their indices, ascending.
        starts: Each row group's first row within the shard.
        sizes: Each row group's rows.
    """

    shard: Shard
    row_groups: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of all its row groups."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Unit:
    """What is scored, retried and reconciled as one: part of a large shard, or a pack of small."""

    id: str
    pieces: tuple[Piece, ...]

    @cached_property
    def rows(self) -> int:
        """Rows that the footers promise."""
        return sum(piece.rows for piece in self.pieces)

    def to_json(self) -> dict[str, Any]:
        """Returns the unit as JSON-able values."""
        facts: dict[str, Any] = plain(self)
        return facts

    @staticmethod
    def from_json(facts: dict[str, Any]) -> Unit:
        """Reverses `to_json`."""
        return Unit(facts["id"], tuple(piece_from_json(piece) for piece in facts["pieces"]))


def piece_from_json(facts: dict[str, Any]) -> Piece:
    """Reverses `plain` of a piece."""
    keys = tuple((name, value) for name, value in facts["shard"]["keys"])
    shard = Shard(**{**facts["shard"], "keys": keys})
    groups = (tuple(facts[name]) for name in ("row_groups", "starts", "sizes"))
    return Piece(shard, *groups)


def make_unit(pieces: tuple[Piece, ...], salt: str = "") -> Unit:
    """Names a unit after what it reads: paths, sizes, modification marks and row groups.

    With a salt the same pieces have another name, so that they can be scored once more.
    """
    facts: list[Any] = [
        [piece.shard.path, piece.shard.size, piece.shard.mark, piece.row_groups] for piece in pieces
    ]
    facts += [salt] if salt else []
    return Unit(hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16], pieces)


def pack_units(pieces: list[Piece], unit_rows: int) -> list[Unit]:
    """Cuts pieces into units of about `unit_rows` rows, never within a row group.

    A piece larger than a unit is split between its row groups; smaller ones are packed in order.
    """
    units: list[Unit] = []
    pack: list[Piece] = []
    rows = 0
    for piece in (part for whole in pieces for part in split_piece(whole, unit_rows)):
        if pack and rows + piece.rows > unit_rows:
            units.append(make_unit(tuple(pack)))
            pack, rows = [], 0
        pack.append(piece)
        rows += piece.rows
    return [*units, make_unit(tuple(pack))] if pack else units


def split_piece(piece: Piece, unit_rows: int) -> list[Piece]:
    """Splits a piece between row groups into parts of at most `unit_rows`, or one row group."""
    if piece.rows <= unit_rows:
        return [piece]
    cuts, rows = [0], 0
    for index, size in enumerate(piece.sizes):
        if rows and rows + size > unit_rows:
            cuts.append(index)
            rows = 0
        rows += size
    return [
        _slice_piece(piece, start, stop)
        for start, stop in zip(cuts, [*cuts[1:], len(piece.sizes)], strict=True)
    ]


def _slice_piece(piece: Piece, start: int, stop: int) -> Piece:
    return Piece(
        piece.shard, piece.row_groups[start:stop], piece.starts[start:stop], piece.sizes[start:stop]
    )
