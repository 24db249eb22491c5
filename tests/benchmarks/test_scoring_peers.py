from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.commands import PeerError, run
from benchmarks.scorers.harness import KEY, SCORE
from benchmarks.scorers.work import WORKS, known_scores, write_work
from benchmarks.scoring_peers import PEERS, check, take_turn

pytestmark = pytest.mark.slow

ROWS = 100
KNOWN_R = np.linspace(0, 1, ROWS, dtype=np.float32)
RIGHT = pa.table({KEY: np.arange(ROWS), SCORE: KNOWN_R})


def checked(folder: Path, *tables: pa.Table) -> None:
    files = [folder / f"{number}.parquet" for number in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, file)
    check(files, KNOWN_R, {KEY, SCORE})


def test_rows_may_be_in_any_order_and_file(tmp_path: Path) -> None:
    """A peer that wrote every row once is right, whatever the order and the files."""
    checked(tmp_path, RIGHT[60:], RIGHT[:60])


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([RIGHT[1:]], "99 rows"),
        ([RIGHT[:50], RIGHT[49:]], "101 rows"),
        ([RIGHT[1:], RIGHT[1:2]], "100 rows"),
        ([RIGHT.drop_columns([SCORE])], "no column"),
        ([RIGHT.set_column(1, SCORE, pa.array(KNOWN_R + np.float32(2e-5)))], "off by 2e-05"),
        ([RIGHT.set_column(1, SCORE, pa.array(KNOWN_R * np.nan))], "off by nan"),
    ],
)
def test_wrong_output_is_named(tmp_path: Path, tables: list[pa.Table], words: str) -> None:
    """A peer that lost, doubled or mistook a row, or left out a column, has no result."""
    with pytest.raises(PeerError, match=words):
        checked(tmp_path, *tables)


@pytest.mark.parametrize("name", ["mlp", "onnx", "trees", "lightgbm"])
def test_a_peer_is_run_and_counted(name: str, tmp_path: Path) -> None:
    """A turn tells what the process took, checks its scores, and leaves nothing behind."""
    work = next(each for each in WORKS if each.name == name)
    work = replace(work, rows=3_000, shard_rows=1_000)
    write_work(tmp_path, work)
    peer = next(each for each in PEERS if each.name == "hand")
    turn = take_turn(peer, work, tmp_path, known_scores(tmp_path, work), sampled=True)
    assert 0 < turn.scoring_s < turn.process_s
    assert turn.cpu_s > turn.scoring_s / 10
    assert turn.peak > 50 << 20
    assert turn.written > 3_000 * 32 * 4
    assert not (tmp_path / "target").exists()


def test_cpu_of_what_a_command_leaves_running_is_counted() -> None:
    """Processes that outlive a command are ended, and their CPU-seconds are its own."""
    done = run(["sh", "-c", "timeout 20 sh -c 'while :; do :; done' & sleep 0.4"])
    assert done.seconds < 10
    assert done.cpu_s > 0.1


def test_cpu_of_what_nobody_waits_for_is_counted() -> None:
    """Processes whose parent lets the system collect them are counted as they were last seen."""
    script = "import signal, subprocess, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    script += "subprocess.Popen(['timeout', '3', 'sh', '-c', 'while :; do :; done']); time.sleep(4)"
    assert run([sys.executable, "-c", script]).cpu_s > 0.5
