"""The instructions of this machine's processor that kernels choose their way by."""

from __future__ import annotations

import functools
import platform

_BEST_FIRST = (
    ("amx_int8", "AMX"),
    ("avx512_vnni", "AVX512 with VNNI"),
    ("avx512f", "AVX512"),
    ("avx_vnni", "AVX2 with VNNI"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sve", "SVE"),
    ("asimddp", "NEON with dot products"),
)


@functools.cache
def describe_instructions() -> str:
    """Returns the widest instructions of this machine's processor, or else what kind it is."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            line = next((each for each in file if each.startswith(("flags", "Features"))), "")
    except OSError:
        line = ""
    flags = {*line.partition(":")[2].split()}
    return next((name for flag, name in _BEST_FIRST if flag in flags), platform.machine())
