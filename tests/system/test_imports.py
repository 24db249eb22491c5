"""What processes import and hold is searched for garbage only where that pays."""

from __future__ import annotations

import gc
import importlib
import shlex
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscore.system import imports
from batchscore.system.imports import frozen, uncollected, warn_of_compiling
from tests import ASKING


@pytest.fixture(autouse=True)
def _thawed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is frozen before; whether something is, is asked here, unlike in other tests."""
    monkeypatch.setattr(imports, "_frozen_unless_before", ASKING)
    gc.unfreeze()
    yield
    gc.freeze()


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


def test_what_ends_first_inside_thaws_nothing() -> None:
    """The pipeline of a run ends before the run, which stays frozen to its end."""
    with frozen():
        with frozen():
            pass
        assert gc.get_freeze_count() > 0
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
