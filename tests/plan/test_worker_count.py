"""Tests of how many workers a run has where the job leaves it to `auto`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.job import load_job
from batchscore.plan import make_plan, worker_count
from batchscore.plan.worker_count import APART, WITHIN, choose_workers, share_out
from batchscore.units.unit import Unit
from tests import factory


def units_of(units: int, shards: int, rows: int) -> list[Unit]:
    """Units of so many shards each, of so many rows each."""
    return [Unit("u", factory.make_unit(rows).pieces * shards)] * units


@pytest.mark.parametrize(
    ("units", "shards", "rows", "row_alone", "cores", "found"),
    [
        (0, 0, 0, APART, 2, 1),
        (2, 2, 500_000, APART, 2, 1),
        (10, 2, 500_000, APART, 2, 1),
        (2, 500, 2_000, APART, 2, 1),
        (10, 500, 2_000, APART, 2, 2),
        (10, 2, 500_000, APART, 4, 2),
        (10, 500, 2_000, APART, 4, 3),
        (10, 500, 2_000, APART, 1, 1),
        (3, 1, 1_000_000, WITHIN, 2, 1),
        (6, 1, 1_000_000, WITHIN, 2, 2),
        (2, 50, 20_000, WITHIN, 2, 1),
    ],
)
def test_workers_are_started_where_they_are_worth_it(
    monkeypatch: pytest.MonkeyPatch,
    units: int,
    shards: int,
    rows: int,
    row_alone: float,
    cores: int,
    found: int,
) -> None:
    """Many shards keep a worker busy; with a process for the model, one worker takes two cores."""
    monkeypatch.setattr(worker_count, "count_cores", lambda: cores)
    count, why = choose_workers("auto", units_of(units, shards, rows), ["/in"], row_alone=row_alone)
    assert (count, why.partition(",")[0]) == (found, str(found))


@given(
    st.integers(0, 30),
    st.integers(1, 400),
    st.integers(1, 100_000),
    st.sampled_from([APART, WITHIN]),
)
def test_there_is_work_for_each_worker(
    units: int, shards: int, rows: int, row_alone: float
) -> None:
    """Workers are never more than units."""
    count, _ = choose_workers("auto", units_of(units, shards, rows), ["/in"], row_alone=row_alone)
    assert 1 <= count <= max(1, units)


def test_the_choice_stays_once_a_process_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run places its workers before its model is loaded and afterwards."""
    monkeypatch.setattr(worker_count, "count_cores", lambda: 2)
    units = tuple(units_of(6, 1, 1_000_000))
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    first = share_out(plan, units)
    assert (first.workers, share_out(first, units).workers) == (2, 2)
