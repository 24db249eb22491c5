"""Tests of how long `check` expects scoring to take."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.job import load_job
from batchscore.plan import Plan, Work, estimate, make_plan, settle
from batchscore.plan.estimate import Stretch, estimate_seconds, expected_seconds
from batchscore.plan.rehearsal import in_memory, rehearse
from batchscore.units.unit import Unit, make_unit
from batchscore.worker.scoring import load
from tests import factory

# A unit takes 2 s in addition to a second, and 1.5 CPU-seconds, for each hundred rows.
ONE, MORE = Stretch(100, 3.0, 2.5), Stretch(300, 5.0, 5.5)


@pytest.fixture
def units(tmp_path: Path) -> tuple[Unit, ...]:
    """Three units of 500 rows."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    return (make_unit(plan.pieces),) * 3


@pytest.mark.parametrize(
    ("workers", "cores", "seconds"),
    [
        (1, 8, 3 + 14),  # all rows but those of the first block, a second for a hundred
        (2, 8, 3 + 14 * 2 / 3),  # two of three units
        (3, 8, 3 + 14 / 3),
        (3, 2, 3 + 14 * 1.5 / 2),  # the cores are busy for 1.5 s a hundred rows
    ],
)
def test_the_busiest_worker_or_the_cores_decide(
    units: tuple[Unit, ...],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    cores: int,
    seconds: float,
) -> None:
    """What a unit takes once counts once, and each further row as the longer stretch shows."""
    monkeypatch.setattr(estimate, "count_cores", lambda: cores)
    assert expected_seconds(ONE, MORE, units, workers) == pytest.approx(seconds)


@pytest.mark.parametrize("longer", [ONE, Stretch(300, 3.0, 2.5)], ids=["one block", "no slower"])
def test_a_stretch_that_tells_no_more_counts_as_a_whole(
    units: tuple[Unit, ...], longer: Stretch
) -> None:
    """Where the unit has one block, or a busy machine blurs the difference."""
    pace = longer.seconds / longer.rows
    assert expected_seconds(ONE, longer, units, 1) == pytest.approx(3 + 1400 * pace)


def planned(folder: Path, changes: dict[str, Any]) -> tuple[Plan, Work]:
    """A plan on the CPU in blocks of 50 rows, and its work."""
    job = factory.write_job(folder, {"runtime.batch_rows": 50, **changes})
    plan = make_plan(load_job(str(job), (), ()))
    execution = replace(plan.spec.execution, device="cpu")
    plan = replace(plan, spec=replace(plan.spec, execution=execution))
    return plan, settle(plan)


@pytest.mark.parametrize(("budget_s", "rows"), [(0.0, 50), (math.inf, 500)])
def test_blocks_are_scored_until_the_time_is_over(
    tmp_path: Path, budget_s: float, rows: int
) -> None:
    """A stretch reaches to its last block's end, or to the unit's, filtered rows among them."""
    plan, work = planned(tmp_path, {"input.filters": [["id", "<", 400]]})
    with in_memory(plan.spec, 500, fresh=True) as spec:
        found = estimate._score(spec, work.units[0], load(spec), budget_s)
    assert (found.rows, found.seconds > 0, found.cpu_s > 0) == (rows, True, True)


def test_what_fails_behind_the_first_batch_is_no_finding(tmp_path: Path) -> None:
    """A shard that cannot be read, and may be left out, makes the estimate coarser."""
    plan, work = planned(tmp_path, {"input.max_bad_shards": 1})
    found = rehearse(plan, work)
    assert found is not None
    # A moment is noted next to the stages' seconds.
    found = replace(found, seconds={"read": 2.0, "started": 1.8e9}, cold_seconds=1.0)
    for shard in (tmp_path / "in").iterdir():
        shard.write_bytes(b"PAR1")
    seconds = estimate_seconds(plan, work, found)
    assert seconds == pytest.approx(1.0 + 2.0 * 500 / found.rows)


def test_of_tiny_shards_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of thousands of shards, which would take minutes on a store, is not waited for."""
    monkeypatch.setattr(estimate, "_SHARDS", 2)
    monkeypatch.setattr(estimate, "_BUDGET_SECONDS", 0.0)
    for number in range(2, 12):
        factory.write_shard(tmp_path / f"in/{number}.parquet", factory.make_rows(20, number * 100))
    plan, work = planned(tmp_path, {"runtime.batch_rows": 10_000})
    with in_memory(plan.spec, 700, fresh=True) as spec:
        found = estimate._measure(spec, work.units[0])
    few = sum(piece.rows for piece in plan.pieces[:2])
    assert {stretch.rows for stretch in found} == {few}
    assert few < work.units[0].rows
