"""Data of any origin to a profile, without a model: read ahead, and profiled."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from batchscore.arguments import checks_arguments
from batchscore.columnar.tables import as_batch, stream_of
from batchscore.drift.column import Hint, Kind, new_column
from batchscore.drift.table import TableProfile
from batchscore.errors import FailedError, InputError, Int96Error
from batchscore.messages.addresses import holds_credential, redacted_address
from batchscore.messages.terms import Terms
from batchscore.messages.wording import counted_were, nearest, reason
from batchscore.plan.auto import choose_batch_rows
from batchscore.plan.footers import Footer, int96_unit, keep_row_groups, places_of, read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import check_plain, unify_schemas
from batchscore.stages.ahead import read_ahead
from batchscore.stages.conform import conform
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import pack_units

Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
Data: TypeAlias = Any
"""Addresses of Parquet data (one, or several); a table of Arrow, pandas, or any library that hands
it over by the Arrow C stream interface; or a dict of arrays."""

_MEMORY_ROWS = 65_536
_UNIT_ROWS = 1_000_000
_BATCHES_AHEAD = 2
_FITTING: Mapping[Hint, tuple[Kind, ...]] = {
    "probability": ("probability", "labels"),
    "classes": ("classes",),
}
_EXPECTED = {
    "probability": "floats, or fixed-size lists of floats",
    "classes": "fixed-size lists of at most 100 floats",
}
# There is no job file here whose keys a message could name.
_TERMS = Terms(data="the data", columns="`columns`")


class Chunk(NamedTuple):
    """Some rows of a stretch of the data that is read as a whole.

    Args:
        sequence: Its place in the stretch; after a failure the stretch starts again with 0, and
            what came of it before counts for nothing.
        batch: The rows.
        last: Whether the stretch ends with it.
    """

    sequence: int
    batch: pa.RecordBatch
    last: bool


@dataclass(frozen=True)
class RowSource:
    """What is to be profiled.

    Args:
        schema: Schema of all batches, in plain types.
        parts: Read one after the other.
        shards: Files that they are read from.
        count: Rows that their footers promise; None where nobody knows beforehand.
        keys: Keys of hive folders, left out since they are the same in all files.
        in_microseconds: Opens the same rows with INT96 timestamps in microseconds, for values that
            nanoseconds do not hold; None where they are so already.
    """

    schema: pa.Schema
    parts: Generator[Chunk, None, None]
    shards: int = 0
    count: int | None = None
    keys: frozenset[str] = frozenset()
    in_microseconds: Callable[[], RowSource] | None = None


@dataclass(frozen=True)
class Profiled:
    """What profiling came to.

    Args:
        profile: Profile of all rows.
        shards: Files that were read.
        seconds: Seconds from the first look at the data to the merged profile.
    """

    profile: TableProfile
    shards: int
    seconds: float

    @property
    def values(self) -> int:
        """Rows of all columns."""
        return sum(column.count for column in self.profile.columns.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the profile's summary and what it took, as JSON-able values."""
        return {
            "rows": self.profile.rows,
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "profile": self.profile.summary(),
        }


@checks_arguments
def profile(
    data: Data,
    *,
    columns: Collection[str] | None = None,
    probabilities: Collection[str] = (),
    classes: Collection[str] = (),
) -> TableProfile:
    """Returns the profile of a table. The same rows give the same profile, in any split or order.

    Args:
        data: An address of Parquet data (a file, glob or folder; any fsspec address), or several
            addresses; a table of Arrow, pandas, Polars, or another library that speaks Arrow; or a
            dict of NumPy arrays.
        columns: The columns to profile. None means all, except keys of hive folders that have the
            same value in all files.
        probabilities: Columns of floats from 0 to 1. They are resolved as finely near 1 as near 0.
        classes: Columns of fixed-size lists of class scores that add up to 1.

    Raises:
        InputError: The data or a column do not exist, or do not fit.
        ShardError: A file cannot be read to its end.

    Examples:
        >>> import batchscore as bs
        >>> reference = bs.profile("data/samples/flights/month=1", columns=["carrier", "distance"])
        >>> reference.rows
        27004
        >>> reference.columns["distance"].nulls
        0
    """
    wanted = None if columns is None else [*columns]
    return profile_data(data, wanted, [*probabilities], [*classes]).profile


