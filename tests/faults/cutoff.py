"""Cuts the disk off after each step of real commands, and sees what is on it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds

from batchscore.commands.tidy import repair
from batchscore.commands.verify import verify_output
from batchscore.errors import BatchscoreError
from batchscore.storage.store import Store
from tests import factory
from tests.faults.disks import (
    PRIVATE,
    DiskError,
    commit,
    cut_off,
    do,
    make_image,
    mounted,
    written,
)
from tests.faults.harness import command, start_server
from tests.faults.worlds import leftovers, write_shard, write_world

_SLICE = "small"
_SHARDS = 4
_HELD = 3
_HOSTILE = "data=writeback,commit=60,noauto_da_alloc"
_WAIT_SECONDS = 300

Digests = dict[str, str]


@dataclass(frozen=True)
class Mode:
    """How a disk is mounted, and what reaches it.

    Args:
        name: of the mode.
        options: of the mount.
        commits: another program flushes before each cut, by which names reach the disk that the
            command did not flush.
        flushes: the command's own flushes are done.
    """

    name: str
    options: str
    commits: bool
    flushes: bool = True


MODES = (
    Mode("flushes alone", _HOSTILE, commits=False),
    Mode("names early", _HOSTILE, commits=True),
)
WITHOUT = Mode("without flushes", "", commits=True, flushes=False)


@dataclass(frozen=True)
class Cut:
    """What was on the disk after a step of a command, as an image."""

    step: str
    image: Path


@dataclass
class Disk:
    """A mounted disk with an output, and where copies of it are kept."""

    mode: Mode
    image: Path
    folder: Path
    scratch: Path

    @property
    def output(self) -> Path:
        """The folder of the output."""
        return self.folder / "out"

    def cut(self, step: str, cuts: list[Cut]) -> None:
        """Adds what is on the disk now, unless nothing was written since the last cut."""
        if self.mode.commits:
            commit(self.folder)
        mark = f"{written(self.folder)[0]}"
        if cuts and cuts[-1].image.stem == mark:
            return
        copy = self.scratch / f"{mark}.img"
        cut_off(self.folder, self.image, copy)
        cuts.append(Cut(step, copy))


def main() -> int:
    """Cuts off disks in each mode; 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cutoff", description=__doc__)
    parser.add_argument("--again", type=int, default=12, help="run again after each n-th cut")
    parser.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.private:
        return _run_private(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start_server()
    wrong = [each for mode in MODES for each in _try(mode, asked.again)]
    print("\n".join(wrong))
    empty = [each for each in _try(WITHOUT, 0) if " empty" in each]
    print(f"without flushes {len(empty)} list empty files, such as: {(empty or ['none'])[-1]}")
    return int(bool(wrong) or not empty)


def _run_private(words: Sequence[str]) -> int:
    """Runs in name spaces of its own, whose end unmounts all; 0 where that cannot be done."""
    if problem := _why_not():
        print(f"left out: disks that are cut off need root, mkfs.ext4 and loop devices: {problem}")
        return 0
    own = [*PRIVATE, sys.executable, "-m", "tests.faults.cutoff", "--private", *words]
    return subprocess.run(own, check=False).returncode


def _why_not() -> str:
    """Tells why no disk can be mounted here; nothing if one can."""
    with tempfile.TemporaryDirectory(prefix="cutoff-") as name:
        try:
            image = make_image(Path(name) / "disk.img")
            do(*PRIVATE, "mount", "-t", "ext4", "-o", "loop", image, name)
        except DiskError as error:
            return str(error)
    return ""


def _try(mode: Mode, again: int) -> list[str]:
    """Returns what does not hold in a mode."""
    wrong = list[str]()
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="cutoff-", dir=place) as name:
        folder = Path(name)
        job = write_world(folder / "world", _SHARDS)
        image = make_image(folder / "disk.img")
        with mounted(image, folder / "disk", mode.options) as mount:
            disk = Disk(mode, image, mount, folder)
            for act in ACTS if mode.flushes else _TWO:
                wrong += _act(disk, job, act, again)
    return wrong


def _run(_: Path, job: Path, output: Path) -> list[str]:
    return ["run", str(job), "--set", f"output.path={output}"]


def _rewrite(folder: Path, job: Path, output: Path) -> list[str]:
    write_shard(folder, 1, version=1)
    return _run(folder, job, output)


def _hold(folder: Path, job: Path, output: Path) -> list[str]:
    write_shard(folder, 2, version=2)
    write_shard(folder, _SHARDS)
    return [*_run(folder, job, output), "--set", "checks.rows.max_ratio=1.0"]


def _release(_: Path, job: Path, output: Path) -> list[str]:
    return ["release", str(output), _newest(output), "--reason", "looked at"]


def _rollback(_: Path, job: Path, output: Path) -> list[str]:
    marker = output / f"_batchscore/slices/{_SLICE}/_SUCCESS"
    return ["rollback", str(output), "--undo", marker.read_text().strip()]


def _newest(output: Path) -> str:
    return next(output.glob("_batchscore/runs/*/held.json")).parent.name


ACTS: dict[str, Callable[[Path, Path, Path], list[str]]] = {
    "first run": _run,
    "rewritten shard": _rewrite,
    "held run": _hold,
    "release": _release,
    "rollback": _rollback,
}
_TWO = ("first run", "rewritten shard")


