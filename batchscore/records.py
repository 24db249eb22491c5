"""What one attempt at one unit wrote and counted, as it is kept and reconciled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from batchscore.errors import RecordError


@dataclass(frozen=True)
class StagedFile:
    """A closed file: where it is staged, the partition it is of, rows, bytes and SHA-256."""

    staged: str
    partition: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class UnitRecord:
    """One attempt at one unit.

    Args:
        unit: the unit's id.
        attempt: names the attempt; the files of two attempts never share a name.
        read: rows that came out of the shards' row groups.
        filtered: of these, rows that the job's filter left out.
        scored: rows written to `files`.
        rejected: rows written to `rejects_file`.
        reject_reasons: rejected rows by stage, error and message.
        rejects_file: relative to the output, or None.
        files: closed and staged.
        columns: name and type of each column of the files, partition columns among them.
        seconds: busy seconds by stage.
    """

    unit: str
    attempt: str
    read: int
    filtered: int
    scored: int
    rejected: int
    reject_reasons: dict[str, int]
    rejects_file: str | None
    files: tuple[StagedFile, ...]
    columns: tuple[tuple[str, str], ...]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON-able values."""
        return asdict(self)

    @staticmethod
    def from_json(facts: dict[str, Any]) -> UnitRecord:
        """Reverses `to_json`; RecordError if the facts are not a record's."""
        try:
            files = tuple(StagedFile(**file) for file in facts["files"])
            columns = tuple((str(name), str(kind)) for name, kind in facts["columns"])
            return UnitRecord(**{**facts, "files": files, "columns": columns})
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"a unit's record is damaged ({error}); run again") from error
