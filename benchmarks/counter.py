"""Counts what code does: calls and lines by module, memory asked for, files touched, network calls.

Only what a thread does is counted, never how long it takes or waits, so that two runs of the same
work come to the same figures.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.storage.parquet import LeafReader

ENGINE = "engine"
"""Owns the calls of what is neither the package nor called by it: Beam's."""
WAITS = "waiting"
"""Owns the calls of locks, queues and pools, whose number goes by who waits for whom."""
_WAITING = tuple(
    str(Path(str(module.__file__)).with_suffix(""))
    for module in (queue, threading, concurrent.futures)
)
_ASKED = {
    "open": "files opened by Python",
    "os.listdir": "folders listed",
    "os.scandir": "folders listed",
    "os.link": "names made or changed",
    "os.mkdir": "names made or changed",
    "os.rename": "names made or changed",
    "os.remove": "names removed",
    "os.rmdir": "names removed",
}
_TRAFFIC = {
    "rchar": "bytes read",
    "wchar": "bytes written",
    "syscr": "read calls",
    "syscw": "write calls",
}
# Smaller rises are objects of Python's, whose number goes by when threads take turns.
_RISE_BYTES = 4096


@dataclass
class Counts:
    """What was counted.

    Args:
        calls: Calls of Python and C functions, by the package's module that made them.
        lines: Lines run, by the package's module; a loop counts each time around.
        work: Everything else, by name.
    """

    calls: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)


class _Owners(dict[str, str | None]):
    """The module that counts the calls of a file, by file; None: the one that called it."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __missing__(self, file: str) -> str | None:
        self[file] = self._find(file)
        return self[file]

    def _find(self, file: str) -> str | None:
        if file.startswith(self._root):
            return file.removeprefix(self._root).removesuffix(".py")
        if file.startswith(_WAITING):
            return WAITS
        return ENGINE if f"{os.sep}apache_beam{os.sep}" in file else None


class ThreadCounter:
    """Counts calls, lines and memory of the threads that are watched.

    Args:
        root: The package's folder; only lines of its files are counted.
        counts: Counts that are added to.
        network: The name of the file whose `forward` is the network.
    """

    def __init__(self, root: Path, counts: Counts, network: str) -> None:
        self._root, self._counts = f"{root}{os.sep}", counts
        self._network = f"{os.sep}{network}"
        self._owners = _Owners(self._root)
        self._pool = pa.default_memory_pool()
        self._arrow = self._traced = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Counts what this thread does inside, and threads started meanwhile, to their ends."""
        if not tracemalloc.is_tracing():
            self._arrow = self._pool.bytes_allocated()
            tracemalloc.start()
            self._traced = tracemalloc.get_traced_memory()[0]
        _hook(self._begin_profile, self._begin_trace)
        try:
            yield
        finally:
            _hook(None, None)

    @staticmethod
    def end() -> None:
        """Ends the count of memory, which goes on until then: threads outlive who began them."""
        tracemalloc.stop()

    def _begin_profile(self, frame: FrameType, event: str, arg: Any) -> None:
        """Begins to profile a thread: which modules are being called is each thread's own."""
        profile = self._profile()
        sys.setprofile(profile)
        profile(frame, event, arg)

    def _profile(self) -> Callable[[FrameType, str, Any], None]:
        calls, owners, owner_of = self._counts.calls, [ENGINE], self._owners

        def profile(frame: FrameType, event: str, _arg: Any) -> None:
            if event == "call":
                code = frame.f_code
                owners.append(owner_of[code.co_filename] or owners[-1])
                calls[owners[-1]] += 1
                if code.co_name == "forward":
                    self._note_network(frame)
            elif event == "c_call":
                calls[owners[-1]] += 1
            else:
                self._note_memory()
                if event == "return" and len(owners) > 1:
                    owners.pop()

        return profile

    def _note_network(self, frame: FrameType) -> None:
        code, work = frame.f_code, self._counts.work
        if code.co_filename.endswith(self._network):
            work["network calls"] += 1
            work["network rows"] += len(frame.f_locals[code.co_varnames[1]])

    def _note_memory(self) -> None:
        work = self._counts.work
        held, peak = tracemalloc.get_traced_memory()
        if peak != held:
            tracemalloc.reset_peak()
        if peak - self._traced >= _RISE_BYTES:
            work["bytes NumPy and Python asked for"] += peak - self._traced
        self._traced = held
        _widen(work, "peak bytes of NumPy and Python", peak)
        _widen(work, "peak bytes of Arrow", self._pool.bytes_allocated() - self._arrow)

    def _begin_trace(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        """Traces the lines of the package's frames alone."""
        file = frame.f_code.co_filename
        if not file.startswith(self._root):
            return None
        owner, lines = str(self._owners[file]), self._counts.lines

        def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
            if event == "line":
                lines[owner] += 1
            return trace

        return trace


def _hook(profile: Any, trace: Any) -> None:
    threading.setprofile(profile)
    threading.settrace(trace)
    sys.settrace(trace)
    sys.setprofile(profile)


def _widen(work: Counter[str], name: str, most: int) -> None:
    if most > work[name]:
        work[name] = most


class FileCounter:
    """Counts what is asked of the file system about paths in a folder.

    Args:
        folder: Where it looks.
        work: Counts that are added to.
    """

    def __init__(self, folder: Path, work: Counter[str]) -> None:
        self._folder, self._work, self._ended = f"{folder}{os.sep}", work, False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Counts what is asked inside, and what the whole process reads and writes (on Linux)."""
        # There is no way to take an audit hook out again.
        sys.addaudithook(self._count_event)
        before = _traffic()
        with self._stats("stat"), self._stats("lstat"), self._parquet():
            yield
        self._ended = True
        self._work.update(Counter(_traffic()) - Counter(before))

    def _count_event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._ended and event in _ASKED:
            self._note(_ASKED[event], args[0])

    def _note(self, name: str, path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self._folder):
            self._work[name] += 1

    def _stats(self, function: str) -> Any:
        """Counts by a wrapper what Python does not audit."""
        asked = getattr(os, function)

        def ask(path: Any, *args: Any, **options: Any) -> Any:
            self._note("files looked at", path)
            return asked(path, *args, **options)

        return patch.object(os, function, ask)

    @contextmanager
    def _parquet(self) -> Iterator[None]:
        """Counts shards that Arrow opens, which Python does not see."""
        begin, work = pq.ParquetFile.__init__, self._work

        def opened(file: pq.ParquetFile, *args: Any, **options: Any) -> None:
            work["Parquet files opened"] += 1
            begin(file, *args, **options)

        def made(_: LeafReader) -> None:
            work["Parquet files opened"] += 1

        with (
            patch.object(pq.ParquetFile, "__init__", opened),
            patch.object(LeafReader, "__init__", made),
        ):
            yield


def _traffic() -> dict[str, int]:
    """Returns what this process has read and written so far; elsewhere than on Linux nothing."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return {}
    traffic = dict(line.split(": ") for line in lines)
    return {name: int(traffic[key]) for key, name in _TRAFFIC.items()}


def arrow_bytes() -> int:
    """Returns the bytes that Arrow's default pool was ever asked for."""
    return int(pa.default_memory_pool().total_bytes_allocated())
