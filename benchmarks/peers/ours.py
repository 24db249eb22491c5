"""batchscore among its peers: `bs.profile` and `bs.compare` with their defaults."""

from __future__ import annotations

from functools import reduce

import pyarrow as pa

import batchscore as bs
from batchscore.drift.findings import AspectDrift
from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile
from benchmarks.peers.harness import Peer, Said, cuts, fingerprint, main

SCORES = ("ks", "category")


def in_pieces(table: pa.Table, count: int) -> TableProfile:
    """Returns the merged profiles of the pieces."""

    def add(whole: TableProfile, piece: slice) -> TableProfile:
        whole.merge(bs.profile(table[piece]))
        return whole

    return reduce(add, cuts(table.num_rows, count), TableProfile())


def compare(reference: TableProfile, current: TableProfile) -> dict[str, Said]:
    """Returns the worst verdict of each column; the score is KS, of categories the largest change.

    The facts are the reference's whole profile of the column as it is stored, byte for byte.
    """
    said: dict[str, Said] = {}
    for aspect in bs.compare(reference, current).aspects:
        if aspect.aspect == "value":
            column = TableProfile({aspect.column: reference.columns[aspect.column]})
            facts = fingerprint((write_table(column, {}, extra=False), aspect.measures))
            said[aspect.column] = _said(aspect, facts)
    return said


def _said(aspect: AspectDrift, facts: str) -> Said:
    main_measure = next(each for each in aspect.measures if each.name in SCORES)
    flagged = aspect.verdict in ("warn", "fail")
    shown = aspect.measures[0] if flagged else main_measure
    words = f"{aspect.verdict} ({shown.name} {shown.value or 0:.3f})"
    return Said(flagged, main_measure.value or 0.0, words, facts)


if __name__ == "__main__":
    main(Peer("batchscore", lambda table: table, bs.profile, compare, in_pieces))
