"""Test what a run keeps, resumes and scores: every row group once, whatever is done of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.job import load_job
from batchscore.plan import Plan, Work, make_plan, scored_as, settle
from batchscore.runs import layout
from batchscore.runs.ledger import encode_record, enter
from batchscore.runs.manifest_units import encode_shard, encode_units
from batchscore.runs.revoked import revoked_path
from batchscore.runs.snapshot import CURRENT, MARKER
from batchscore.storage.store import Store
from batchscore.units.record import BadShard, StagedFile, UnitRecord
from batchscore.units.unit import Piece, Shard, Unit, make_unit
from tests import factory
from tests.manifests import ROWS, make_manifest

pytestmark = pytest.mark.slow

GROUP = 10
UNIT = 40
RUN = "20261120-7f3a"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of the small job, to be given other pieces and outputs."""
    return make_plan(load_job(str(factory.write_job(tmp_path_factory.mktemp("work")))))


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of four row groups."""
    monkeypatch.setattr("batchscore.plan.work.UNIT_ROWS", UNIT)


def piece_of(name: str, groups: Iterable[int], mark: str = "m") -> Piece:
    """Row groups of a shard, ten rows each; the shard's rows are those of eight."""
    found = tuple(groups)
    shard = Shard(f"in/{name}.parquet", 1, mark, 8 * GROUP)
    return Piece(shard, found, tuple(n * GROUP for n in found), (GROUP,) * len(found))


def record_of(unit: Unit, place: str, **facts: Any) -> UnitRecord:
    """A finished unit's record, with one file at a place."""
    given: dict[str, Any] = {
        "files": (StagedFile(f"{place}/0000.parquet", "", unit.rows, 1, ""),),
        "columns": (("id", "int64"),),
        **facts,
    }
    rest: dict[str, Any] = {"reject_reasons": {}, "rejects_file": None, "seconds": {}}
    attempt = f"{unit.id}-00000000"
    return UnitRecord(
        unit.id, attempt, RUN, unit.pieces, unit.rows, 0, unit.rows, 0, **given, **rest
    )


class World:
    """An output in which units are published or finished, and a plan that meets them."""

    def __init__(self, template: Plan, store: Store, pieces: Sequence[Piece], bad: int = 0) -> None:
        self.store = store
        scoring = replace(template.spec.scoring, max_bad_shards=bad)
        spec = replace(template.spec, output=store, scoring=scoring)
        shards = tuple(dict.fromkeys(piece.shard for piece in pieces))
        self.plan = replace(template, spec=spec, pieces=tuple(pieces), shards=shards)

    def finish(self, unit: Unit, **facts: Any) -> None:
        """Scores a unit, up to its record."""
        spec = self.plan.spec
        place = f"{layout.staging(spec.slice)}/{unit.id}-00000000"
        record = record_of(unit, place, **facts)
        for file in record.files:
            self.store.write(file.staged, b"x")
        address = layout.record(spec.slice, self.plan.score, unit.id)
        enter(self.store, address, record, TableProfile.empty())

    def publish(self, units: Iterable[Unit], **changes: Any) -> list[UnitRecord]:
        """Publishes units as one run; returns their records."""
        spec = self.plan.spec
        records = [record_of(unit, f"data/{RUN}-{unit.id}") for unit in units]
        encoded, files, shards = encode_units(records, RUN)
        count = sum(unit.rows for unit in units)
        manifest = {
            "run": RUN,
            "status": "published",
            "started": "2026-11-20T00:00:00+00:00",
            "seconds": 1.0,
            "slice": spec.slice,
            "score": self.plan.score,
            "score_facts": self.plan.score_facts,
            "fingerprint": self.plan.fingerprint,
            "job_sha256": "",
            "model": {},
            "base": None,
            "rows": {**ROWS, "input": count, "scored": count},
            "columns": [["id", "int64"]],
            "units": encoded,
            "files": files,
            "shards": shards,
            "inputs": [encode_shard(shard) for shard in self.plan.shards],
            **changes,
        }
        for file in files:
            self.store.write(file["path"], b"x")
        for record in records:
            entry = encode_record(record, TableProfile.empty())
            self.store.write(layout.record(spec.slice, self.plan.score, record.unit), entry)
        paths = "".join(f"{path}\n" for path in sorted(file["path"] for file in files))
        self.store.write(layout.slice_file(spec.slice, CURRENT), paths.encode())
        self.store.write(layout.slice_file(spec.slice, MARKER), f"{RUN}\n".encode())
        self.store.write_json(layout.run_file(RUN, "manifest.json"), manifest)
        return records

    def settle(self, rescore: bool = False) -> Work:
        """What a run has to do."""
        return settle(self.plan, rescore)


