"""Processes: which machine this one runs on, and whether another is still alive."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Names a boot of this machine and its space of process ids; elsewhere than Linux its name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def here() -> str:
    """Names this process, among those of all machines that run at the moment."""
    return f"{machine()} {os.getpid()}"


@cache
def machine_tag() -> str:
    """Returns eight hexadecimal digits of the machine's name."""
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def has_working_folder() -> bool:
    """Tells whether this process's working directory exists; libraries such as MKL need one."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


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
