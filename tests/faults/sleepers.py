"""Processes that sleep past their lease inside a publication, and who takes the slice over."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from batchscore.commands.decide import release, undo
from batchscore.commands.tidy import repair
from batchscore.commands.verify import verify_output
from batchscore.errors import FailedError
from batchscore.finish.finish import HELD
from batchscore.runs import layout
from batchscore.runs.history import published_manifest, read_manifest
from batchscore.runs.lease import acquire
from batchscore.runs.ledger import finished_units, read_head
from batchscore.runs.manifest_units import published_records
from batchscore.runs.publication import journal_paths
from batchscore.runs.snapshot import published_run, snapshot
from batchscore.stages.read import Source
from batchscore.stages.write import Target
from batchscore.storage.store import Store, open_filesystem
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit, make_unit
from tests.factory import make_rows, plan_units, write_shard
from tests.outputs import plan_publication, publish_records, score_unit

SLICE = "small"
SHARDS = 4
ROWS = 12
_FACTS = {
    **{"batchscore_manifest": 1, "job": SLICE, "params": {}, "engine": "direct", "device": "cpu"},
    **{"workers": 1, "batch_rows": 7, "tile_rows": 1024, "packages": {}, "checks": []},
}

Rows = Counter[tuple[Any, ...]]


def _watched(name: str) -> Any:
    def operate(self: SleepyStore, *args: Any, **options: Any) -> Any:
        return self.operate(name, *args, **options)

    return operate


class SleepyStore(Store):
    """A store that calls `sleep` before its operation number `at`, counted once it is `armed`.

    Where it is to be armed `early`, it is once the command has taken the slice's lease. Without
    `reads` only operations that change something are counted.

    On an object store the removal at the end of a move is an operation of its own.
    """

    def __init__(
        self, address: str, at: int | None, sleep: Callable[[], None], reads: bool = True
    ) -> None:
        super().__init__(address)
        self.__dict__.update(at=at, sleep=sleep, armed=False, early=False, operations=0)
        self.__dict__.update(reads=reads)
        self.__dict__.update(local=threading.local(), lock=threading.Lock())

    def operate(self, name: str, *args: Any, **options: Any) -> Any:
        """Does an operation, and sleeps before it if it is the one."""
        local = self.__dict__["local"]
        if not getattr(local, "inside", False):
            if self.__dict__["reads"] or name not in ("read", "exists", "names"):
                self.step()
            local.inside = True
            try:
                return getattr(Store, name)(self, *args, **options)
            finally:
                local.inside = False
        return getattr(Store, name)(self, *args, **options)

    def step(self) -> None:
        """Counts an operation, and sleeps if it is the one."""
        state = self.__dict__
        with state["lock"]:
            number = state["operations"]
            state["operations"] += state["armed"]
        if state["armed"] and number == state["at"]:
            state["sleep"]()

    def _rename(self, source: str, target: str, keep: bool, tag: str | None = None) -> list[str]:
        if self.is_local or keep:
            return super()._rename(source, target, keep, tag)
        super()._rename(source, target, True, tag)
        self.step()
        self._filesystem.rm_file(self.path(source))
        return []

    def create_new(self, relative: str, data: bytes, flush: bool = True) -> bool:
        """Puts a new file; a command that took the lease is armed."""
        made: bool = self.operate("create_new", relative, data, flush)
        if self.__dict__["early"] and "/lease/" in relative:
            # With its next operation it makes sure that no lease has a higher number.
            self.__dict__.update(armed=True, operations=-1 if self.__dict__["reads"] else 0)
        return made

    read = _watched("read")
    exists = _watched("exists")
    names = _watched("names")
    exchange = _watched("exchange")
    _put = _watched("_put")
    _move = _watched("_move")
    remove = _watched("remove")
    prune_empty = _watched("prune_empty")


class LockedStore(Store):
    """A store that once calls `sleep` inside the lock of its exchange of a file of that name."""

    def __init__(self, address: str, name: str, sleep: Callable[[], None]) -> None:
        super().__init__(address)
        self.__dict__.update(name=name, sleep=sleep, locked=False)

    def exchange(self, relative: str, old: bytes | None, new: bytes, flush: bool = True) -> bool:
        """Compares and swaps; what it writes, it writes inside the lock."""
        self.__dict__["locked"] = relative.endswith(f"/{self.__dict__['name']}")
        return super().exchange(relative, old, new, flush)

    def write(self, relative: str, data: bytes, flush: bool = True) -> None:
        """Replaces a file; sleeps before if that is inside the lock."""
        if self.__dict__["locked"]:
            self.__dict__["locked"] = False
            self.__dict__.pop("sleep", lambda: None)()
        super().write(relative, data, flush)


@dataclass(frozen=True)
class World:
    """A folder with shards, and an output of them.

    Args:
        folder: Holds the shards, as `in`.
        address: Of the output.
    """

    folder: Path
    address: str

    @property
    def store(self) -> Store:
        """The output."""
        return Store(self.address)

    def units(self, shards: int) -> list[tuple[Unit, Source]]:
        """One unit for each of the first shards."""
        found = [plan_units([self.folder / f"in/{number}.parquet"]) for number in range(shards)]
        return [(units[0], Source(schema, None, batch_rows=7)) for units, schema in found]

    def rows(self) -> Rows:
        """What a reader of the folder data/ reads: id and model version of each row."""
        filesystem = open_filesystem(self.address)[0]
        root = self.store.path(layout.DATA)
        files = filesystem.find(root)
        if not files:
            return Rows()
        table = ds.dataset(files, format="parquet", filesystem=filesystem).to_table()
        pairs = zip(table["id"].to_pylist(), table["model_version"].to_pylist(), strict=True)
        return Rows(pairs)


def write_shards(folder: Path) -> None:
    """Writes the shards, with a row to reject in each."""
    for number in range(SHARDS):
        table = make_rows(ROWS, 100 * number)
        bad = [[i == 3 for i in range(ROWS)]]
        write_shard(folder / f"in/{number}.parquet", table.append_column("bad", bad))


def wanted(shards: int, version: str) -> Rows:
    """The rows of the first shards, scored by a version of the model."""
    return Rows((100 * n + i, version) for n in range(shards) for i in range(ROWS) if i != 3)


def _score(version: str) -> str:
    return f"{int(float(version) * 10):04x}" * 16


def run(world: World, store: Store, name: str, shards: int, version: str) -> None:
    """Publishes the first shards as a run does: what is published or finished is used again."""
    with acquire(store, SLICE, "run", name) as lease:
        repair(store, SLICE, lease.is_held)
        records = _records(world, store, name, shards, version)
        base = published_manifest(store, SLICE)
        facts = {**_FACTS, "base": base.run if base else None, "score": _score(version)}
        store.__dict__["armed"] = True
        publish_records(store, SLICE, name, records, lease.is_held, **facts)


def _records(world: World, store: Store, name: str, shards: int, version: str) -> list[UnitRecord]:
    base = published_manifest(store, SLICE)
    alike = base is not None and base.score == _score(version)
    standing = published_records(base) if base is not None and alike else {}
    kept = {record.pieces[0].shard.path: record for record in standing.values()}
    return [
        kept.get(unit.pieces[0].shard.path) or _score_or_resume(store, unit, source, name, version)
        for unit, source in world.units(shards)
    ]


def _score_or_resume(
    store: Store, unit: Unit, source: Source, name: str, version: str
) -> UnitRecord:
    """Takes a finished unit whose staged files are there; else scores it under a new name."""
    score = _score(version)
    if unit.id in finished_units(store, SLICE, score):
        record = read_head(store, layout.record(SLICE, score, unit.id))
        if not store.missing(file.staged for file in record.files):
            rejects = layout.rejects(record.run, record.unit)
            store.move(str(record.rejects_file), rejects)
            return replace(record, rejects_file=rejects)
        unit = make_unit(unit.pieces, name)
    target = Target(("id", "a", "bad"), (), version, unique=("id",))
    return score_unit(store, unit, source, target, SLICE, name, score)


def hold(world: World, name: str, shards: int, version: str) -> None:
    """Scores the first shards and holds the run."""
    store = world.store
    with acquire(store, SLICE, "run", name) as lease:
        repair(store, SLICE, lease.is_held)
        records = _records(world, store, name, shards, version)
        facts = {**_FACTS, "base": published_run(store, SLICE), "score": _score(version)}
        manifest, publication = plan_publication(store, SLICE, name, records, **facts)
        store.write_json(layout.run_file(name, HELD), publication.to_json())
        held = {**manifest, "status": "held", "files": [], "replaced": []}
        store.write_json(layout.run_file(name, "manifest.json"), held)


def _arm_early(store: Store, action: Callable[[], Any]) -> None:
    store.__dict__["early"] = True
    action()


def _undo_last(world: World, _: Store) -> None:
    """Finishes what is to be finished, and takes the last run back."""
    with acquire(world.store, SLICE, "run") as lease:
        repair(world.store, SLICE, lease.is_held)
    last = published_run(world.store, SLICE)
    if last is None:
        run(world, world.store, "taker", 3, "1.0")
    else:
        undo(world.store, last, SLICE, "why")


def _redo_last(world: World, store: Store) -> None:
    _undo_last(world, store)
    _undo_last(world, store)


Act = Callable[[World, Store], None]


def _held_before(world: World, store: Store) -> None:
    run(world, store, "r1", 1, "1.0")
    hold(world, "held", 2, "2.0")


def _replaced_before(world: World, store: Store) -> None:
    run(world, store, "r1", 1, "1.0")
    run(world, store, "r2", 2, "2.0")


# What is published before, and what the sleeper does.
SLEEPERS: dict[str, tuple[Act, Act]] = {
    "first run": (
        lambda _, __: None,
        lambda w, s: run(w, s, "sleeper", 1, "1.0"),
    ),
    "added shard": (
        lambda w, s: run(w, s, "r1", 1, "1.0"),
        lambda w, s: run(w, s, "sleeper", 2, "1.0"),
    ),
    "rescoring": (
        lambda w, s: run(w, s, "r1", 2, "1.0"),
        lambda w, s: run(w, s, "sleeper", 2, "2.0"),
    ),
    "release": (
        _held_before,
        lambda w, s: _arm_early(s, partial(release, s, "held", SLICE, "why")),
    ),
    "rollback": (
        _replaced_before,
        lambda w, s: _arm_early(s, partial(undo, s, "r2", SLICE, "why")),
    ),
}
# What who takes the slice over does.
TAKERS: dict[str, Act] = {
    "adds": lambda w, s: run(w, s, "taker", 3, "1.0"),
    "rescores": lambda w, s: run(w, s, "taker", 2, "3.0"),
    "undoes": _undo_last,
    "redoes": _redo_last,
}


def expire(store: Store) -> None:
    """Makes the newest lease look as if its process were dead, so that another takes it at once."""
    folder = layout.slice_file(SLICE, "lease")
    path = f"{folder}/{max(store.names(folder))}"
    store.write(path, json.dumps({**store.read_json(path), "started": "0"}).encode())


def count_steps(world: World, sleeper: str, reads: bool = True) -> int:
    """Returns the operations, or changes, of a sleeper that does not sleep."""
    store = SleepyStore(world.address, None, lambda: None, reads)
    SLEEPERS[sleeper][1](world, store)
    return int(store.__dict__["operations"])


def interleave(world: World, sleeper: str, taker: str, at: int, reads: bool = True) -> list[str]:
    """Stops a sleeper before an operation, lets the taker work, and wakes the sleeper up.

    Returns what does not hold afterwards.
    """
    seen: list[Rows] = []

    def sleep() -> None:
        expire(world.store)
        TAKERS[taker](world, world.store)
        seen.append(world.rows())

    wrong: list[str] = []
    try:
        SLEEPERS[sleeper][1](world, SleepyStore(world.address, at, sleep, reads))
        wrong += _check_done(world, sleeper)
    except FailedError as error:
        if "does not hold slice" not in str(error):
            wrong.append(f"the sleeper says {error}")
    if world.rows() != seen[0]:
        wrong.append("data/ has other rows than the taker left")
    return [*wrong, *check_world(world), *check_next(world)]


def _check_done(world: World, sleeper: str) -> list[str]:
    """One that says nothing of its lease must have been done."""
    name = {"release": "held", "rollback": None}.get(sleeper, "sleeper")
    if name is None or read_manifest(world.store, name).status in ("published", "revoked"):
        return []
    return ["the sleeper says that it is done, and it is not"]


def check_world(world: World) -> list[str]:
    """Returns what is wrong with the slice: what `verify` finds, and journals that are left."""
    store = world.store
    wrong = [f"{p.kind} {p.path}: {p.detail}" for p in verify_output(store, SLICE).problems]
    wrong += [f"{path} is left" for path in journal_paths(store, SLICE)]
    if len(snapshot(store, SLICE)) != len(set(snapshot(store, SLICE))):
        wrong.append("current.txt lists a file twice")
    return wrong


def check_next(world: World) -> list[str]:
    """Publishes all shards, and returns what is wrong afterwards."""
    run(world, world.store, "next", 4, "1.0")
    right = world.rows() == wanted(4, "1.0")
    return [*([] if right else ["the next run publishes other rows"]), *check_world(world)]


def make_world(folder: Path, address: str, sleeper: str) -> World:
    """Writes the shards, and publishes what there is before the sleeper starts."""
    write_shards(folder)
    world = World(folder, address)
    layout.claim_output(world.store)
    SLEEPERS[sleeper][0](world, world.store)
    return world


def copy_world(world: World, folder: Path) -> World:
    """Returns a world of the same shards, with a copy of the output."""
    shutil.copytree(world.address, folder)
    return World(world.folder, str(folder))
