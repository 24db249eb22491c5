"""Starts eight dates of one new output at once, round after round, on disk and on object stores."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.factory import change_job, make_rows, write_job, write_shard
from tests.faults.harness import End, command, start_server
from tests.servers import STORES, running

_DATES = 8
_ROWS = 20
_AGAIN = 4
"""Another run holds the slice, or took the same name at the same moment."""


def main() -> int:
    """Runs the rounds; 1 if a date was neither published nor asked to try again."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.starts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="on the local disk (default 30)")
    parser.add_argument("--stores", type=int, default=5, help="on S3, and on GCS (default 5)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="starts-") as folder, _addresses(asked) as addresses:
        start_server()
        job, logs = _write_dates(Path(folder)), Path(folder, "logs")
        ends = [
            end
            for number, address in enumerate(addresses)
            for end in _round(job, address, logs / str(number))
        ]
    codes = Counter(code for code, _ in ends)
    print(f"{len(ends)} runs: exit codes {dict(codes)}")
    print("\n".join(said for code, said in ends if code not in (0, _AGAIN)))
    return int(any(code not in (0, _AGAIN) for code in codes))


@contextmanager
def _addresses(asked: argparse.Namespace) -> Iterator[list[str]]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="outputs-"))
        addresses = [f"{folder}/out{number}" for number in range(asked.rounds)]
        for name in STORES if asked.stores else ():
            server = stack.enter_context(running(name))
            stack.enter_context(server.at())
            bucket = server.make_bucket("starts")
            addresses += [f"{bucket}/out{number}" for number in range(asked.stores)]
        yield addresses


def _write_dates(folder: Path) -> Path:
    write_job(folder)
    for day in range(_DATES):
        write_shard(folder / f"days/{day}.parquet", make_rows(_ROWS, _ROWS * day))
    return change_job(
        folder,
        {"params": {"day": {"type": "integer"}}, "input.path": "days/${day}.parquet"},
    )


def _round(job: Path, address: str, log: Path) -> list[tuple[int | None, str]]:
    """Starts all dates at once; returns exit code and output of each, and of `verify`."""
    target = ("--set", f"output.path={address}")

    def score(day: int) -> End:
        date = ("--param", f"day={day}")
        return command(log / str(day), log, "run", "--json", job, *target, *date)

    with ThreadPoolExecutor(_DATES) as pool:
        ends = [*pool.map(score, range(_DATES))]
    found = [(end.code, end.said) for end in ends]
    found.append(_verify(address, log / "verify", sum(end.code == 0 for end in ends)))
    print(f"{address}: {[code for code, _ in found]}", flush=True)
    return found


def _verify(address: str, log: Path, published: int) -> tuple[int | None, str]:
    """Verifies the output, and counts the slices that are published."""
    end = command(log, log, "verify", "--json", address)
    if end.code == 0 and len(json.loads(end.said)["slices"]) != published:
        return 1, f"{address}: {published} runs said that they published; {end.said}"
    return end.code, end.said


if __name__ == "__main__":
    sys.exit(main())