def groups_of(pieces: Iterable[Piece]) -> Counter[tuple[str, str, int]]:
    """Each row group with how often it is there."""
    return Counter((p.shard.path, p.shard.mark, n) for p in pieces for n in p.row_groups)


def parts_of(work: Work) -> list[Piece]:
    """All that a run keeps, resumes and scores."""
    reads: list[UnitRecord | Unit] = [*work.kept.values(), *work.resumed.values(), *work.units]
    return [piece for read in reads for piece in read.pieces]


# A unit reads some row groups of one to three shards, of which one was written again meanwhile.
PIECES = st.builds(
    piece_of,
    st.sampled_from("abc"),
    st.sets(st.integers(0, 7), min_size=1).map(sorted),
    st.sampled_from(["m", "m", "old"]),
)
UNITS = st.lists(
    st.lists(PIECES, min_size=1, max_size=3, unique_by=lambda p: p.shard.path).map(
        lambda pieces: make_unit(tuple(pieces))
    ),
    max_size=5,
    unique_by=lambda unit: unit.id,
)
INPUT = st.lists(
    st.builds(piece_of, st.sampled_from("abc"), st.sets(st.integers(0, 7), min_size=1).map(sorted)),
    max_size=3,
    unique_by=lambda piece: piece.shard.path,
)


def disjoint(units: Iterable[Unit]) -> list[Unit]:
    """Those of the units, first come first served, that share no row group: as runs publish."""
    taken: Counter[tuple[str, str, int]] = Counter()
    found = []
    for unit in units:
        mine = groups_of(unit.pieces)
        if not mine & taken:
            taken += mine
            found.append(unit)
    return found


def world_of(template: Plan, pieces: list[Piece], finished: list[Unit], done: list[Unit]) -> World:
    """A world in memory."""
    world = World(template, Store("memory://work-test"), pieces)
    world.store.remove("")
    if done:
        world.publish(done)
    for unit in finished:
        world.finish(unit)
    return world


@given(INPUT, UNITS, UNITS, st.booleans())
def test_every_row_group_is_done_once(
    template: Plan, pieces: list[Piece], finished: list[Unit], done: list[Unit], rescore: bool
) -> None:
    """Each row group of the input is kept, resumed or to be scored: just one of them, just once."""
    work = world_of(template, pieces, finished, disjoint(done)).settle(rescore)
    assert groups_of(parts_of(work)) == groups_of(pieces)
    assert work.reused_rows + work.unit_rows == sum(piece.rows for piece in pieces)


@given(INPUT, UNITS, UNITS)
def test_what_is_reused_was_published_or_finished_as_it_is(
    template: Plan, pieces: list[Piece], finished: list[Unit], done: list[Unit]
) -> None:
    """Units are kept or resumed whole, under their own names; a published one is never resumed."""
    standing = disjoint(done)
    work = world_of(template, pieces, finished, standing).settle()
    published, ready = ({u.id: u.pieces for u in units} for units in (standing, finished))
    assert {unit: r.pieces for unit, r in work.kept.items()}.items() <= published.items()
    assert {unit: r.pieces for unit, r in work.resumed.items()}.items() <= ready.items()
    assert not set(work.resumed) & set(published)


@given(INPUT, UNITS, UNITS, st.booleans())
def test_names_are_never_taken_twice(
    template: Plan, pieces: list[Piece], finished: list[Unit], done: list[Unit], rescore: bool
) -> None:
    """A unit to be scored has no name that a finished or published unit has, or another one."""
    standing = disjoint(done)
    work = world_of(template, pieces, finished, standing).settle(rescore)
    names = [unit.id for unit in work.units]
    assert len(set(names)) == len(names)
    assert not set(names) & {unit.id for unit in (*finished, *standing)}


