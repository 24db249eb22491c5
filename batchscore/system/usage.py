"""What processes used of this machine: CPU time, and memory at its peak."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from batchscore.system.resources import read_kilobytes


@dataclass(frozen=True)
class Usage:
    """What one or more processes used.

    Args:
        cpu_s: Seconds of CPU time, of the system's work for them too.
        peak_bytes: Memory that the largest process held at its peak.
        total_bytes: The peaks of all processes, added up.
    """

    cpu_s: float = 0.0
    peak_bytes: int = 0
    total_bytes: int = 0

    def since(self, cpu_s: float) -> Usage:
        """Returns it without CPU time that was used before."""
        return Usage(max(0.0, self.cpu_s - cpu_s), self.peak_bytes, self.total_bytes)


def join(usages: Sequence[Usage]) -> Usage:
    """Returns what several processes used together."""
    return Usage(
        sum(each.cpu_s for each in usages),
        max((each.peak_bytes for each in usages), default=0),
        sum(each.total_bytes for each in usages),
    )


def used_by_me() -> Usage:
    """Returns what this process used, and the CPU time of its children that have ended."""
    own, ended = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    peak = (read_kilobytes("/proc/self/status", "VmHWM:") or own.ru_maxrss) << 10
    cpu = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    return Usage(cpu, peak, peak)


def used_by(pid: int) -> Usage:
    """Returns what another process of this machine used so far; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold anything.
            found = file.read().rpartition(b")")[2].split()
        cpu = (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return Usage()
    peak = (read_kilobytes(f"/proc/{pid}/status", "VmHWM:") or 0) << 10
    return Usage(cpu, peak, peak)
