"""Which dates a backfill has, and what it finds published of them."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.commands import dates
from batchscore.commands.dates import DatedJob, Request, find_dates, find_replaced
from batchscore.errors import InvalidError
from batchscore.job import load_job
from tests import factory

LAST = date(2099, 12, 31)


@pytest.fixture(name="job", scope="module")
def job_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with a date and a text."""
    folder = tmp_path_factory.mktemp("dated")
    kinds = {"date": {"type": "date"}, "region": {"type": "string"}}
    factory.write_job(folder)
    return factory.change_job(folder, {"params": kinds, "input.path": "in/${region}/${date}"})


@given(st.dates(date(2000, 1, 1), LAST), st.integers(0, 8))
def test_dates_are_those_of_the_calendar(job: Path, first: date, more: int) -> None:
    """Each date of the calendar is there once, in order, leap days too: NumPy counts the same."""
    expected = np.arange(np.datetime64(first), np.datetime64(first) + more + 1)
    request = Request(str(job), str(first), str(expected[-1]), params=("region=north",))
    over, found = find_dates(request)
    assert over == "date"
    assert [each.date for each in found] == [str(day) for day in expected]
    assert [each.loaded.params["region"] for each in found] == ["north"] * (more + 1)


@pytest.mark.parametrize("day", ["2023-02-29", "2100-02-29", "2026-2-1", "20260201", "", "today"])
def test_what_is_no_date_is_refused(job: Path, day: str) -> None:
    """A leap day of a year without one, and every other form than YYYY-MM-DD, ends with 2."""
    with pytest.raises(InvalidError, match=r"--to .*: is no date; expected one such as"):
        find_dates(Request(str(job), "2020-01-01", day, params=("region=north",)))


def test_what_is_replaced_is_read_side_by_side(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request waits for another one here, so a year on a store takes less than their sum."""
    together = threading.Barrier(2, timeout=30)

    def read(_store: Any, run: str) -> Any:
        together.wait()
        model = SimpleNamespace(name="m", version="1")
        return SimpleNamespace(model=model, rows=SimpleNamespace(scored=int(run)))

    monkeypatch.setattr(dates, "read_raw", read)
    loaded = load_job(str(job), ("region=north", "date=2026-01-01"), ())
    days = [DatedJob(f"2026-01-{day:02}", loaded, str(day)) for day in range(1, 9)]
    days.insert(3, DatedJob("2026-02-01", loaded, None))
    found = find_replaced(days)
    assert [(each.date[-2:], each.rows) for each in found] == [(f"{d:02}", d) for d in range(1, 9)]
