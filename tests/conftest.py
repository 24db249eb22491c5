"""What several test modules share: one published run of the flights job.

The process that hands out the tests imports it, too, so it imports what is heavy where it is used.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from batchscore.cli import watch

ROOT = Path(__file__).parents[1]

# Nothing that is imported is garbage; once all is collected, it is looked for again.
gc.disable()

# As batchscore sets it: MKL reads it at its first call, which a test may make before that.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Without byte code, each command that a test starts compiles its imports again, for 8 seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests flush what they publish. In memory that costs nothing, if there is room for it.
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# A run shows how far it is after some seconds: on a busy machine, tests would find that line, too.
watch._LINE_SECONDS = 600.0

# Where the tests are that come first, in this order; all the others follow.
_FIRST = ("tests/faults/", "tests/engines/test_flink_", "tests/")

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
# `make test-fast` tries fewer examples; all tests together try them all.
settings.register_profile("fast", deadline=None, max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--shuffle SEED`, for tests that are to depend on no other."""
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run tests in a random order")


def pytest_report_header(config: pytest.Config) -> str:
    """Names the order, so that a failure can be repeated."""
    seed = config.getoption("shuffle")
    return "order: as written" if seed is None else f"order: --shuffle {seed}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Returns one process more than there are cores: some tests wait for a cluster or a store."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffles on request, and puts the faults first, then what waits for a cluster.

    A process has one forkserver, and that of the faults is preloaded with more. Others use the
    cores while a cluster starts; at the end there would be none.
    """
    seed = config.getoption("shuffle")
    if seed is not None:
        _shuffle(items, random.Random(seed))
    items.sort(key=lambda item: next(at for at, part in enumerate(_FIRST) if part in item.nodeid))


def pytest_collection_finish() -> None:
    """Leaves what was made until now out of every later search for garbage, which it slows."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Has the last search find it all: bindings of C++ complain of objects that are left."""
    gc.unfreeze()


def _shuffle(items: list[pytest.Item], chance: random.Random) -> None:
    """Shuffles the modules, and the tests of each; fixtures of a module are made once."""
    ranks = {path: chance.random() for path in sorted({item.path for item in items})}
    items.sort(key=lambda item: (ranks[item.path], chance.random()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none, whatever else is required."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU here")


@dataclass(frozen=True)
class Published:
    """An output that a run published, and what the run printed as JSON; not to be written to."""

    output: Path
    manifest: dict[str, Any]

    @property
    def data(self) -> Path:
        """The folder that readers read."""
        return self.output / "data"

    @property
    def current(self) -> list[Path]:
        """The files that the slice's snapshot lists."""
        path = self.output / "_batchscore/slices" / self.manifest["slice"] / "current.txt"
        return [self.output / line for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The flights job, published once for all tests that only read."""
    from tests import factory

    output = tmp_path_factory.mktemp("flights") / "out"
    job = ROOT / "jobs/flight_delays/job.yaml"
    return Published(output, factory.run_json("run", job, "--set", f"output.path={output}"))


@pytest.fixture
def linear_format(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Installs a backend for the format `npz`; other processes need the folder on their path."""
    from tests.backends import installed

    folder = installed.install(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture(scope="session")
def _scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for a job that was run, and a copy of it as it then was."""
    from tests import factory

    place = tmp_path_factory.mktemp("scored")
    folder, kept = place / "work/job", place / "kept"
    folder.mkdir(parents=True)
    assert factory.run_cli("run", factory.write_job(folder)).exit_code == 0
    return folder, shutil.copytree(folder, kept)


@pytest.fixture
def scored_job(_scored: tuple[Path, Path]) -> Path:
    """A folder of `factory.write_job`, whose job was run, to be changed.

    It is the same one each time, put back: shards elsewhere would be other shards.
    """
    folder, kept = _scored
    shutil.rmtree(folder.parent)
    return shutil.copytree(kept, folder)
