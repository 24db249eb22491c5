"""Runs a job on the direct runner and on Flink, where a TaskManager is killed, and compares.

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from batchscore.engines.local import WorkerPool
from batchscore.plan import work
from tests import factory
from tools.flink.cluster import Cluster, fetch

UNITS = 40
UNIT_ROWS = 500
TASK_MANAGERS = 2
KILL_AFTER = UNITS // 3
"""How many units are started when a TaskManager is killed."""

# A unit has fewer rows than a block, so that the function is called once a unit.
_FEATURES = """import time

import pyarrow as pa


def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
    with open({started!r}, "a") as started:
        print(batch.column("id")[0].as_py() // {unit_rows}, file=started)
    time.sleep({seconds})
    return batch
"""
_log = logging.getLogger("flink")


@dataclass(frozen=True)
class Outcome:
    """One published run: its rows, its profile's bytes, and how often each unit was started."""

    rows: Any
    profile: bytes
    started: Counter[int]


@dataclass(frozen=True)
class Trial:
    """A job in a folder of its own, whose function notes the units that it is called for."""

    folder: Path

    @property
    def _started(self) -> Path:
        return self.folder / "started.txt"

    def write_job(self, seconds: float) -> None:
        """Writes a job of as many shards as units, each of which takes so many seconds."""
        for unit in range(UNITS):
            rows = factory.make_rows(UNIT_ROWS, unit * UNIT_ROWS)
            factory.write_shard(self.folder / f"shards/{unit:02}.parquet", rows)
        changes = {
            "input.path": "shards",
            "preprocess": {"function": "features.py:slow"},
            "runtime": {"workers": TASK_MANAGERS},
        }
        factory.write_job(self.folder, changes)
        facts = {"started": str(self._started), "unit_rows": UNIT_ROWS, "seconds": seconds}
        (self.folder / "features.py").write_text(_FEATURES.format(**facts))

    def run(self, engine: str, flags: Sequence[str] = ()) -> Outcome:
        """Runs the job as the command line does; SystemExit if nothing was published."""
        self.forget()
        started = time.monotonic()
        output = self.folder / engine
        job = self.folder / "job.yaml"
        asked = ("--engine", engine, "--set", f"output.path={output}")
        manifest = factory.run_json("run", job, *asked, "--", *flags)
        _log.info("%s: %s in %.0f s", engine, manifest["status"], time.monotonic() - started)
        if manifest["status"] != "published":
            raise SystemExit(f"{engine}: {manifest.get('error', manifest['status'])}")
        profile = output / "_batchscore/runs" / manifest["run"] / "profile.parquet"
        return Outcome(factory.published(output), profile.read_bytes(), self.started())

    def forget(self) -> None:
        """Starts to count from zero."""
        self._started.write_text("")

    def started(self) -> Counter[int]:
        """Returns how often each unit was started in the last run."""
        return Counter(int(line) for line in self._started.read_text().splitlines())


@contextmanager
def losing_one(cluster: Cluster, trial: Trial) -> Iterator[None]:
    """Kills a TaskManager in the middle of what is done meanwhile, and starts another."""
    over = threading.Event()
    # What an earlier run began must not be taken for work of this one.
    trial.forget()

    def lose() -> None:
        while trial.started().total() < KILL_AFTER:
            if over.wait(0.1):
                return
        cluster.task_managers[0].send_signal(signal.SIGKILL)
        _log.info("flink: killed a TaskManager with -9; starting another")
        cluster.start_task_manager()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Returns what Flink did otherwise than it should."""
    wrong = []
    if not found.rows.equals(expected.rows):
        wrong.append("the published rows differ from the direct runner's")
    if found.profile != expected.profile:
        wrong.append("the profile differs from the direct runner's")
    # Both launchers also call the function on a sample, before they score anything.
    again = found.started - expected.started
    if again.total() > TASK_MANAGERS:
        wrong.append(f"more units were scored again than were in work: {dict(again)}")
    return wrong


def compare(cache: Path, folder: Path, seconds: float) -> list[str]:
    """Runs the job on both engines and returns what Flink did otherwise than it should."""
    trial = Trial(folder)
    trial.write_job(seconds)
    expected = trial.run("direct")
    with (
        Cluster(cache, folder / "cluster", TASK_MANAGERS) as cluster,
        WorkerPool(lambda reason: _log.info("pool: %s", reason)) as pool,
    ):
        _log.info("flink: %d TaskManagers are up", TASK_MANAGERS)
        with losing_one(cluster, trial):
            found = trial.run("flink", cluster.beam_options(pool.address))
        killed = cluster.task_managers[0].poll() == -signal.SIGKILL
    _log.info("flink: %d units were started %d times", UNITS, found.started.total())
    return differences(expected, found) + ([] if killed else ["no TaskManager was killed"])


def main() -> None:
    """Parses the arguments, and ends with code 1 where Flink did anything otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".tools/flink"), help="of downloads")
    parser.add_argument("--folder", type=Path, help="a new one for job, outputs and logs")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each unit takes")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    _log.setLevel(logging.INFO)
    # As an exception, the signal leaves through what stops the cluster.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    fetch(asked.cache.resolve())
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="batchscore-flink-"))
    _log.info("job, outputs and logs: %s", folder)
    with mock.patch.object(work, "UNIT_ROWS", UNIT_ROWS):
        found = compare(asked.cache.resolve(), folder.resolve(), asked.seconds)
    print("\n".join(found) or "the same rows and profile; no finished unit was scored again")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
