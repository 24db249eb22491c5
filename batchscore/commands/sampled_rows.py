"""Some rows of Parquet data, spread over all of it, in memory that the sample bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from batchscore.commands.profile import check_address
from batchscore.errors import InputError
from batchscore.messages.terms import Terms
from batchscore.messages.wording import one_line
from batchscore.plan.footers import (
    Footer,
    int96_unit,
    keep_row_groups,
    places_of,
    read_footers,
)
from batchscore.plan.listing import find_shards
from batchscore.plan.sample import spread
from batchscore.plan.schemas import check_plain, unify_schemas
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import Piece, make_unit, split_piece

_PARTS = 64
"""Row groups that give rows, at most, of data that have more than the sample."""

Choose = Callable[[Sequence[str]], Sequence[str]]


def read_spread_rows(address: str, what: str, most: int, choose: Choose) -> pa.Table:
    """Returns rows of a file, glob or folder of Parquet.

    Args:
        address: A path, or any fsspec address.
        what: What messages call the data.
        most: The most rows; of data that have more, row groups spread over all give their first.
        choose: Takes the names of the columns, returns those to read.

    Raises:
        InputError: The data are not there, cannot be read, or have no rows.
    """
    footers = _footers(address, what)
    names = [*choose(footers[0].schema.names)]
    schema = unify_schemas(footers, names, _terms(what))
    check_plain(footers, schema.names)
    parts = [*_read(footers, schema, most)]
    found = pa.Table.from_batches(parts, schema) if parts else schema.empty_table()
    if not len(found):
        raise InputError(f"{what} {one_line(address)}: has no rows; expected at least one")
    return found


def _terms(what: str) -> Terms:
    return Terms(data=what, columns="columns")


def _footers(address: str, what: str) -> list[Footer]:
    check_address(address)
    found = find_shards([address], allow_empty=True, terms=_terms(what))
    if not found:
        raise InputError(
            f"{what} {one_line(address)}: no file found; give the address of a Parquet file, a "
            "glob, or a folder of such files"
        )
    return read_footers(found, terms=_terms(what)).good


def _read(footers: Sequence[Footer], schema: pa.Schema, most: int) -> Iterator[pa.RecordBatch]:
    """Yields at most so many rows; of more, each of a few row groups gives its share."""
    groups = [group for piece in keep_row_groups(footers) for group in split_piece(piece, 1)]
    groups = [group for group in groups if group.rows]
    is_all = sum(group.rows for group in groups) <= most
    chosen, left = groups if is_all else [*spread(groups, _PARTS)], most
    for place, group in enumerate(chosen):
        share = group.rows if is_all else -(-left // (len(chosen) - place))
        for batch in _first(footers, group, schema, min(share, group.rows)):
            yield batch
            left -= batch.num_rows


def _first(
    footers: Sequence[Footer], group: Piece, schema: pa.Schema, rows: int
) -> Iterator[pa.RecordBatch]:
    source = Source(schema, None, rows, 1, int96_unit(footers, "ns"), places_of(footers))
    block = next(read_unit(make_unit((group,)), source), None)
    if block is not None and block.end is None:
        yield block.batch