def _act(disk: Disk, job: Path, act: str, again: int) -> list[str]:
    """Runs one command, cut off after each step, and judges what was on the disk then."""
    where = f"{disk.mode.name}, {act}"
    old = digests(disk.output)
    words = ACTS[act](job.parent, job, disk.output)
    code, cuts = _trace(disk, words)
    new = digests(disk.output)
    wrong = [f"{where}: exit {code}"] if code != (_HELD if act == "held run" else 0) else []
    for cut in cuts:
        last = cut is cuts[-1]
        wrong += [f"{where}: {cut.step}: {each}" for each in _judge(cut, old, new, last)]
    for cut in cuts[again // 2 :: again] if again else []:
        found = _run_again(cut, job, rolled_back=act == "rollback")
        wrong += [f"{where}: {cut.step}: run again: {each}" for each in found]
    print(f"{where}: {len(cuts)} cuts, {len(wrong)} wrong", flush=True)
    for cut in cuts:
        cut.image.unlink()
    return wrong


def _trace(disk: Disk, words: Sequence[str]) -> tuple[int, list[Cut]]:
    """Runs a command on the disk; returns its exit code, and the cuts from its begin to its end."""
    steps, flushes = disk.scratch / "steps.txt", "yes" if disk.mode.flushes else "no"
    own = [sys.executable, "-m", "tests.faults.stopped"]
    own += [str(disk.output), str(steps), flushes, *words]
    cuts = list[Cut]()
    disk.cut("begin", cuts)
    with open(disk.scratch / "said.txt", "ab") as said:
        process = subprocess.Popen(own, stdout=said, stderr=said, start_new_session=True)
    try:
        code = _follow(process, lambda: disk.cut(steps.read_text().splitlines()[-1], cuts))
    finally:
        process.kill()
        process.wait()  # else its files keep the disk from being unmounted
    disk.cut("end", cuts)
    return code, cuts


def _follow(process: subprocess.Popen[bytes], stopped: Callable[[], None]) -> int:
    """Calls `stopped` whenever a process has stopped, and lets it go on; returns its exit code."""
    while True:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        stopped()
        os.kill(process.pid, signal.SIGCONT)


def digests(output: Path) -> Digests:
    """Returns the SHA-256 of each file that current.txt lists, or that it is empty or missing."""
    path = output / f"_batchscore/slices/{_SLICE}/current.txt"
    listed = path.read_text().splitlines() if path.exists() else []
    return {file: _digest(output / file) for file in listed}


def _digest(path: Path) -> str:
    if not path.exists():
        return "missing"
    return factory.sha256(path) if path.stat().st_size else "empty"


@contextmanager
def _disk_of(cut: Cut) -> Iterator[Path]:
    """Yields the output on a copy of what was on the disk, mounted as after a power cut."""
    copy = cut.image.with_suffix(".copy")
    do("cp", "--sparse=always", cut.image, copy)
    with mounted(copy, cut.image.parent / "after") as folder:
        yield folder / "out"
    copy.unlink()


def _judge(cut: Cut, old: Digests, new: Digests, last: bool) -> Iterator[str]:
    """Yields what does not hold for readers, before and after the output is put in order."""
    with _disk_of(cut) as output:
        found = digests(output)
        if found not in ((new,) if last else (old, new)):
            yield f"current.txt lists neither what was nor what is to be: {_differing(found, new)}"
            return
        if not output.exists():
            return
        try:
            yield from _judge_repaired(output, old, new)
        except (BatchscoreError, OSError) as error:
            yield f"it cannot be put in order: {error}"


def _judge_repaired(output: Path, old: Digests, new: Digests) -> Iterator[str]:
    store = Store(str(output))
    repair(store, _SLICE, lambda: True)
    listed = digests(output)
    if listed not in (old, new):
        yield "put in order, current.txt lists neither"
    data = {str(path.relative_to(output)) for path in output.glob("data/**/*.parquet")}
    if data != set(listed):
        yield "data/ holds other files than current.txt lists"
    if listed:
        yield from map(str, verify_output(store, None).problems)


def _differing(found: Digests, new: Digests) -> str:
    """Names what is wrong with the files that are listed."""
    states = [state for state in found.values() if state in ("empty", "missing")]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(found)} files, {counts or 'damaged or others'}; expected are {len(new)}"


def _run_again(cut: Cut, job: Path, rolled_back: bool) -> Iterator[str]:
    """Yields what does not hold once the job was run on what was on the disk."""
    log = cut.image.with_suffix(".log")
    with _disk_of(cut) as output:
        # A run holds what a person took back unless a flag says otherwise.
        words = [*_run(job.parent, job, output), *(["--rescore"] if rolled_back else [])]
        run = command(log / "run", output, *words)
        if run.code != 0:
            yield f"exit {run.code}: {run.said[-600:]}"
            return
        verified = command(log / "verify", output, "verify", output)
        if verified.code != 0:
            yield f"verify ends {verified.code}: {verified.said[-600:]}"
        if _ids(output) != _expected_ids(job.parent):
            yield "other rows are published"
        if "UNCHANGED" not in run.said and (left := leftovers(output)):
            yield f"{len(left)} leftovers, among them {left[0]}"
    with suppress(FileNotFoundError):
        shutil.rmtree(log)


def _ids(output: Path) -> list[int]:
    table = ds.dataset(output / "data", partitioning="hive").to_table(columns=["id"])
    return sorted(table["id"].to_pylist())


def _expected_ids(world: Path) -> list[int]:
    """Returns the ids of the rows that can be scored, read without batchscore."""
    table = ds.dataset(world / "in").to_table(filter=pc.is_valid(pc.field("a")))
    return sorted(table["id"].to_pylist())


if __name__ == "__main__":
    sys.exit(main())
