"""What this process may use: memory, cores, GPUs."""

from __future__ import annotations

import math
import os

_MEMORY = "/sys/fs/cgroup/memory.max"
_QUOTA = "/sys/fs/cgroup/cpu.max"
_GPUS = ("/dev/nvidiactl", "/dev/kfd")


def held_kilobytes() -> int | None:
    """Returns the memory that this process holds; None where the system does not say."""
    return read_kilobytes("/proc/self/status", "VmRSS:")


def usable_kilobytes() -> int | None:
    """Returns the memory of this machine, or of its container if that has less; None if unknown."""
    total, limit = read_kilobytes("/proc/meminfo", "MemTotal:"), _memory_limit()
    return total if limit is None or total is None else min(total, limit)


def has_room() -> bool:
    """Tells whether as much memory is free, in the container too, as this process holds.

    Where the system does not say so, there is.
    """
    held, free = held_kilobytes(), read_kilobytes("/proc/meminfo", "MemAvailable:")
    limit = _memory_limit()
    if held is None or free is None:
        return True
    return held <= (free if limit is None else min(free, limit - held))


def read_kilobytes(path: str, name: str) -> int | None:
    """Returns what a line of a file of `/proc` says; None where the system does not say."""
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
