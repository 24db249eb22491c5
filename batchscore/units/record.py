"""What one attempt at one unit wrote and counted, as it is kept and reconciled."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import one_line, reason
from batchscore.storage.reading import Digest
from batchscore.storage.typed import plain, require_version
from batchscore.units.tallies import Tally
from batchscore.units.unit import Piece, piece_from_json

_MOST_ROWS = 2**63
# A record without the key is of version 1: earlier commits refuse one that has other keys.
_VERSION = "batchscore_record"
_NEWEST = 1
# The kernels that a framework chooses itself: records leave them out, as earlier versions did.
_DEFAULT_KERNELS = "default"
# So are records of units that the CPU scored.
_DEFAULT_DEVICE = "cpu"


@dataclass(frozen=True)
class StagedFile:
    """A closed file: where it is staged, the partition it is of, rows, bytes and SHA-256."""

    staged: str
    partition: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class BadShard:
    """A shard that could not be read and was left out: its path, its rows in the unit, and why."""

    path: str
    rows: int
    reason: str


@dataclass(frozen=True)
class UnitRecord:
    """One attempt at one unit: what the ledger keeps of it.

    Args:
        unit: The unit's id.
        attempt: Names the attempt; the files of two attempts never share a name.
        run: The run that scored it, which need not be the one that publishes it.
        pieces: What the unit reads.
        read: Rows that were read from the shards' row groups.
        filtered: Of these, rows that the job's filter left out.
        scored: Rows written to `files`.
        rejected: Rows written to `rejects_file`.
        reject_reasons: Rejected rows by stage, error and message.
        rejects_file: Where the attempt left them, relative to the output, or None.
        files: Closed and staged.
        columns: Name and type of each column of the files, partition columns among them.
        seconds: Busy seconds by stage.
        bad_shards: Shards of the unit that were left out; their rows are not among `read`.
        rows_file: Which row of the unit each written row is, or None where nothing was written.
        keys_file: Sorted hashes of the key that must be unique, or None where none is wanted.
        keys_columns: The columns of that key.
        score_ranges: Smallest and largest number of each score column that holds numbers.
        sidecars: What `rejects_file`, `rows_file` and `keys_file` hold, by these names; empty in
            records that earlier versions made.
        tallies: What the checks of columns counted, by their keys.
        kernels: The kernels that the model computed with.
        device: The device that it computed on.
    """

    unit: str
    attempt: str
    run: str
    pieces: tuple[Piece, ...]
    read: int
    filtered: int
    scored: int
    rejected: int
    reject_reasons: dict[str, int]
    rejects_file: str | None
    files: tuple[StagedFile, ...]
    columns: tuple[tuple[str, str], ...]
    seconds: dict[str, float]
    bad_shards: tuple[BadShard, ...] = ()
    rows_file: str | None = None
    keys_file: str | None = None
    keys_columns: tuple[str, ...] = ()
    score_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    sidecars: dict[str, Digest] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    kernels: str = _DEFAULT_KERNELS
    device: str = _DEFAULT_DEVICE

    @property
    def planned(self) -> int:
        """Rows that the footers promise."""
        return sum(piece.rows for piece in self.pieces)

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON-able values."""
        facts = plain(self)
        facts["score_ranges"] = {name: [*ends] for name, ends in self.score_ranges.items()}
        facts["tallies"] = {key: each.to_json() for key, each in self.tallies.items()}
        if not self.tallies:  # earlier versions read the records of jobs without such checks
            del facts["tallies"]
        if self.kernels == _DEFAULT_KERNELS:
            del facts["kernels"]
        if self.device == _DEFAULT_DEVICE:
            del facts["device"]
        return {key: [*v] if isinstance(v, tuple) else v for key, v in facts.items()}

    @staticmethod
    def from_json(facts: dict[str, Any]) -> UnitRecord:
        """Reverses `to_json`; keys that it does not know are left out.

        Raises:
            VersionError: A newer batchscore wrote it.
            RecordError: The facts are not a record's.
        """
        try:
            if _VERSION in facts:
                require_version(facts, _VERSION, _NEWEST, "a unit's record")
            facts = {**_DEFAULTS, "sidecars": {}, "tallies": {}, **facts}
            facts = {name: facts[name] for name in _NAMES}
            files = tuple(StagedFile(**file) for file in facts["files"])
            columns = tuple((str(name), str(kind)) for name, kind in facts["columns"])
            typed = {
                "files": files,
                "columns": columns,
                "pieces": tuple(piece_from_json(piece) for piece in facts["pieces"]),
                "bad_shards": tuple(BadShard(**shard) for shard in facts["bad_shards"]),
                "keys_columns": tuple(facts["keys_columns"]),
                "score_ranges": {
                    k: (low, high) for k, (low, high) in facts["score_ranges"].items()
                },
                "sidecars": {k: Digest(**each) for k, each in facts["sidecars"].items()},
                "tallies": {str(k): Tally.from_json(t) for k, t in facts["tallies"].items()},
            }
            record = UnitRecord(**{**facts, **typed})
            check_record(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"a unit's record is damaged ({reason(error)})") from error
        return record


_KERNELS = re.compile("[a-z0-9_]{1,40}")
_DEFAULTS = {"kernels": _DEFAULT_KERNELS, "device": _DEFAULT_DEVICE}
_NAMES = tuple(each.name for each in fields(UnitRecord))
_TEXTS = ("unit", "attempt", "run", "device")
_PATHS = ("rejects_file", "rows_file", "keys_file")
_COUNTS = ("read", "filtered", "scored", "rejected")


def check_record(record: UnitRecord) -> None:
    """Raises ValueError where a value is not of its type, or a path leaves the output."""
    facts = vars(record)
    texts, counts = [facts[name] for name in _TEXTS], [facts[name] for name in _COUNTS]
    paths = [facts[name] for name in _PATHS if facts[name] is not None]
    for piece in record.pieces:
        shard = piece.shard
        texts += (shard.path, shard.mark)
        counts += (*piece.row_groups, *piece.starts, *piece.sizes, shard.rows, shard.size)
    for file in record.files:
        paths += (file.staged, file.partition)
        texts.append(file.sha256)
        counts += (file.rows, file.bytes)
    for digest in record.sidecars.values():
        texts.append(digest.sha256)
        counts.append(digest.bytes)
    if not isinstance(record.kernels, str) or not _KERNELS.fullmatch(record.kernels):
        raise ValueError(f"{one_line(repr(record.kernels))} names no kernels")
    texts += (*record.keys_columns, *record.reject_reasons)
    counts += record.reject_reasons.values()
    _require({str}, texts + paths, "text")
    _require({int, float}, [end for ends in record.score_ranges.values() for end in ends], "number")
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{one_line(repr(path))} leaves the output")
    for count in counts:
        if type(count) is not int or not 0 <= count < _MOST_ROWS:
            raise ValueError(f"{one_line(repr(count))} is not a count")


def _require(kinds: set[type], values: list[Any], word: str) -> None:
    """Raises ValueError where a value has none of some types; the usual case costs one call."""
    if not {*map(type, values)} <= kinds:
        wrong = next(value for value in values if type(value) not in kinds)
        raise ValueError(f"{one_line(repr(wrong))} is not a {word}")
