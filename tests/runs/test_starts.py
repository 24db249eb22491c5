"""Test that runs of several slices which start at the same moment do not touch one another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.run import begin, put_away
from batchscore.commands.tidy import repair
from batchscore.errors import OutputError, RetryError
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan, settle
from batchscore.plan.places import probe_output
from batchscore.runs import layout
from batchscore.runs.history import read_history
from batchscore.runs.lease import acquire
from batchscore.storage.store import Store
from tests.factory import read_tree, write_job
from tests.faults.sleepers import SleepyStore


class CrowdedStore(SleepyStore):
    """A store that also stops between a folder that was made and the file that comes into it."""

    def _make_parent(self, relative: str) -> list[str]:
        made = super()._make_parent(relative)
        self.step()
        return made


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """What a run of the small job is to do."""
    return make_plan(load_job(str(write_job(tmp_path_factory.mktemp("job")))))


def start(plan: Plan, store: Store, slice_: str, run: str | None = None) -> None:
    """Takes a slice, opens a run of it, and puts away what it worked with."""
    layout.claim_output(store)
    name = run or layout.new_run_id(store)
    with acquire(store, slice_, "run", name) as lease:
        repair(store, slice_, lease.is_held)
        mine = replace(plan, spec=replace(plan.spec, output=store, slice=slice_))
        spec = begin(mine, settle(mine), name, lease.number).spec
        assert store.read_json(layout.plan_file(name))["facts"]["slice"] == slice_
        put_away(spec)


def probe(_: Plan, store: Store) -> None:
    """What `check --probe` does."""
    probe_output(store)


def read(_: Plan, store: Store) -> None:
    """What `runs` does."""
    with suppress(OutputError):
        read_history(store)


def other_slice(plan: Plan, store: Store) -> None:
    """A whole run of another slice."""
    start(plan, store, "other")


OTHERS: dict[str, Callable[[Plan, Store], None]] = {
    "other slice": other_slice,
    "probe": probe,
    "reader": read,
}


# A run of another slice comes between any two steps, the others between some.
STRIDE = {"other slice": 1, "probe": 3, "reader": 4}


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_a_run_starts_whatever_another_does_between_its_steps(
    plan: Plan, tmp_path: Path, other: str
) -> None:
    """Into a new output, before operations and after new folders."""
    count = CrowdedStore(str(tmp_path / "whole"), None, lambda: None)
    count.__dict__["armed"] = True
    start(plan, count, "small")
    steps = int(count.__dict__["operations"])
    assert steps > 20
    for at in range(0, steps, STRIDE[other]):
        address = str(tmp_path / f"out{at}")

        def act(address: str = address) -> None:
            OTHERS[other](plan, Store(address))

        store = CrowdedStore(address, at, act)
        store.__dict__["armed"] = True
        start(plan, store, "small")
        assert not [path for path in read_tree(Path(address)) if "/work/" in path]


@pytest.mark.parametrize("content", [None, {}, {"facts": {"slice": "small"}}, {"facts": 1}])
def test_a_work_folder_of_a_run_that_holds_its_slice_is_left_alone(
    tmp_path: Path, content: Any
) -> None:
    """Without a plan that tells its slice, too; once the lease is given back it is removed."""
    store = Store(str(tmp_path))
    path = layout.plan_file("20261120-aaaa") if content else f"{layout.work('20261120-aaaa')}/x"
    with acquire(store, "small", "run", "20261120-aaaa"):
        store.write_json(path, content)
        with acquire(store, "other", "run", "20261120-bbbb") as lease:
            repair(store, "other", lease.is_held)
        assert store.exists(path)
    if content != {"facts": {"slice": "small"}}:
        with acquire(store, "other", "run", "20261120-cccc") as lease:
            repair(store, "other", lease.is_held)
        assert not store.exists(path)


def test_a_name_that_another_run_had_meanwhile_is_refused(plan: Plan, tmp_path: Path) -> None:
    """A run that came and went under the same name keeps its manifest."""
    store = Store(str(tmp_path))
    layout.claim_output(store)
    store.write_json(layout.run_file("20261120-aaaa", "manifest.json"), {"run": "theirs"})
    with pytest.raises(RetryError, match="took this name"):
        start(plan, store, "small", "20261120-aaaa")
    assert store.read_json(layout.run_file("20261120-aaaa", "manifest.json"))["run"] == "theirs"
    assert not store.exists(layout.work("20261120-aaaa"))


@pytest.mark.parametrize("action", ["write", "create_new", "create", "move"])
def test_a_folder_that_vanishes_before_it_is_filled_is_made_again(
    tmp_path: Path, action: str
) -> None:
    """Whoever prunes empty folders does not make another process's write fail."""

    class PrunedStore(Store):
        def _make_parent(self, relative: str) -> list[str]:
            made = super()._make_parent(relative)
            if not self.__dict__.setdefault("pruned", False):
                self.__dict__["pruned"] = True
                shutil.rmtree(tmp_path / "out/a")
            return made

    store = PrunedStore(str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/source").write_bytes(b"x")
    if action == "move":
        store.move("source", "a/b/x")
    elif action == "create":
        with store.create("a/b/x") as file:
            file.write(b"x")
    else:
        getattr(store, action)("a/b/x", b"x")
    assert store.read("a/b/x") == b"x"
