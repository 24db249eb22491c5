"""Test that a unit has one record, the first, and that what nobody needs is swept and no more."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.runs.ledger import (
    decode_record,
    encode_record,
    enter,
    finished_units,
    merge_records,
    read_head,
    read_heads,
    sweep_attempts,
    sweep_records,
)
from batchscore.storage.store import Store
from batchscore.units.record import StagedFile, UnitRecord
from tests.drift.laws import profile_of
from tests.factory import FaultyStore, Killed, read_tree

SLICE = "job,date=2026-11-20"
SCORES = ("1" * 64, "2" * 64)
SCORE = SCORES[0]
UNITS = tuple(digit * 16 for digit in "abcd")


def attempt_at(
    store: Store, unit: str, number: int = 0, score: str = SCORE
) -> tuple[str, UnitRecord, TableProfile]:
    """Does one attempt at a unit, up to its record; returns the record's address, it, a profile."""
    attempt = f"{unit}-{number:08x}"
    staged = f"{layout.staging(SLICE)}/{attempt}/0000.parquet"
    sidecars = [f"{layout.ledger(SLICE, score)}/{attempt}.{k}.parquet" for k in ("rows", "keys")]
    for path in (staged, *sidecars):
        store.write(path, attempt.encode())
    file = StagedFile(staged, "", 1, len(attempt), "")
    record = UnitRecord(
        unit=unit,
        attempt=attempt,
        run="r",
        pieces=(),
        read=1,
        filtered=0,
        scored=1,
        rejected=0,
        reject_reasons={},
        rejects_file=None,
        files=(file,),
        columns=(),
        seconds={},
        rows_file=sidecars[0],
        keys_file=sidecars[1],
    )
    profile = profile_of([pa.record_batch({"x": [float(number)]})])
    return layout.record(SLICE, score, unit), record, profile


@pytest.mark.parametrize("bit", range(8))
def test_a_record_with_a_flipped_bit_is_damaged(bit: int) -> None:
    """Whatever byte it is in: the record counts as not written, and cannot be merged."""
    store = fresh_store()
    address, record, profile = attempt_at(store, UNITS[0])
    data = encode_record(record, profile)
    for at in range(bit, len(data), 40):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << bit
        with pytest.raises(RecordError):
            decode_record(bytes(spoilt))
    store.write(address, bytes(spoilt))
    assert read_heads(store, SLICE, SCORE, UNITS[:1]) == {}
    with pytest.raises(RecordError, match=r"remove it and run the job again"):
        merge_records(store, [address], TableProfile.empty())


def test_a_record_of_an_earlier_version_is_not_sealed() -> None:
    """It is read all the same."""
    _, record, profile = attempt_at(fresh_store(), UNITS[0])
    found, _ = decode_record(write_table(profile, record.to_json()))
    assert found == record


def enter_all(store: Store, units: Iterable[str], score: str = SCORE) -> list[str]:
    """Finishes units; returns the addresses of their records."""
    made = [attempt_at(store, unit, n, score) for n, unit in enumerate(units)]
    assert all(enter(store, *each) for each in made)
    return [address for address, _, _ in made]


def fresh_store() -> Store:
    """A store in memory that nobody else writes to."""
    return Store(f"memory://ledger-{uuid.uuid4().hex}")


def test_the_first_attempt_wins(tmp_path: Path) -> None:
    """A later attempt at a unit is turned away, and the record stays as it was."""
    store = Store(str(tmp_path))
    address, record, profile = attempt_at(store, UNITS[0], 1)
    assert enter(store, address, record, profile)
    before = store.read(address)
    assert not enter(store, *attempt_at(store, UNITS[0], 2))
    assert store.read(address) == before
    assert read_head(store, address) == record


def test_of_attempts_at_once_one_wins(tmp_path: Path) -> None:
    """However many end at the same moment, one learns that it was first, and it is recorded."""
    store = Store(str(tmp_path))
    for unit in UNITS:
        attempts = [attempt_at(store, unit, number) for number in range(8)]
        won = enter_at_once(store, attempts)
        assert won.count(True) == 1
        assert read_head(store, attempts[0][0]) == attempts[won.index(True)][1]