@given(INPUT, UNITS, UNITS, st.booleans())
def test_settling_is_repeatable_and_writes_nothing(
    template: Plan, pieces: list[Piece], finished: list[Unit], done: list[Unit], rescore: bool
) -> None:
    """The same state gives the same work, so that a run goes on where a killed one was."""
    world = world_of(template, pieces, finished, disjoint(done))
    files = world.store._filesystem.find(world.store.path(""), detail=True)
    assert world.settle(rescore) == world.settle(rescore)
    assert world.store._filesystem.find(world.store.path(""), detail=True) == files


@given(INPUT.filter(bool), UNITS, st.booleans(), st.data())
def test_a_killed_run_goes_on(
    template: Plan, pieces: list[Piece], done: list[Unit], rescore: bool, data: st.DataObject
) -> None:
    """Whatever of its units was finished is resumed by the next run, and nothing of it scored."""
    world = world_of(template, pieces, [], disjoint(done))
    work = world.settle(rescore)
    finished = data.draw(st.lists(st.sampled_from(work.units or (None,)), unique=True))
    ready = [unit for unit in finished if unit is not None]
    for unit in ready:
        world.finish(unit)
    again = world.settle(rescore)
    assert set(again.resumed) == {unit.id for unit in ready} | set(work.resumed)
    left = [unit for unit in work.units if unit not in ready]
    assert groups_of(p for u in again.units for p in u.pieces) == groups_of(
        p for u in left for p in u.pieces
    )


@given(INPUT.filter(bool))
def test_units_are_as_large_as_wanted(template: Plan, pieces: list[Piece]) -> None:
    """Without anything done the input is cut into units of at most the wanted rows."""
    work = world_of(template, pieces, [], []).settle()
    assert all(unit.rows <= UNIT for unit in work.units)
    assert len(work.units) <= 2 * sum(piece.rows for piece in pieces) // UNIT + 1


def make_world(template: Plan, folder: Path, bad: int = 0) -> World:
    """An output with a published unit of half a shard, and an input of two shards."""
    pieces = [piece_of("a", range(8)), piece_of("b", range(4))]
    return World(template, Store(str(folder)), pieces, bad)


HALF = make_unit((piece_of("a", range(4)),))
REST = make_unit((piece_of("a", range(4, 8)),))
OTHER = make_unit((piece_of("b", range(4)),))


def test_all_published_is_unchanged(template: Plan, tmp_path: Path) -> None:
    """Where every row group is published as it would be scored there is nothing to do."""
    world = make_world(template, tmp_path)
    world.publish([HALF, REST, OTHER])
    work = world.settle()
    assert (work.unchanged, work.units, work.held) == (True, (), False)
    assert work.reused_rows == 120


def test_other_rows_than_published_are_no_unchanged_result(template: Plan, tmp_path: Path) -> None:
    """A unit that is published and not asked for any more has to go, though nothing is scored."""
    world = make_world(template, tmp_path)
    world.publish([HALF, REST, OTHER], fingerprint="before")
    work = world.settle()
    assert (work.unchanged, work.units) == (False, ())


def test_rescore_reuses_nothing_but_its_own(template: Plan, tmp_path: Path) -> None:
    """Published and finished units are scored again, under names that their rescoring keeps."""
    world = make_world(template, tmp_path)
    world.publish([HALF])
    world.finish(REST)
    work = world.settle(rescore=True)
    assert (work.kept, work.resumed, work.unit_rows) == ({}, {}, 120)
    world.finish(work.units[0])
    again = world.settle(rescore=True)
    assert [*again.resumed] == [work.units[0].id]
    assert again.units == work.units[1:]
    assert [*world.settle().kept] == [HALF.id]


def test_a_rescore_of_another_state_starts_again(template: Plan, tmp_path: Path) -> None:
    """What a rescore finished before something else was published is not its own any more."""
    world = make_world(template, tmp_path)
    world.finish(world.settle(rescore=True).units[0])
    world.publish([HALF])
    assert world.settle(rescore=True).resumed == {}


def test_what_was_scored_another_way_is_not_reused(template: Plan, tmp_path: Path) -> None:
    """Another model, code or filter keeps nothing and resumes nothing."""
    world = make_world(template, tmp_path)
    world.publish([HALF])
    world.finish(REST)
    world.plan = replace(world.plan, score_facts={**world.plan.score_facts, "model": "other"})
    work = world.settle()
    assert (work.kept, work.resumed, work.unit_rows) == ({}, {}, 120)
    assert work.base is not None


