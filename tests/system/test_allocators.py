"""Freed memory is kept and shared, unless the user has set it otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Frees large arrays and makes as many again; prints how many pages the second half took.
FREED = """
import resource
from batchscore.system.allocators import keep_memory_of_arrow
keep_memory_of_arrow()
import pyarrow as pa
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        pa.array([0] * 10).take(pa.array([0] * 500_000))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(pa.default_memory_pool().backend_name, faults())
"""

# Starts threads that allocate at the same time, and prints how many arenas there are.
ARENAS = """
import ctypes, os, sys, threading
from batchscore.system.allocators import share_arenas
share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
libc.fclose.argtypes = [ctypes.c_void_p]
all_there = threading.Barrier(12)
def work():
    all_there.wait()
    libc.malloc(100_000)
    all_there.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="), os.environ.get("MALLOC_ARENA_MAX"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(("environ", "most"), [({}, 4), ({"MALLOC_ARENA_MAX": "6"}, 6)])
def test_threads_share_arenas(environ: dict[str, str], most: int, tmp_path: Path) -> None:
    """Twelve threads that allocate at once have four arenas, or what the user has set."""
    clean = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
    program = [sys.executable, "-c", ARENAS, str(tmp_path / "info.xml")]
    done = subprocess.run(program, env=clean | environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(most), str(most)]


@pytest.mark.slow
@pytest.mark.parametrize(("environ", "keeps"), [({}, True), ({"MIMALLOC_PURGE_DELAY": "0"}, False)])
def test_arrow_keeps_what_it_freed(environ: dict[str, str], keeps: bool) -> None:
    """Arrays take the memory of earlier ones, unless the user has it given back at once."""
    clean = {k: v for k, v in os.environ.items() if k != "MIMALLOC_PURGE_DELAY"}
    program = [sys.executable, "-c", FREED]
    done = subprocess.run(program, env=clean | environ, capture_output=True, text=True, check=True)
    backend, faults = done.stdout.split()
    assert backend == "mimalloc"
    assert (int(faults) < 100) == keeps