def enter_at_once(store: Store, attempts: list[tuple[str, UnitRecord, TableProfile]]) -> list[bool]:
    begin = Barrier(len(attempts))

    def end(attempt: tuple[str, UnitRecord, TableProfile]) -> bool:
        begin.wait()
        return enter(store, *attempt)

    with ThreadPoolExecutor(len(attempts)) as pool:
        return [*pool.map(end, attempts)]


def test_a_record_whose_staged_files_are_gone_is_replaced(tmp_path: Path) -> None:
    """A record that nothing can be published from gives way to an attempt that has its files."""
    store = Store(str(tmp_path))
    (address,) = enter_all(store, UNITS[:1])
    store.remove(layout.staging(SLICE))
    _, later, profile = attempt_at(store, UNITS[0], 9)
    assert enter(store, address, later, profile)
    assert read_head(store, address) == later


@pytest.mark.slow
@given(st.sets(st.sampled_from(UNITS)), st.sets(st.sampled_from(UNITS)))
def test_finished_units_are_those_with_a_record(done: set[str], others: set[str]) -> None:
    """Sidecars, golden results and what was scored another way are no finished units."""
    store = fresh_store()
    enter_all(store, sorted(done))
    enter_all(store, sorted(others), SCORES[1])
    attempt_at(store, "e" * 16)
    store.write_json(f"{layout.golden(SLICE, SCORE, 'f' * 64)}00000000.json", {})
    assert finished_units(store, SLICE, SCORE) == done
    assert finished_units(store, SLICE, SCORES[1]) == others
    heads = read_heads(store, SLICE, SCORE, done)
    assert {unit: head.unit for unit, head in heads.items()} == {unit: unit for unit in done}
    store.remove("")


def test_nothing_is_finished_where_there_is_no_ledger(tmp_path: Path) -> None:
    """A slice without a ledger has no finished units."""
    assert finished_units(Store(str(tmp_path)), SLICE, SCORE) == set()


@pytest.mark.parametrize("data", [b"", b"PAR1", None], ids=["empty", "torn", "no record"])
def test_a_damaged_record_names_itself(tmp_path: Path, data: bytes | None) -> None:
    """Whoever needs a damaged record gets its address and the remedies; others do without it."""
    store = Store(str(tmp_path))
    (address,) = enter_all(store, UNITS[:1])
    store.write(address, write_table(profile_of([]), {"unit": "u"}) if data is None else data)
    for read in (
        lambda: read_head(store, address),
        lambda: merge_records(store, [address], profile_of([])),
    ):
        with pytest.raises(RecordError, match="remove it and run the job again") as caught:
            read()
        assert store.url(address) in str(caught.value)
    assert read_heads(store, SLICE, SCORE, [UNITS[0]]) == {}


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), max_size=40), st.randoms(use_true_random=False))
def test_merged_records_are_those_of_all_units(numbers: list[int], chance: Random) -> None:
    """In any order, and however often named, each unit counts once, also beyond a few at a time."""
    store = fresh_store()
    units = {f"{number:016x}" for number in numbers}
    addresses = enter_all(store, sorted(units))
    named = addresses * 2
    chance.shuffle(named)
    merged = profile_of([])
    found = merge_records(store, named, merged)
    assert found == read_heads(store, SLICE, SCORE, units)
    whole = profile_of([pa.record_batch({"x": [float(n)]}) for n in range(len(units))])
    assert write_table(merged, {}) == write_table(whole, {})
    store.remove("")


def test_merging_goes_on_from_what_the_profile_holds(tmp_path: Path) -> None:
    """Records are merged into the profile that is given, in addition to what it already counts."""
    store = Store(str(tmp_path))
    addresses = enter_all(store, UNITS)
    profile = profile_of([pa.record_batch({"x": [7.0]})])
    merge_records(store, addresses, profile)
    assert profile.columns["x"].count == len(UNITS) + 1


@pytest.mark.slow
@given(st.sets(st.sampled_from(UNITS)), st.sets(st.sampled_from(UNITS)))
def test_attempts_without_a_record_are_swept(done: set[str], lost: set[str]) -> None:
    """What is recorded keeps its files and sidecars; of other attempts, later ones too, nothing."""
    store = fresh_store()
    enter_all(store, sorted(done))
    expected = listing(store)
    for unit in lost:
        attempt_at(store, unit, 9)
    sweep_attempts(store, SLICE)
    assert listing(store) == expected
    store.remove("")


