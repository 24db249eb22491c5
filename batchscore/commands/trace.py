"""From published and rejected rows back to their source, run and model: what `trace` does."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from batchscore.columnar.arrays import python_rows
from batchscore.errors import InvalidError, RecordError
from batchscore.messages.wording import nearest, one_line
from batchscore.runs import layout
from batchscore.runs.history import published_manifest, read_raw
from batchscore.runs.lineage import find_source_rows
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_units import published_records
from batchscore.runs.row_search import FoundRows, cast_text, find_rows, parse_value, read_kinds
from batchscore.stages.block import locate_rows
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord
from batchscore.units.unit import HIVE_NULL, Unit

SHOWN = 100
_THREADS = 8
_REJECT_COLUMNS = ("_shard", "_row", "_stage", "_error", "_message")
_DETAIL = "_detail"  # the next column, in outputs that earlier versions did not write
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")

Wanted = Mapping[str, pa.Scalar]


@dataclass(frozen=True)
class Match:
    """One row that has the values asked for; rows are counted from 0.

    Args:
        status: `scored` or `rejected`.
        slice: The job with its parameters.
        unit: The unit of work that the row was part of.
        shard: The source file that it came from.
        shard_row: Its row in it.
        file: Address of the published file, or of the rejects file.
        file_row: Its row in that.
        values: Its columns, those that live in the path among them.
        reject: Stage, error, message and, where there is one, detail of a rejected row, else None.
        scored_by: The run that scored or rejected it.
        published_by: The run that published it; None for a rejected row.
        published_at: When it did so, in UTC, if its manifest is still there.
        released_by: The person who released that run; None if no check had held it.
        model: Name, version and identity of the model.
        job_sha256: Hash of the job file that it was scored by.
    """

    status: str
    slice: str
    unit: str
    shard: str
    shard_row: int
    file: str
    file_row: int
    values: dict[str, Any]
    reject: dict[str, str] | None
    scored_by: str
    published_by: str | None
    published_at: str | None
    released_by: str | None
    model: dict[str, str]
    job_sha256: str


@dataclass(frozen=True)
class Traced:
    """What `trace` found.

    Args:
        matches: The rows found, at most 100.
        more: Whether there are more.
        published_rows: Published rows that were looked through.
        rejected_rows: Rejected rows that were looked through.
        filtered_rows: Rows that the filter left out, which an output does not hold.
    """

    matches: tuple[Match, ...]
    more: bool
    published_rows: int
    rejected_rows: int
    filtered_rows: int = 0

    @property
    def exit_code(self) -> int:
        """0 where a row was found, else 1."""
        return 0 if self.matches else 1

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-able values."""
        status = "ok" if self.matches else "not_found"
        return {"status": status, "exit_code": self.exit_code, **_plain(asdict(self))}


def _plain(value: Any) -> Any:
    """Returns what JSON has no form for, such as a date or NaN, as its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@dataclass(frozen=True)
class _File:
    """A published file, or a unit's rejects."""

    path: str
    partition: str
    record: UnitRecord


@dataclass(frozen=True)
class _Table:
    """Files of one slice whose rows have the same columns: those published, or its rejects."""

    manifest: Manifest
    rejected: bool
    kinds: Mapping[str, pa.DataType]
    files: tuple[_File, ...]


_Hit = tuple[_Table, _File, FoundRows]
_Place = tuple[_Table, _File, Wanted]
_ReadRun = Callable[[str], Manifest | None]


def trace_rows(store: Store, slice_: str | None, conditions: Sequence[str]) -> Traced:
    """Finds the published and the rejected rows with some values, and where they came from.

    Nothing of the source is read.

    Args:
        store: The output.
        slice_: The slice to look through, or None for all.
        conditions: `COLUMN=VALUE`; a row has to have all of them.

    Raises:
        InvalidError: Nothing is published, a column is unknown, or a value is not of its column's
            type.
        RecordError: A manifest, file or rows file is missing or damaged.
    """
    texts = _read_conditions(conditions)
    opened = [_open(each) for each in _published(store, slice_)]
    tables = [table for each in opened for table in _tables(store, *each)]
    hits = _search(store, _questions(tables, texts), SHOWN + 1)
    read_run = cache(partial(_read_run, store))
    matches = [match for hit in hits for match in _describe(store, read_run, hit)]
    rows = [manifest.rows for manifest, _ in opened]
    return Traced(
        tuple(matches[:SHOWN]),
        len(matches) > SHOWN,
        sum(each.scored for each in rows),
        sum(each.rejected for each in rows),
        sum(each.filtered for each in rows),
    )


