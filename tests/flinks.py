"""The Flink cluster that all test processes share, and jobs that take their time on it."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from batchscore.drift.profile_file import read_record
from tests import factory
from tools.flink.cluster import TASK_MANAGERS, Cluster
from tools.flink.parts import is_fetched

CACHE = Path(__file__).parents[1] / ".tools/flink"
UNIT_ROWS = 500
# A unit has fewer rows than a block, so that the function is called once for it.
_FEATURES = """import os
import time

import pyarrow as pa


def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
    line = f"{{batch.column('id')[0].as_py() // {unit_rows}}} {{os.getpid()}}\\n"
    with open({started!r}, "a") as started:
        started.write(line)
    time.sleep({seconds})
    while held():
        time.sleep(0.05)
    return batch


def held() -> bool:
    try:
        with open({gate!r}) as gate:
            return gate.read() != str(os.getpid())
    except FileNotFoundError:
        return False
"""


@contextmanager
def sharing(folder: Path) -> Iterator[Cluster]:
    """Yields the cluster of a folder; the last of the test processes that share it ends it.

    Skips the test where Flink is not fetched, unless BATCHSCORE_REQUIRE is `all`.
    """
    if not is_fetched(CACHE):
        message = "Flink is not fetched: sh tools/install_flink.sh"
        if os.environ.get("BATCHSCORE_REQUIRE") == "all":
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir(exist_ok=True)
    cluster = Cluster(CACHE, folder)
    with (folder / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield cluster
        finally:
            if _is_last(users):
                cluster.stop()


@contextmanager
def taking_turns(cluster: Cluster) -> Iterator[Cluster]:
    """Starts the cluster unless it is up; no other test process uses it meanwhile."""
    with (cluster.folder / "turn.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not cluster.is_up():
            cluster.start()
        cluster.wait_for_slots(TASK_MANAGERS)
        yield cluster


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class SlowJob:
    """A job of many units, whose function notes the unit and the process that it is called in.

    Args:
        folder: Of the job.
        units: How many shards it has, each of which is a unit.
        output: Where its runs on Flink publish.
        launchers: Processes that start runs of it.
    """

    folder: Path
    units: int
    output: Path
    launchers: set[int] = field(default_factory=lambda: {os.getpid()})

    @property
    def path(self) -> Path:
        """Of the job file."""
        return self.folder / "job.yaml"

    @property
    def gate(self) -> Path:
        """A file that keeps all processes waiting, except for the one whose id it holds."""
        # Outside of its folder, from which a job may read only what it declares.
        return self.folder.with_suffix(".gate")

    def write(self, seconds: float) -> None:
        """Writes the job, each of whose units takes so many seconds."""
        for unit in range(self.units):
            rows = factory.make_rows(UNIT_ROWS, unit * UNIT_ROWS)
            factory.write_shard(self.folder / f"shards/{unit:02}.parquet", rows)
        changes = {
            "input.path": "shards",
            "preprocess": {"function": "features.py:slow"},
            "runtime": {"workers": 1},
        }
        factory.write_job(self.folder, changes)
        paths = {"started": str(self._started), "gate": str(self.gate)}
        facts = {**paths, "unit_rows": UNIT_ROWS, "seconds": seconds}
        (self.folder / "features.py").write_text(_FEATURES.format(**facts))

    def forget(self) -> None:
        """Forgets the calls until now."""
        self._started.write_text("")

    def calls(self) -> list[tuple[int, int]]:
        """Returns unit and process of each call."""
        lines = self._started.read_text().splitlines()
        return [(int(unit), int(pid)) for unit, pid in map(str.split, lines)]

    def starts(self) -> Counter[int]:
        """Returns how often workers started each unit; launchers only try the function."""
        return Counter(unit for unit, pid in self.calls() if pid not in self.launchers)

    @property
    def _started(self) -> Path:
        return self.folder / "started.txt"


def records(output: Path) -> dict[str, dict[str, Any]]:
    """Returns the records of finished units by id, without what differs between attempts."""
    paths = (output / "_batchscore/ledger").glob("*/*/*.parquet")
    heads = [read_record(path.read_bytes()) for path in paths if "." not in path.stem]
    return {head["unit"]: _comparable(head) for head in heads}


def _comparable(head: dict[str, Any]) -> dict[str, Any]:
    own = ("attempt", "run", "seconds", "rows_file", "seal")
    facts = {name: value for name, value in head.items() if name not in own}
    facts["files"] = [
        {name: value for name, value in file.items() if name != "staged"} for file in head["files"]
    ]
    return facts
