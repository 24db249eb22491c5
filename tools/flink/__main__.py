"""Starts and ends a Flink cluster on this machine: `python -m tools.flink up`.

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tools.flink.cluster import TASK_MANAGERS, Cluster
from tools.flink.parts import MissingPartError, fetch

CACHE = Path(__file__).parents[2] / ".tools/flink"


def up(cluster: Cluster, task_managers: int) -> int:
    """Starts the cluster, unless it is up; prints what a job file needs."""
    if cluster.is_up():
        print("The cluster is up already.")
    else:
        fetch(CACHE)
        cluster.start(task_managers)
    print("A job file finds it by:\n\nruntime:\n  engine: flink\n  flink:")
    for key, value in cluster.section().items():
        print(f"    {key}: {value}")
    print(f"\nLogs: {cluster.folder}/logs. End it with: python -m tools.flink down")
    return 0


def down(cluster: Cluster) -> int:
    """Ends what `up` started."""
    members = cluster.members()
    cluster.stop()
    print(f"Ended {len(members)} processes." if members else "No cluster was started here.")
    return 0


def status(cluster: Cluster) -> int:
    """Prints each process, and returns 1 unless all live."""
    for member in cluster.members():
        state = "up" if member.process() else "ended"
        print(f"{member.name:16} {member.pid:>8}  {state:6} {member.log}")
    if not cluster.members():
        print("No cluster was started here: python -m tools.flink up")
    return 0 if cluster.is_up() else 1


def main() -> int:
    """Parses the arguments and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.flink", description=__doc__)
    parser.add_argument("command", choices=["fetch", "up", "down", "status"])
    parser.add_argument("--folder", type=Path, default=CACHE / "cluster", help="of logs and state")
    parser.add_argument("--task-managers", type=int, default=TASK_MANAGERS, metavar="N")
    asked = parser.parse_args()
    cluster = Cluster(CACHE, asked.folder.resolve())
    # As an exception, the signal leaves through what ends half a cluster.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if asked.command == "up":
            return up(cluster, asked.task_managers)
        if asked.command == "fetch":
            fetch(CACHE)
            return 0
        return down(cluster) if asked.command == "down" else status(cluster)
    except (MissingPartError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