def _read_conditions(conditions: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for condition in conditions:
        column, equals, text = condition.partition("=")
        if not equals:
            raise InvalidError(f"{one_line(condition)}: expected COLUMN=VALUE, such as id=7")
        if column in texts:
            raise InvalidError(
                f"{one_line(condition)}: column {column!r} is given twice; give it once"
            )
        texts[column] = text
    return texts


def _published(store: Store, slice_: str | None) -> list[Manifest]:
    names = [slice_] if slice_ else store.names(f"{layout.HOME}/slices")
    found = [published_manifest(store, name) for name in names]
    manifests = [manifest for manifest in found if manifest is not None]
    if not manifests:
        what = f"slice {slice_!r} of {store.address}" if slice_ else store.address
        raise InvalidError(f"{what}: nothing is published yet; run the job first")
    return manifests


def _open(manifest: Manifest) -> tuple[Manifest, list[UnitRecord]]:
    """Returns a published run's manifest, and the records of its units."""
    return manifest, [*published_records(manifest).values()]


def _tables(store: Store, manifest: Manifest, records: list[UnitRecord]) -> Iterator[_Table]:
    """Yields a slice's published files, and its rejects, where there are any."""
    scored = tuple(_File(f.staged, f.partition, r) for r in records for f in r.files)
    rejects = tuple(_File(r.rejects_file, "", r) for r in records if r.rejects_file)
    if scored:
        kinds = read_kinds(store, scored[0].path)
        in_path = {
            name: _kind_named(name, text) for name, text in manifest.columns if name not in kinds
        }
        yield _Table(manifest, False, {**kinds, **in_path}, scored)
    if rejects:
        kinds = {_DETAIL: pa.string(), **read_kinds(store, rejects[0].path)}
        yield _Table(manifest, True, kinds, rejects)


def _kind_named(column: str, text: str) -> pa.DataType:
    """Returns the type of a column that lives in the path, as a manifest names it."""
    zoned = _ZONED.fullmatch(text)
    try:
        return pa.timestamp(zoned[1], zoned[2]) if zoned else pa.type_for_alias(text)
    except ValueError as error:
        raise RecordError(
            f"column {column!r}: the manifest gives it the type {text}, which a column of folder "
            "names cannot have; restore the manifest from a copy"
        ) from error


def _questions(tables: Sequence[_Table], texts: Mapping[str, str]) -> list[tuple[_Table, Wanted]]:
    """Returns the tables that have the columns, with the values as these have them."""
    known = {name for table in tables for name in table.kinds}
    for column in texts:
        if column not in known:
            raise InvalidError(
                f"column {one_line(column)!r}: no row has this column; {nearest(column, known)}"
            )
    questions, errors = list[tuple[_Table, Wanted]](), list[InvalidError]()
    for table in tables:
        if texts.keys() <= table.kinds.keys():
            try:
                wanted = {c: parse_value(c, text, table.kinds[c]) for c, text in texts.items()}
                questions.append((table, wanted))
            except InvalidError as error:
                errors.append(error)
    if errors and not questions:
        raise errors[0]
    return questions


def _search(store: Store, questions: Sequence[tuple[_Table, Wanted]], limit: int) -> Iterator[_Hit]:
    """Yields what is found, at most `limit` rows, in the order of tables, files and rows."""
    places = [
        (table, file, inside)
        for table, wanted in questions
        for file in table.files
        if (inside := _within(table, file, wanted)) is not None
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(places), _THREADS):
            some = places[start : start + _THREADS]
            found = pool.map(partial(_find, store, limit), some)
            for (table, file, _), rows in zip(some, found, strict=True):
                kept = FoundRows(rows.positions_n[:limit], rows.rows[:limit])
                limit -= len(kept.positions_n)
                if len(kept.positions_n):
                    yield table, file, kept
            if not limit:
                return


def _find(store: Store, limit: int, place: _Place) -> FoundRows:
    table, file, wanted = place
    return find_rows(store, file.path, wanted, limit, (_DETAIL,) if table.rejected else ())


def _within(table: _Table, file: _File, wanted: Wanted) -> Wanted | None:
    """Returns what is wanted of a file's own columns, or None if its path says otherwise."""
    fixed = _path_values(table, file)
    if any(not fixed[name].equals(value) for name, value in wanted.items() if name in fixed):
        return None
    return {name: value for name, value in wanted.items() if name not in fixed}


def _path_values(table: _Table, file: _File) -> dict[str, pa.Scalar]:
    """Returns the columns that live in a file's path."""
    pairs = [part.partition("=") for part in file.partition.split("/") if part]
    return {unquote(key): _path_value(table, unquote(key), text) for key, _, text in pairs}


def _path_value(table: _Table, column: str, text: str) -> pa.Scalar:
    try:
        kind = table.kinds[column]
        return pa.scalar(None, kind) if text == HIVE_NULL else cast_text(unquote(text), kind)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise RecordError(
            f"manifest of run {table.manifest.run}: partition {column}={text} does not fit its "
            "columns; restore it from a copy"
        ) from error


def _describe(store: Store, read_run: _ReadRun, hit: _Hit) -> Iterator[Match]:
    """Yields the rows found in one file with all that is known of them."""
    table, file, found = hit
    origin = _origin(store, read_run, table, file)
    shards, rows = _sources(store, hit)
    values, rejects = _split_values(table, file, found)
    for shard, row, at, value, reject in zip(
        shards, rows, found.positions_n.tolist(), values, rejects, strict=True
    ):
        yield Match(shard=shard, shard_row=row, file_row=at, values=value, reject=reject, **origin)


def _sources(store: Store, hit: _Hit) -> tuple[list[str], list[int]]:
    """Returns the shard of each row found, and the row in it."""
    table, file, found = hit
    if table.rejected:
        return found.rows["_shard"].to_pylist(), found.rows["_row"].to_pylist()
    rows_n = find_source_rows(store, file.record, file.path, found.positions_n)
    shards, row_n = locate_rows(Unit(file.record.unit, file.record.pieces), rows_n)
    return shards.to_pylist(), row_n.to_pylist()


def _split_values(
    table: _Table, file: _File, found: FoundRows
) -> tuple[list[dict[str, Any]], list[dict[str, str] | None]]:
    """Returns each row's own columns, and why it was rejected or None."""
    if not table.rejected:
        fixed = {name: value.as_py() for name, value in _path_values(table, file).items()}
        rows = [{**row, **fixed} for row in python_rows(found.rows)]
        return rows, [None] * len(rows)
    known = len(_REJECT_COLUMNS) + (found.rows.column_names[5:6] == [_DETAIL])
    names = found.rows.column_names[:known]
    reasons = found.rows.select(names[2:]).rename_columns([name[1:] for name in names[2:]])
    rejects = [{k: v for k, v in each.items() if v is not None} for each in python_rows(reasons)]
    return python_rows(found.rows.drop_columns(names)), [*rejects]


def _origin(store: Store, read_run: _ReadRun, table: _Table, file: _File) -> dict[str, Any]:
    """Returns what all rows of one file share."""
    record, name = file.record, posixpath.basename(file.path)
    # The run that a published name begins with put the file there.
    run = None if table.rejected else name.partition(f"-{record.unit}-")[0]
    published = read_run(run) if run else None
    scored = read_run(record.run) or table.manifest
    return {
        "status": "rejected" if table.rejected else "scored",
        "slice": table.manifest.slice,
        "unit": record.unit,
        "file": store.url(file.path),
        "scored_by": record.run,
        "published_by": run,
        "published_at": published.public_since if published else None,
        "released_by": published.releaser if published else None,
        "model": {key: getattr(scored.model, key) for key in ("name", "version", "identity")},
        "job_sha256": scored.job_sha256,
    }


def _read_run(store: Store, run: str) -> Manifest | None:
    """Returns a run's manifest, or None where it is gone or damaged."""
    with suppress(InvalidError, RecordError):
        return read_raw(store, run)
    return None
