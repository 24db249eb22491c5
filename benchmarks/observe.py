"""Runs batchscore as a process of its own, and observes it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import STAMPS

LOOK_SECONDS = 0.05


class RunError(Exception):
    """A process that failed, or did not do what was to be measured; says how."""


@dataclass(frozen=True)
class Stamp:
    """Something that a network noted: what, and when, in seconds since the epoch."""

    event: str
    at: float


@dataclass(frozen=True)
class Peaks:
    """The most of a process tree at one time: proportional set size in bytes, and threads."""

    pss: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Ran:
    """One run of batchscore.

    Args:
        began: When its process was started, seconds since the epoch.
        published: When the slice's success marker was written, seconds since the epoch.
        manifest: The manifest that it printed.
        stamps: What its networks noted.
        watcher: The watcher that sampled its process tree.
    """

    began: float
    published: float
    manifest: dict[str, Any]
    stamps: tuple[Stamp, ...]
    watcher: Watcher

    @property
    def first_scored(self) -> float:
        """Seconds from the process's start to the network's first result."""
        return min(self.times("scored")) - self.began

    @property
    def first_scored_cpu(self) -> float:
        """CPU-seconds of all processes until then."""
        return self.watcher.cpu_until(min(self.times("scored")))

    @property
    def scoring(self) -> float:
        """Seconds from the first unit's being opened to the publication."""
        return float(self.manifest["timings"]["scoring_s"])

    @property
    def scoring_cpu(self) -> float:
        """CPU-seconds of all processes in that time."""
        opened = self.watcher.cpu_until(self.published - self.scoring)
        return self.watcher.cpu_until(self.published) - opened

    def times(self, event: str) -> list[float]:
        """Returns when an event was noted, in order."""
        return sorted(stamp.at for stamp in self.stamps if stamp.event == event)


def run_job(
    job: Path, settings: Sequence[str] = (), cores: int | None = None, memory: bool = False
) -> Ran:
    """Runs a job into a folder of its own, which is removed.

    Args:
        settings: Each as `key=value` of the job file.
        cores: Cores that the processes may use; by default all.
        memory: Whether it is sampled, which takes some time from the run.

    Raises:
        RunError: It did not publish.
    """
    with tempfile.TemporaryDirectory(dir=job.parent) as home:
        output, path = Path(home) / "out", Path(home) / "stamps"
        words = [f"--set={setting}" for setting in (f"output.path={output}", *settings)]
        command = [sys.executable, "-m", "batchscore", "run", "--json", str(job), *words]
        began = time.time()
        text, watcher = _observe(command, {**os.environ, STAMPS: str(path)}, cores, memory)
        markers = list(output.glob("_batchscore/slices/*/_SUCCESS"))
        if not markers:
            raise RunError(f"{_shown(command)} published nothing: {text[:2000]}")
        published = markers[0].stat().st_mtime
        return Ran(began, published, json.loads(text), _read(path), watcher)


def _shown(command: Sequence[str]) -> str:
    """Returns a command without the interpreter's path."""
    return " ".join(["python", *command[1:]])


def _observe(
    command: Sequence[str], environment: dict[str, str], cores: int | None, memory: bool
) -> tuple[str, Watcher]:
    usable = sorted(os.sched_getaffinity(0))[:cores]
    # Where it is set, every process compiles what it imports again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=partial(os.sched_setaffinity, 0, usable),
    )
    watcher = Watcher(process.pid, memory)
    watcher.start()
    out, err = process.communicate()
    watcher.stop()
    if process.returncode:
        raise RunError(f"{_shown(command)} ended with {process.returncode}: {out}{err}")
    return out, watcher


def _read(stamps: Path) -> tuple[Stamp, ...]:
    text = stamps.read_text() if stamps.exists() else ""  # trees note nothing
    lines = (line.split() for line in text.splitlines())
    return tuple(Stamp(event, float(at)) for event, at in lines)


class Watcher(threading.Thread):
    """Samples a process and all below it on a thread, until it is stopped.

    Args:
        process: Its id.
        memory: Whether memory is sampled, for which the kernel holds the process up.
    """

    def __init__(self, process: int, memory: bool = True) -> None:
        super().__init__(daemon=True)
        self._process, self._memory = process, memory
        self._stopped = threading.Event()
        self._cpu: dict[int, float] = {}
        self._used: list[tuple[float, float]] = [(0.0, 0.0)]
        self.peaks = Peaks()

    def run(self) -> None:
        """Looks every 50 ms."""
        while not self._stopped.wait(LOOK_SECONDS):
            tree = list_tree(self._process)
            pss = sum(map(_pss, tree)) if self._memory else 0
            threads = sum(map(_threads, tree))
            self.peaks = Peaks(max(self.peaks.pss, pss), max(self.peaks.threads, threads))
            # What a process used counts on when it is gone.
            self._cpu |= {each: seconds for each in tree if (seconds := _cpu_seconds(each))}
            self._used.append((time.time(), sum(self._cpu.values())))

    def stop(self) -> None:
        """Ends the sampling."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def cpu_until(self, moment: float) -> float:
        """Returns the CPU-seconds that were used until a moment, in seconds since the epoch."""
        times, seconds = zip(*self._used, strict=True)
        return float(np.interp(moment, times, seconds))


def list_tree(process: int) -> list[int]:
    """Returns a process and all that are below it."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            # The parent follows the name, which may hold anything, and the state.
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [process]
    for each in found:
        found += children.get(each, ())
    return found


def _pss(process: int) -> int:
    """Returns the process's memory in bytes, what it shares divided by those that share it."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _cpu_seconds(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _threads(process: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{process}/task"))
    return 0