def listing(store: Store, folder: str = "") -> set[str]:
    """All files below a folder."""
    files = store._filesystem.find(store.path(folder))
    return set(files)


def test_a_sweep_leaves_other_slices_alone(tmp_path: Path) -> None:
    """Attempts of another slice are another run's business."""
    store = Store(str(tmp_path))
    store.write(f"{layout.staging('other')}/{UNITS[0]}-00000000/0000.parquet", b"x")
    before = read_tree(tmp_path)
    attempt_at(store, UNITS[0])
    sweep_attempts(store, SLICE)
    assert read_tree(tmp_path) == {**before, **empty_ledger(tmp_path)}


def empty_ledger(folder: Path) -> dict[str, bytes]:
    """Ledger folders that hold nothing, as `read_tree` lists them."""
    home = folder / "_batchscore/ledger"
    return {
        str(path.relative_to(folder)): b""
        for path in home.rglob("*")
        if path.is_dir() and not any(path.iterdir())
    }


def test_an_attempt_recorded_one_way_is_kept_whatever_other_ledgers_say(tmp_path: Path) -> None:
    """Units scored in two ways share the staging folder; each ledger keeps its own attempt."""
    store = Store(str(tmp_path))
    for number, score in enumerate(SCORES):
        address, record, profile = attempt_at(store, UNITS[0], number, score)
        assert enter(store, address, record, profile)
    before = read_tree(tmp_path)
    sweep_attempts(store, SLICE)
    assert read_tree(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_sweep_that_is_killed_can_be_done_again(tmp_path: Path, done: bool) -> None:
    """Killed at any change and done again, a sweep loses no finished unit and leaves no litter."""
    for at in range(20):
        folder = tmp_path / str(at)
        store = Store(str(folder))
        enter_all(store, UNITS[:2])
        expected = read_tree(folder)
        for unit in UNITS:
            attempt_at(store, unit, 9)
        try:
            sweep_attempts(FaultyStore(str(folder), at, done), SLICE)
        except Killed:
            sweep_attempts(store, SLICE)
        assert read_tree(folder) == expected, f"killed at change {at}"


@pytest.mark.slow
@given(
    st.sets(st.sampled_from(UNITS)),
    st.sets(st.sampled_from(UNITS)),
    st.sets(st.tuples(st.sampled_from(SCORES), st.sampled_from(UNITS))),
)
def test_records_that_are_needed_outlive_a_sweep(
    first: set[str], second: set[str], needed: set[tuple[str, str]]
) -> None:
    """Of each way of scoring just the needed units stay, with their sidecars and staged files."""
    store = fresh_store()
    attempts = set()
    for number, (units, score) in enumerate(zip((first, second), SCORES, strict=True)):
        for unit in sorted(units):
            address, record, profile = attempt_at(store, unit, number, score)
            enter(store, address, record, profile)
            if (score, unit) in needed:
                attempts.add((score, record.attempt))
    sweep_records(store, SLICE, attempts)
    for units, score in zip((first, second), SCORES, strict=True):
        left = {unit for unit in units if (score, unit) in needed}
        assert finished_units(store, SLICE, score) == left
        for record in read_heads(store, SLICE, score, left).values():
            assert record.rows_file is not None
            assert store.exists(record.rows_file)
            assert not store.missing(file.staged for file in record.files)
    staged = set(store.names(layout.staging(SLICE)))
    assert staged == {attempt for _, attempt in attempts}
    store.remove("")


def test_golden_results_stay_while_a_unit_of_their_ledger_does(tmp_path: Path) -> None:
    """Golden results go with the last unit that was scored as they were."""
    store = Store(str(tmp_path))
    enter_all(store, UNITS[:2])
    golden = f"{layout.golden(SLICE, SCORE, 'f' * 64)}00000000.json"
    store.write_json(golden, {})
    sweep_records(store, SLICE, {(SCORE, f"{UNITS[0]}-00000000")})
    assert store.exists(golden)
    sweep_records(store, SLICE, set())
    assert not store.exists(golden)
    assert not store.exists(layout.ledger(SLICE, SCORE))
    assert not store.exists(f"{layout.HOME}/staging")