def profile_data(
    data: Data,
    columns: Sequence[str] | None,
    probabilities: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Profiled:
    """Profiles a table and says what it took; see `profile`."""
    start = time.perf_counter()
    rows = open_rows(data, partial(_named, columns))
    hints = _hints(rows.schema, probabilities, classes)
    found = profile_rows(rows, hints)
    return Profiled(found, rows.shards, time.perf_counter() - start)


def open_rows(data: Data, choose: Choose) -> RowSource:
    """Returns a table's rows, to be read.

    Args:
        data: As in `profile`.
        choose: Takes the names of the columns there are, returns those to read.

    Raises:
        InputError: The data are not there or do not fit.
    """
    if isinstance(data, str | os.PathLike):
        data = [data]
    if isinstance(data, Sequence) and all(isinstance(each, str | os.PathLike) for each in data):
        return _stored_rows([os.fspath(each) for each in data], choose)
    schema, batches = _batches(data)
    names = [*choose(schema.names)]
    _check_distinct(schema.names)
    schema = pa.schema([pa.field(name, _plain_type(schema.field(name).type)) for name in names])
    conformed = (conform(batch, schema, {}) for batch in _cut(batches))
    return RowSource(schema, _parts(schema, conformed))


def profile_rows(rows: RowSource, hints: Mapping[str, Hint]) -> TableProfile:
    """Returns the profile of rows, which are read ahead on a thread while others are profiled.

    Raises:
        FailedError: Not as many rows came as the footers promise.
    """
    try:
        return _profile_once(rows, hints)
    except Int96Error:
        if rows.in_microseconds is None:
            raise
        return _profile_once(rows.in_microseconds(), hints)


def _profile_once(rows: RowSource, hints: Mapping[str, Hint]) -> TableProfile:
    found, stretch = TableProfile(hints=hints), TableProfile(hints=hints)
    found.update(_empty(rows.schema))
    count = 0
    with closing(read_ahead(rows.parts, _BATCHES_AHEAD)) as parts:
        for part in parts:
            stretch = TableProfile(hints=hints) if part.sequence == 0 else stretch
            if part.batch.num_rows:
                stretch.update(part.batch)
            if part.last:
                found.merge(stretch)
                count += stretch.rows
    if rows.count not in (None, count) and rows.schema.names:
        raise FailedError(
            f"{counted_were(count, 'row')} read, but the footers count {rows.count:,}"
        )
    return found


def _named(columns: Sequence[str] | None, names: Sequence[str]) -> Sequence[str]:
    _check_names(columns or (), names)
    return names if columns is None else tuple(dict.fromkeys(columns))


def _stored_rows(addresses: Sequence[str], choose: Choose, int96: str = "ns") -> RowSource:
    for address in addresses:
        check_address(address)
    footers = read_footers(_find(addresses), int96=int96, terms=_TERMS).good
    names = footers[0].schema.names
    wanted = choose(names)
    every = [*wanted] == names
    schema = unify_schemas(footers, None if every else wanted, _TERMS)
    check_plain(footers, schema.names)
    left_out = _constant_keys(footers) if every else set()
    schema = pa.schema([field for field in schema if field.name not in left_out])
    count = sum(footer.shard.rows for footer in footers)
    parts = _read(footers, schema, int96_unit(footers, int96))
    wider = partial(_stored_rows, addresses, choose, "us") if int96 == "ns" else None
    return RowSource(schema, parts, len(footers), count, frozenset(left_out), wider)


def check_address(address: str) -> None:
    """Raises InputError for an address of data that is empty, or holds what may be a credential."""
    if not address:
        raise InputError("the data: an empty address; give that of a Parquet file or folder")
    if holds_credential(address):
        raise InputError(
            f"{redacted_address(address)}: may hold a credential; give it in the environment, or "
            "in fsspec's own configuration files"
        )


def _constant_keys(footers: Sequence[Footer]) -> set[str]:
    """Returns the keys of hive folders that say where all the data lie, and nothing of a row."""
    values: dict[str, set[Any]] = {}
    for footer in footers:
        for name, value in footer.shard.keys:
            values.setdefault(name, set()).add(value)
    return {name for name, found in values.items() if len(found) == 1}


def _find(addresses: Sequence[str]) -> Any:
    found = find_shards(addresses, allow_empty=True, terms=_TERMS)
    if not found:
        raise InputError(
            f"the data {', '.join(addresses) or '(no address)'}: no file found; give the address "
            "of a Parquet file, a glob, or a folder of such files"
        )
    return found


def _parts(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Generator[Chunk, None, None]:
    sequence = -1
    for sequence, batch in enumerate(batches):
        yield Chunk(sequence, batch, last=False)
    yield Chunk(sequence + 1, _empty(schema), last=True)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    nothing = [pa.nulls(0, field.type) for field in schema]
    return pa.RecordBatch.from_arrays(nothing, schema=schema)


def _read(
    footers: Sequence[Footer], schema: pa.Schema, int96: str | None
) -> Generator[Chunk, None, None]:
    batch_rows, _ = choose_batch_rows("auto", footers, schema)
    places = places_of(footers)
    source = Source(schema, None, batch_rows, pa.cpu_count(), int96, places, _TERMS)
    for unit in pack_units(keep_row_groups(footers), _UNIT_ROWS):
        for block in read_unit(unit, source):
            yield Chunk(block.sequence, block.batch, block.end is not None)


def _batches(data: Any) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Returns the schema and the batches of a table in memory, or of a stream."""
    pandas = sys.modules.get("pandas")
    try:
        if pandas is not None and isinstance(data, pandas.DataFrame):
            data = pa.Table.from_pandas(data, preserve_index=False)
        if isinstance(data, Mapping):
            data = as_batch(data, "data")
        if isinstance(data, pa.RecordBatch):
            return data.schema, [data]
        if isinstance(data, pa.Table):
            return data.schema, data.to_batches(max_chunksize=_MEMORY_ROWS)
        reader = stream_of(data)
    except (pa.ArrowException, TypeError) as error:
        raise InputError(
            f"data of type {type(data).__name__}: cannot be read as a table ({reason(error)}); "
            "give an address of Parquet data, a table of Arrow, pandas or Polars, or a dict of "
            "NumPy arrays"
        ) from error
    return reader.schema, reader


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, _MEMORY_ROWS):
                yield batch[start : start + _MEMORY_ROWS]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"the data cannot be read to their end ({reason(error)})") from error


def _plain_type(type_: pa.DataType) -> pa.DataType:
    """Returns a type that Arrow can compute with, in place of the views that Polars hands over."""
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(type_, type_)


def _hints(
    schema: pa.Schema, probabilities: Sequence[str], classes: Sequence[str]
) -> dict[str, Hint]:
    hints: dict[str, Hint] = dict.fromkeys(probabilities, "probability")
    hints |= dict.fromkeys(classes, "classes")
    _check_names(hints, schema.names)
    for name, hint in hints.items():
        type_ = schema.field(name).type
        if new_column(type_, hint).kind not in _FITTING[hint]:
            raise InputError(
                f"column {name!r} is {type_}, which cannot be profiled as {hint}; expected "
                f"{_EXPECTED[hint]}; leave it out, or store it as such"
            )
    return hints


def hints_of(known: TableProfile) -> dict[str, Hint]:
    """Returns by what hints a profile's columns were seen, for data to be seen the same way."""
    kinds = {kind: hint for hint, fitting in _FITTING.items() for kind in fitting}
    return {n: kinds[column.kind] for n, column in known.columns.items() if column.kind in kinds}


def _check_names(wanted: Iterable[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise InputError(f"column {name!r} is not in the data; {nearest(name, names)}")


def _check_distinct(names: Sequence[str]) -> None:
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"column {twice!r} appears twice; rename one")