def test_a_unit_whose_staged_files_are_gone_is_scored_again(template: Plan, tmp_path: Path) -> None:
    """A record alone publishes nothing; the rows are scored again under another name."""
    world = make_world(template, tmp_path)
    world.finish(OTHER)
    world.store.remove(layout.staging(world.plan.spec.slice))
    work = world.settle()
    assert (work.resumed, work.unit_rows) == ({}, 120)
    assert OTHER.id not in {unit.id for unit in work.units}


def test_a_name_that_was_published_is_never_resumed(template: Plan, tmp_path: Path) -> None:
    """A published unit that cannot be kept is scored under another name than it had."""
    world = make_world(template, tmp_path)
    lost, *_ = world.publish([OTHER])
    world.finish(OTHER)
    world.store.remove(lost.files[0].staged)
    work = world.settle()
    assert (work.kept, work.resumed, work.unit_rows) == ({}, {}, 120)
    assert OTHER.id not in {unit.id for unit in work.units}


def test_a_unit_whose_published_file_is_gone_is_scored_again(
    template: Plan, tmp_path: Path
) -> None:
    """Only that unit is, and the file is named."""
    world = make_world(template, tmp_path)
    lost, *_ = world.publish([HALF, REST, OTHER])
    world.store.remove(lost.files[0].staged)
    work = world.settle()
    (reported,) = [check for check in work.checks if check.name == "missing_files"]
    assert reported.passed
    assert lost.files[0].staged in reported.detail
    assert set(work.kept) == {REST.id, OTHER.id}
    assert groups_of(p for u in work.units for p in u.pieces) == groups_of(HALF.pieces)


@pytest.mark.parametrize(("allowed", "resumed"), [(0, set()), (1, {OTHER.id})])
def test_units_with_bad_shards_are_reused_where_such_are_allowed(
    template: Plan, tmp_path: Path, allowed: int, resumed: set[str]
) -> None:
    """A job that wants every shard scores a unit again that left one out."""
    world = make_world(template, tmp_path, allowed)
    world.finish(OTHER, bad_shards=(BadShard("in/b.parquet", 40, "torn"),))
    assert set(world.settle().resumed) == resumed


def test_shards_that_were_bad_are_neither_gone_nor_rewritten(
    template: Plan, tmp_path: Path
) -> None:
    """A shard that was left out has no published rows to lose; fixed, it is late."""
    world = make_world(template, tmp_path, 1)
    world.publish([HALF, REST, OTHER])
    path = layout.run_file(RUN, "manifest.json")
    manifest = json.loads(world.store.read(path))
    for unit in manifest["units"]:
        if unit["unit"] == OTHER.id:
            unit["bad_shards"] = [{"path": "in/b.parquet", "rows": 40, "reason": "torn"}]
    world.store.write_json(path, manifest)
    pieces = (world.plan.pieces[0], piece_of("b", range(4), "fixed"))
    shards = tuple(piece.shard for piece in pieces)
    world.plan = replace(world.plan, pieces=pieces, shards=shards)
    changes = world.settle().changes
    assert (changes.rewritten, changes.removed, changes.late) == ((), (), ("in/b.parquet",))


def test_a_change_that_is_held_leaves_the_work_as_it_would_be(
    template: Plan, tmp_path: Path
) -> None:
    """A held run tells what going on would score, and about how long that took before."""
    world = make_world(template, tmp_path)
    world.publish([HALF, REST, OTHER], seconds=12.0)
    world.plan = replace(
        world.plan, pieces=world.plan.pieces[:1], shards=world.plan.shards[:1], fingerprint="x"
    )
    work = world.settle()
    assert (work.held, work.units, set(work.kept)) == (True, (), {HALF.id, REST.id})
    (check,) = work.checks
    assert "a run would score 0 rows;" in check.detail
    world.plan = replace(world.plan, pieces=(piece_of("a", range(8), "new"),))
    world.plan = replace(world.plan, shards=(world.plan.pieces[0].shard,))
    details = [check.detail for check in world.settle().checks]
    assert all("a run would score 80 rows in about 8 s" in detail for detail in details)


def test_the_time_of_a_held_change_counts_start_up_once(template: Plan, tmp_path: Path) -> None:
    """Of what is published only the scoring takes longer with more rows: 10 s + 2 s · 80 / 120."""
    world = make_world(template, tmp_path)
    world.publish([HALF, REST, OTHER], seconds=12.0, phases={"start_up": 10.0, "scoring": 2.0})
    world.plan = replace(world.plan, pieces=(piece_of("a", range(8), "new"),), fingerprint="x")
    world.plan = replace(world.plan, shards=(world.plan.pieces[0].shard,))
    details = [check.detail for check in world.settle().checks]
    assert all("a run would score 80 rows in about 11 s" in detail for detail in details)


