"""Stops a publication before every operation, lets another run take over, and wakes it up."""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tests.faults.sleepers import (
    SLEEPERS,
    TAKERS,
    World,
    copy_world,
    count_steps,
    interleave,
    make_world,
)
from tests.servers import STORES, ObjectStore, running


def main() -> int:
    """Runs all interleavings on disk and some on each store; 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.asleep", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="each n-th operation (default 1)")
    parser.add_argument("--store-every", type=int, default=5, help="on S3 and GCS (default 5)")
    asked = parser.parse_args()
    wrong = done = 0
    for where, found in [*_on_disk(asked.every), *_on_stores(asked.store_every)]:
        done += 1
        wrong += bool(found)
        if found:
            print(where, found, flush=True)
    print(f"{done} interleavings, {wrong} wrong")
    return int(wrong > 0)


def _on_disk(every: int) -> Iterator[tuple[str, list[str]]]:
    for sleeper in SLEEPERS:
        with tempfile.TemporaryDirectory(prefix="asleep-") as name:
            folder = Path(name)
            world = make_world(folder, str(folder / "before"), sleeper)
            steps = count_steps(copy_world(world, folder / "whole"), sleeper)
            for at in range(0, steps, every):
                for taker in TAKERS:
                    copy = copy_world(world, folder / f"{taker}{at}")
                    yield f"{sleeper} {taker} {at}", interleave(copy, sleeper, taker, at)


def _on_stores(every: int) -> Iterator[tuple[str, list[str]]]:
    for name in STORES:
        with running(name) as server, server.at():
            yield from _on_store(server, every)


def _on_store(server: ObjectStore, every: int) -> Iterator[tuple[str, list[str]]]:
    takers = cycle(TAKERS)
    for sleeper in SLEEPERS:
        steps = count_steps(_store_world(server, sleeper), sleeper)
        for at in range(0, steps, every):
            taker = next(takers)
            found = interleave(_store_world(server, sleeper), sleeper, taker, at)
            yield f"{sleeper} {taker} {at} on {server.scheme}", found


def _store_world(server: ObjectStore, sleeper: str) -> World:
    bucket = server.make_bucket(f"b-{uuid.uuid4().hex}")
    return make_world(Path(tempfile.mkdtemp(prefix="asleep-")), f"{bucket}/out", sleeper)


if __name__ == "__main__":
    sys.exit(main())
