"""Processes: which one something is of, whether it is still there, and how it imports."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_ARENAS = 4
_M_ARENA_MAX = -8  # in glibc's malloc.h
_MEMORY = "/sys/fs/cgroup/memory.max"
_QUOTA = "/sys/fs/cgroup/cpu.max"
_GPUS = ("/dev/nvidiactl", "/dev/kfd")

# Python 3.12 itself freezes some objects.
_FROZEN_AT_START = gc.get_freeze_count()


def share_arenas() -> None:
    """Has threads share four of glibc's arenas, here and in processes that are started from now on.

    It would make eight a core. Each keeps what its threads gave back, and fresh memory costs the
    others time. A `MALLOC_ARENA_MAX` of the user's is kept; without glibc nothing changes.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    os.environ["MALLOC_ARENA_MAX"] = str(_ARENAS)
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def has_working_folder() -> bool:
    """Tells whether this process's working directory exists; libraries such as MKL need one."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def keep_memory_of_arrow() -> None:
    """Has Arrow keep what it frees, here if it is not loaded yet, and in processes started later.

    Its allocator, mimalloc, would give pages back after ten milliseconds, and take them again,
    cleared, for the next block. A `MIMALLOC_PURGE_DELAY` of the user's is kept.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports inside are not searched for garbage.

    Modules are some hundred thousand objects that stay; to look through them again and again is a
    fifth of the time that Beam and torch take to import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def warn_of_compiling(module: str) -> None:
    """Warns if Python compiles an imported module, and others like it, again in each process.

    Args:
        module: A package that was imported.
    """
    spec = sys.modules[module].__spec__
    if spec is None or spec.origin is None or spec.cached is None or Path(spec.cached).exists():
        return
    command = shlex.join(
        [sys.executable, "-m", "compileall", "-q", str(Path(spec.origin).parents[1])]
    )
    logging.warning(
        "Python compiles the modules of %s at each start, which takes seconds: run %r once, or "
        "install with bytecode (uv pip install --compile-bytecode)",
        module,
        command,
    )


@contextmanager
def frozen() -> Iterator[None]:
    """What there is at the start is not searched for garbage inside, unless a caller froze some.

    Each search through all that was imported would stop every thread for a tenth of a second. Of
    two that overlap the first to end thaws all, which costs the other no more than time.
    """
    if gc.get_freeze_count() > _FROZEN_AT_START:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def machine() -> str:
    """Names a boot of this machine and its space of process ids; elsewhere than Linux its name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


@cache
def machine_tag() -> str:
    """Returns eight hexadecimal digits of the machine's name."""
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def started_at() -> float | None:
    """Returns when this process was started, in Unix seconds; None if the system does not say."""
    try:
        ticks = int(start_of(os.getpid()) or "")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return None
    return time.time() - age


def start_of(pid: int) -> str | None:
    """Returns when a process of this machine started; "" if unknown, None if it has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's, and alive
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state, start = fields[0], fields[19]
    except (OSError, IndexError):
        return ""
    return None if state in (b"Z", b"X") else start.decode()


def held_kilobytes() -> int | None:
    """Returns the memory that this process holds; None where the system does not say."""
    return _kilobytes("/proc/self/status", "VmRSS:")


def usable_kilobytes() -> int | None:
    """Returns the memory of this machine, or of its container if that has less; None if unknown."""
    total, limit = _kilobytes("/proc/meminfo", "MemTotal:"), _memory_limit()
    return total if limit is None or total is None else min(total, limit)


def has_room() -> bool:
    """Tells whether as much memory is free, in the container too, as this process holds.

    Where the system does not say so, there is.
    """
    held, free = held_kilobytes(), _kilobytes("/proc/meminfo", "MemAvailable:")
    limit = _memory_limit()
    if held is None or free is None:
        return True
    return held <= (free if limit is None else min(free, limit - held))


def _kilobytes(path: str, name: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(name)), None)
    except (OSError, ValueError):
        return None


def _memory_limit() -> int | None:
    """Returns the kilobytes that a container may hold; None where there is no limit."""
    try:
        with open(_MEMORY, encoding="ascii") as file:
            return int(file.read()) >> 10
    except (OSError, ValueError):
        return None


def count_cores() -> int:
    """Returns the cores that this process may use: those it may run on, within its quota."""
    free = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if free else os.cpu_count() or 1
    return max(1, min(cores, read_quota(_QUOTA) or cores))


def read_quota(path: str) -> int | None:
    """Returns the cores of a container's quota, rounded up; None where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            quota, period = file.read().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None


def shows_gpu() -> bool:
    """Tells whether a driver of this machine shows a GPU."""
    return any(os.path.exists(each) for each in _GPUS)


def stand_in(name: str, **given: object) -> ModuleType:
    """Returns a module in place of another, which is imported when something else is asked of it.

    Args:
        name: The module that is left out.
        given: What others take from it while it is left out.
    """

    def find(asked: str) -> Any:
        if asked == "__path__":  # An import asks whether the module is a package.
            raise AttributeError(f"{name}.{asked} is left out")
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(import_module(name), asked)

    module = ModuleType(name)
    vars(module).update(given, __getattr__=find)
    return module


@contextmanager
def replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Replaces modules that are not imported yet; importing one for which there is None fails."""
    names = [name for name in modules if name not in sys.modules]
    vars(sys)["modules"].update({name: modules[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            if sys.modules.get(name) is modules[name]:
                sys.modules.pop(name, None)