def revocation(world: World, run: str, pieces: Sequence[Piece]) -> dict[str, Any]:
    """What a slice keeps of a run that was taken back."""
    shards = [[p.shard.path, p.shard.size, p.shard.mark] for p in pieces]
    score = world.plan.score
    decision = {"by": "me@here", "at": "then", "reason": "it was bad"}
    return {"run": run, "score": score, "shards": shards, **decision}


def test_rescore_goes_on_whatever_changed_but_what_is_gone(template: Plan, tmp_path: Path) -> None:
    """--rescore scores rewritten shards and what was taken back; lost shards hold it."""
    world = make_world(template, tmp_path)
    world.publish([HALF, REST, OTHER])
    pieces = (piece_of("a", range(8), "new"),)
    world.store.write_json(revoked_path(world.plan.spec.slice), [revocation(world, RUN, pieces)])
    world.plan = replace(world.plan, pieces=pieces, shards=(pieces[0].shard,))
    held = {c.name for c in world.settle().checks if not c.passed}
    assert held == {"on_change.removed_shards", "on_change.rewritten_shards", "revoked"}
    again = {c.name for c in world.settle(rescore=True).checks if not c.passed}
    assert again == {"on_change.removed_shards"}


def test_what_was_taken_back_is_held_with_who_and_why(template: Plan, tmp_path: Path) -> None:
    """A run that would publish just what was undone is held, also where nothing is published."""
    world = make_world(template, tmp_path)
    revoked = revocation(world, "r1", world.plan.pieces)
    others = [{**revoked, "score": "other"}, revocation(world, "r0", (piece_of("z", range(1)),))]
    world.store.write_json(revoked_path(world.plan.spec.slice), [*others, revoked])
    (check,) = world.settle().checks
    assert (check.name, check.passed, check.status) == ("revoked", False, "held")
    for words in ("run r1 published the same shards", "me@here", "it was bad", "--rescore"):
        assert words in check.detail
    world.store.write_json(revoked_path(world.plan.spec.slice), others)
    assert world.settle().checks == ()


def test_facts_that_are_equal_keep_the_name_of_what_is_published(
    template: Plan, tmp_path: Path
) -> None:
    """An earlier version hashed facts in another way; what it published and finished is reused."""
    world = make_world(template, tmp_path)
    today = world.plan
    world.plan = replace(today, score="e" * 64)
    world.publish([HALF])
    world.finish(REST)
    world.plan = today
    work = world.settle()
    assert (work.score, [*work.kept], [*work.resumed]) == ("e" * 64, [HALF.id], [REST.id])
    assert (work.changes.score, settle(scored_as(today, work.score))) == ((), work)


def test_what_was_taken_back_is_known_by_its_facts(template: Plan, tmp_path: Path) -> None:
    """It holds a run that scores alike, though an earlier version hashed facts in another way."""
    world = make_world(template, tmp_path)
    revoked = {**revocation(world, "r1", world.plan.pieces), "score": "e" * 64}
    world.store.write_json(revoked_path(world.plan.spec.slice), [revoked])
    alike = world.plan.score_facts
    for facts, held in ((alike, ["revoked"]), ({**alike, "model": "other"}, [])):
        manifest = make_manifest(run="r1", status="revoked", score_facts=facts)
        world.store.write_json(layout.run_file("r1", "manifest.json"), manifest.document)
        work = world.settle()
        assert [check.name for check in work.checks] == held
        assert work.revoked == (("r1",) if held else ())


def test_a_snapshot_that_was_changed_by_hand_is_an_error(template: Plan, tmp_path: Path) -> None:
    """Lists that disagree are not built upon; the file that differs and the way on are named."""
    world = make_world(template, tmp_path)
    world.publish([HALF])
    world.store.write(layout.slice_file(world.plan.spec.slice, CURRENT), b"data/other.parquet\n")
    with pytest.raises(RecordError, match=r"'data/.*parquet'.*changed by hand.*--rescore"):
        world.settle()
    assert world.settle(rescore=True).unit_rows == 120
