"""What a manifest keeps of units and their files, and the records that it gives back."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest
from batchscore.units.record import StagedFile, UnitRecord, check_record
from batchscore.units.unit import Piece, Shard

# What only the run that scored a unit tells of it, or all units of a manifest share.
_LEFT_OUT = ("files", "seconds", "columns")


def final_path(file: StagedFile, run: str, unit: str) -> str:
    """Returns the immutable name under `data/` of a staged file; a published one keeps its own."""
    if is_published(file):
        return file.staged
    name = posixpath.basename(file.staged)
    return posixpath.join(layout.DATA, file.partition, f"{run}-{unit}-{name}")


def is_published(file: StagedFile) -> bool:
    """Tells whether a file is where readers look, and no longer staged."""
    return file.staged.startswith(f"{layout.DATA}/")


def encode_units(
    records: Sequence[UnitRecord], run: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns a manifest's `units`, `files`, and the shards that the units were read from."""
    shards: dict[Shard, int] = {}
    units = [_encode_unit(record, shards) for record in records]
    files = [
        {
            "path": final_path(file, run, record.unit),
            "partition": file.partition,
            "rows": file.rows,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "unit": record.unit,
        }
        for record in records
        for file in record.files
    ]
    return units, files, [encode_shard(shard) for shard in shards]


def encode_shard(shard: Shard) -> dict[str, Any]:
    """Returns a shard as a manifest has it."""
    facts: dict[str, Any] = {"path": shard.path, "size": shard.size, "mark": shard.mark}
    facts["rows"] = shard.rows
    return {**facts, "keys": [list(key) for key in shard.keys]} if shard.keys else facts


def _encode_unit(record: UnitRecord, shards: dict[Shard, int]) -> dict[str, Any]:
    facts = {key: value for key, value in record.to_json().items() if key not in _LEFT_OUT}
    facts["pieces"] = [
        [shards.setdefault(p.shard, len(shards)), list(p.row_groups), list(p.starts), list(p.sizes)]
        for p in record.pieces
    ]
    return {key: value for key, value in facts.items() if value not in (None, (), {}, [])}


def published_records(manifest: Manifest) -> dict[str, UnitRecord]:
    """Returns the records of a published run's units; their files lie where they were published.

    Raises:
        RecordError: The manifest is damaged.
    """
    try:
        manifest.require("files", "shards", "columns", "units")
        files = defaultdict[str, list[StagedFile]](list)
        for f in manifest.files:
            file = StagedFile(f["path"], f["partition"], f["rows"], f["bytes"], f["sha256"])
            files[f["unit"]].append(file)
        shards = [decode_shard(shard) for shard in manifest.shards]
        return {
            unit["unit"]: _decode_unit(unit, files[unit["unit"]], shards, manifest.columns)
            for unit in manifest.units or ()
        }
    except (RecordError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RecordError(
            f"manifest of run {manifest.run!r}: damaged ({reason(error)}); restore it from "
            "a copy, or score the slice again with --rescore"
        ) from error


def decode_shard(facts: Mapping[str, Any]) -> Shard:
    """Reverses `encode_shard`."""
    keys = tuple((str(name), value) for name, value in facts.get("keys", ()))
    return Shard(facts["path"], facts["size"], facts["mark"], facts["rows"], keys)


def _decode_unit(
    facts: Mapping[str, Any], files: list[StagedFile], shards: list[Shard], columns: Any
) -> UnitRecord:
    pieces = tuple(
        Piece(shards[index], tuple(groups), tuple(starts), tuple(sizes))
        for index, groups, starts, sizes in facts["pieces"]
    )
    left_out: dict[str, Any] = {"reject_reasons": {}, "rejects_file": None, "bad_shards": ()}
    left_out |= {"rows_file": None, "keys_file": None, "seconds": {}, "keys_columns": ()}
    rest: dict[str, Any] = {"score_ranges": {}, "sidecars": {}, "columns": columns if files else ()}
    record = UnitRecord.from_json({**left_out, **rest, **facts, "pieces": (), "files": ()})
    found = UnitRecord(**{**vars(record), "pieces": pieces, "files": tuple(files)})
    check_record(found)
    return found
