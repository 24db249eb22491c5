"""What every peer is asked: two tables in memory to drift scores, timed, and split otherwise.

Runs in the peers' environments, so that it needs no more than Python, NumPy and Arrow.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PIECES = 10
PAIRS = 10
PAIR_ROWS = 500
WARM_ROWS = 2_000


@dataclass(frozen=True)
class Said:
    """What a peer says of one column.

    Args:
        flagged: Whether it calls the column drifted.
        score: The drift score, in the peer's own unit.
        words: The verdict for people.
        facts: Fingerprint of the other statistics that its two profiles report.
    """

    flagged: bool
    score: float
    words: str
    facts: str = ""


@dataclass(frozen=True)
class Peer:
    """How a library is used; tables are of what `convert` returns.

    Args:
        package: The package whose version is shown.
        convert: Takes an Arrow table to what the library works on; not timed.
        profile: Profiles a table.
        compare: Takes the profiles of reference and current to findings by column.
        in_pieces: Profiles a table in so many pieces, merged; None: profiles cannot be merged.
    """

    package: str
    convert: Callable[[pa.Table], Any]
    profile: Callable[[Any], Any]
    compare: Callable[[Any, Any], dict[str, Said]]
    in_pieces: Callable[[Any, int], Any] | None


def main(peer: Peer) -> None:
    """Judges, or answers, as the arguments ask; the result is written as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["judge", "answer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--one-core", action="store_true")
    given = parser.parse_args()
    if given.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = (judge if given.task == "judge" else answer)(peer, given.folder)
    given.result.write_text(json.dumps(found))


def judge(peer: Peer, folder: Path) -> dict[str, Any]:
    """Profiles and compares reference and current, timed; a few rows come first, for imports."""
    tables = [_table(folder, name) for name in ("reference", "current")]
    _judged(peer, *(table[:WARM_ROWS] for table in tables))
    before, now = map(peer.convert, tables)
    held = _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    profiles = peer.profile(before), peer.profile(now)
    profiled = time.perf_counter()
    said = peer.compare(*profiles)
    end = time.perf_counter()
    return {
        "version": version(peer.package),
        "seconds": end - wall,
        "compare_s": end - profiled,
        "cpu_s": time.process_time() - cpu,
        "added": _status("VmHWM") - held,
        "said": _json(said),
    }


def answer(peer: Peer, folder: Path) -> dict[str, Any]:
    """Tells what is said of the same rows split otherwise, and of tables and pairs of samples."""
    reference, current, same = (_table(folder, name) for name in ("reference", "current", "same"))
    order = np.random.default_rng(0).permutation(reference.num_rows)
    before, mixed = peer.convert(reference), peer.convert(reference.take(order))
    now = peer.profile(peer.convert(current))
    profile = peer.profile(before)
    return {
        "same": _json(peer.compare(profile, peer.profile(peer.convert(same)))),
        "whole": _json(peer.compare(profile, now)),
        "shuffled": _json(peer.compare(peer.profile(mixed), now)),
        "pieces": peer.in_pieces and _json(peer.compare(peer.in_pieces(before, PIECES), now)),
        "pairs_same": [_json(_judged(peer, *pair)) for pair in _pairs(reference, same)],
        "pairs_current": [_json(_judged(peer, *pair)) for pair in _pairs(reference, current)],
    }


def fingerprint(facts: Any) -> str:
    """Returns a short hash of what `repr` tells, which is every bit of a float."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def cuts(rows: int, count: int) -> Iterator[slice]:
    """Returns so many slices of about the same size."""
    edges = np.linspace(0, rows, count + 1).astype(int).tolist()
    return map(slice, edges[:-1], edges[1:])


def _judged(peer: Peer, before: pa.Table, now: pa.Table) -> dict[str, Said]:
    profiles = [peer.profile(peer.convert(table)) for table in (before, now)]
    return peer.compare(*profiles)


def _pairs(before: pa.Table, now: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    for first in range(0, PAIRS * PAIR_ROWS, PAIR_ROWS):
        yield before.slice(first, PAIR_ROWS), now.slice(first, PAIR_ROWS)


def _table(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


def _json(said: dict[str, Said]) -> dict[str, Any]:
    return {column: asdict(each) for column, each in said.items()}


def _forget_peak() -> int:
    """Resets the peak of memory; returns the bytes held."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
