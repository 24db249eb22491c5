"""Test that no file, however broken, ends the reader in anything but rows or an error of its own.

Run as a script it reads each file of a folder, in a process that a test may lose.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from batchscore.errors import InputError, ShardError
from batchscore.plan.footers import keep_row_groups, read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import unify_schemas
from batchscore.stages import read
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import pack_units
from tests.parquet_faults import ROWS, break_file, make_encrypted_file, make_good_files

MANY_SECONDS = 120
SLOW_SECONDS = 10.0
MORE_MEMORY = 1 << 30
FILTERS = [[("i", ">=", 0)]]


@pytest.mark.slow
def test_a_broken_file_gives_rows_or_a_clear_error(tmp_path: Path) -> None:
    """Cut, flipped, mislabelled and lying files are read or refused, in bounded memory and time.

    So they are with a filter, for which statistics are read as well.
    """
    written = _write_files(tmp_path)
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, tmp_path],
        capture_output=True,
        text=True,
        timeout=MANY_SECONDS,
        env=environment,
    )
    lines = done.stdout.splitlines()
    last = lines[-1] if lines else "nothing"
    assert done.returncode == 0, f"lost over {last}: {done.stderr[-2000:]}"
    assert len(lines) == written
    assert [line for line in lines if not line.endswith((": rows", ": refused"))] == []
    counts = Counter(line.rpartition(": ")[2] for line in lines)
    assert counts["rows"] > 200
    assert counts["refused"] > 2000


def _write_files(folder: Path) -> int:
    """Writes all good and broken files; returns how often they are read."""
    files = {f"encrypted, {plain}": make_encrypted_file(plain) for plain in (True, False)}
    for seed, (kind, data) in enumerate(make_good_files().items()):
        files[f"{kind}, good"] = data
        files.update({f"{kind}, {how}": broken for how, broken in break_file(data, seed)})
    for name, data in {**files, "text": b"id,a\n1,2\n", "nothing": b""}.items():
        (folder / f"{name}.parquet").write_bytes(data)
    (folder / "folder.parquet").mkdir()
    return 2 * (len(files) + 3)


def test_good_files_are_read(tmp_path: Path) -> None:
    """The files that the broken ones are made from are sound."""
    for kind, data in make_good_files().items():
        path = tmp_path / f"{kind}.parquet"
        path.write_bytes(data)
        assert _count_rows(path, None) == {"none": 0, "huge": 2}.get(kind, ROWS)


def _count_rows(path: Path, filters: list[list[tuple[str, str, int]]] | None) -> int:
    footers = read_footers(find_shards([str(path)]), 0, filters).good
    schema = unify_schemas(footers, None)
    pieces = keep_row_groups(footers)
    known = filters if "i" in schema.names else None
    rows = 0
    for unit in pack_units(pieces, 1_000_000):
        *_, last = read_unit(unit, Source(schema, known, 64))
        assert last.end is not None
        rows += last.end.read
    assert rows == sum(piece.rows for piece in pieces)
    return rows


def _outcome(path: Path, filters: list[list[tuple[str, str, int]]] | None) -> str:
    start = time.process_time()
    try:
        _count_rows(path, filters)
        outcome = "rows"
    except (InputError, ShardError) as error:
        outcome = "refused" if path.name in str(error) else f"unnamed: {error!r}"
    except Exception as error:
        outcome = repr(error)
    seconds = time.process_time() - start
    return outcome if seconds < SLOW_SECONDS else f"{outcome} after {seconds:.0f} s"


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, used + MORE_MEMORY))


if __name__ == "__main__":
    read._RETRY_SECONDS = 0.0
    if Path("/proc/self/status").exists():
        _limit_memory()
    for each in sorted(Path(sys.argv[1]).iterdir()):
        for how, given in {"all": None, "filtered": FILTERS}.items():
            print(f"{each.name}, {how}", end=": ", flush=True)
            print(_outcome(each, given), flush=True)
