"""Commands run to their end, with what they cost: seconds, CPU-seconds and memory."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from benchmarks.observe import Watcher, list_tree

ROOT = Path(__file__).parents[1]
LIMIT_S = 900
LOOK_S = 0.5
_ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux


class PeerError(Exception):
    """A peer that cannot be had or run; says why."""


@dataclass(frozen=True)
class Done:
    """A command that ended well.

    Args:
        out: What it printed to standard output.
        seconds: Seconds from its start to its end.
        cpu_s: CPU seconds of all its processes: of those that ended, or, if that is more, as
            each was last seen.
        peak: The most memory of its process tree, proportional set size in bytes; 0: not sampled.
    """

    out: str
    seconds: float
    cpu_s: float
    peak: int


def run(
    command: Sequence[str], settings: Mapping[str, str] | None = None, sampled: bool = False
) -> Done:
    """Runs a command in the repository's folder; processes that it leaves behind are ended.

    Args:
        settings: Further environment variables.
        sampled: Whether memory is sampled, which takes some time from the command.

    Raises:
        PeerError: It failed, or was not done after LIMIT_S.
    """
    # What a command leaves behind becomes a child of this process, so that it can be counted.
    ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)
    others = _children()
    before, start = _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        environment = {**os.environ, **(settings or {})}
        # Where it is set, every process compiles what it imports again.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        try:
            peak, seen = _wait(process, sampled)
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"not done after {LIMIT_S} s: {' '.join(command[:3])}") from error
        finally:
            seconds = time.perf_counter() - start
            _end(_children() - others)
        if process.returncode:
            raise PeerError(_failure(command, process.returncode, _text(err) or _text(out)))
        return Done(_text(out), seconds, max(_cpu_seconds() - before, seen), peak)


def _wait(process: subprocess.Popen[bytes], sampled: bool) -> tuple[int, float]:
    """Returns the peak of memory, and the CPU-seconds of all processes that were seen."""
    watcher, tally = Watcher(process.pid), _Tally(process.pid)
    tally.start()
    if sampled:
        watcher.start()
    try:
        process.wait(LIMIT_S)
    finally:
        watcher.stop()
        tally.stopped.set()
        tally.join()
    return watcher.peaks.pss, sum(tally.seconds.values())


class _Tally(threading.Thread):
    """Notes the CPU-seconds of a process and all below it, twice a second until it is stopped."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.stopped = threading.Event()
        self.seconds: dict[int, float] = {}

    def run(self) -> None:
        """Looks, and waits."""
        while not self.stopped.wait(LOOK_S):
            for each in list_tree(self._process):
                with suppress(psutil.Error):
                    used = psutil.Process(each).cpu_times()
                    self.seconds[each] = used.user + used.system


def _children() -> set[psutil.Process]:
    """Returns all processes below this one."""
    return set(psutil.Process().children(recursive=True))


def _end(children: Collection[psutil.Process]) -> None:
    """Ends processes, and collects what they cost."""
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, 5)[1]:
        child.kill()
    psutil.wait_procs(children, 5)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def _failure(command: Sequence[str], code: int, said: str) -> str:
    lines = (said or "no message").splitlines()
    telling = [line for line in lines if "rror" in line] or lines
    return f"exit {code} of {' '.join(command[:3])}: {telling[-1][:300]}"
