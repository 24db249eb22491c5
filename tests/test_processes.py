"""What processes import and hold is searched for garbage only where that pays."""

from __future__ import annotations

import gc
import importlib
import os
import platform
import shlex
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from batchscore.processes import frozen, uncollected, warn_of_compiling


@pytest.fixture(autouse=True)
def _thawed() -> None:
    """Nothing is frozen that an earlier test imported, and so froze."""
    gc.unfreeze()


# Frees large arrays and makes as many again; prints how many pages the second half took.
FREED = """
import resource
from batchscore.processes import keep_memory_of_arrow
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
from batchscore.processes import share_arenas
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


class Cycle:
    """Holds itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_imports_are_not_searched() -> None:
    """The collector is off inside, on again behind, and stays off where it was."""
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.slow
def test_what_there_was_is_frozen_and_what_comes_is_collected() -> None:
    """Inside, old garbage stays and new garbage goes; behind, nothing is frozen any more."""
    gc.collect()
    old = weakref.ref(Cycle())
    with frozen():
        new = weakref.ref(Cycle())
        gc.collect()
        assert old() is not None
        assert new() is None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert old() is None


def test_an_error_thaws_too() -> None:
    """A run that fails leaves its process as it was."""
    with pytest.raises(KeyError), frozen():
        raise KeyError
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_what_a_caller_froze_stays_frozen() -> None:
    """A process that froze its own objects keeps them so: no garbage is looked for among them."""
    gc.collect()
    held = weakref.ref(Cycle())
    gc.freeze()
    try:
        with frozen():
            pass
        gc.collect()
        assert held() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert held() is None


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


def test_compiling_at_each_start_is_reported_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without bytecode on disk a run warns; after the command that it names it does not."""
    package = tmp_path / "site of batchscore/only_source_1"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.import_module(package.name)
    warn_of_compiling(package.name)
    (warning,) = caplog.messages
    subprocess.run(shlex.split(warning.split('"')[1]), check=True)
    warn_of_compiling(package.name)
    assert caplog.messages == [warning]
