"""Test that runs are listed in their order whatever the clocks said that dated them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InvalidError
from batchscore.runs.history import read_manifest
from batchscore.runs.order import newest_first
from batchscore.storage.store import Store
from tests.factory import change_job, make_rows, run_json, write_shard

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
YEAR = timedelta(days=365)


class Ahead(datetime):
    """The clock of a machine that is a year ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Ahead:
        """Returns a time a year from now."""
        later = datetime.now(tz) + YEAR
        return cls.fromtimestamp(later.timestamp(), tz)


@dataclass(frozen=True)
class Run:
    """What an order of runs is made of."""

    run: str
    started: str
    base: str | None = None


def moment(number: int, shift: timedelta = timedelta()) -> str:
    return (START + timedelta(hours=number) + shift).isoformat(timespec="milliseconds")


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-9999, 9999)), min_size=1, max_size=12),
    st.permutations(range(12)),
)
def test_publications_are_in_the_order_of_their_bases(
    runs: list[tuple[bool, int]], shuffled: list[int]
) -> None:
    """Whatever hours the clocks of some were ahead or behind, each run comes after its base."""
    found, base = [], None
    for number, (right, hours) in enumerate(runs):
        shift = timedelta() if right else timedelta(hours=hours)
        found.append(Run(f"r{number}", moment(number, shift), base))
        base = f"r{number}"
    given = [found[number] for number in shuffled if number < len(found)]
    assert newest_first(given) == found[::-1]


@given(st.integers(0, 9), st.sampled_from([timedelta(hours=3), 2 * YEAR]))
def test_a_run_that_failed_ahead_of_time_does_not_count_as_the_newest(
    number: int, shift: timedelta
) -> None:
    """Whatever it was dated, a run that is dated ahead of now is not placed before later ones."""
    good = [Run(f"r{n}", moment(n), f"r{n - 1}" if n else None) for n in range(10)]
    ahead = datetime.now(timezone.utc) + shift
    bad = Run("bad", ahead.isoformat(), f"r{number}")
    ordered = [each.run for each in newest_first([*good, bad])]
    assert ordered[9 - number : 11 - number] == ["bad", f"r{number}"]


def test_without_bases_times_tell() -> None:
    """Manifests of earlier versions that failed, and damaged ones, are placed by their time."""
    starts = {"a": moment(1), "b": moment(2), "c": "", "d": moment(0, 9 * YEAR)}
    runs = [Run(name, started) for name, started in starts.items()]
    assert [each.run for each in newest_first(runs)][:2] == ["b", "a"]


def test_bases_in_a_circle_end() -> None:
    """Manifests that were changed by hand do not hang a command."""
    runs = [Run(name, moment(1), base) for name, base in zip("abc", "bac", strict=True)]
    assert len(newest_first(runs)) == 3


@pytest.fixture
def dated_ahead(scored_job: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of a machine whose clock is a year ahead, which replaced what was published."""
    with monkeypatch.context() as clock:
        for module in ("phases", "runs.layout", "commands.tidy"):
            clock.setattr(f"batchscore.{module}.datetime", Ahead)
        for module in ("cli.app", "phases"):
            ahead = SimpleNamespace(time=lambda: time.time() + YEAR.total_seconds())
            clock.setattr(f"batchscore.{module}.time", ahead)
        found = run_json("run", scored_job / "job.yaml", "--rescore")
    assert found["started"] > (datetime.now(timezone.utc) + YEAR / 2).isoformat()
    assert found["run"][:4] == found["started"][:4]
    return found


@pytest.mark.slow
def test_a_run_dated_ahead_is_not_the_newest(scored_job: Path, dated_ahead: dict[str, Any]) -> None:
    """`runs`, `show`, the report and messages name the run after it as the newest."""
    out = scored_job / "out"
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    later = run_json("run", scored_job / "job.yaml")["run"]
    listed: Any = run_json("runs", out)
    ordered = [m["run"] for m in listed]
    assert ordered[:2] == [later, dated_ahead["run"]]
    assert run_json("show", out)["run"] == later
    with pytest.raises(InvalidError) as caught:
        read_manifest(Store(str(out)), "nope")
    assert dated_ahead["run"] not in str(caught.value)
    report = run_json("report", out, "-o", scored_job / "r.html")
    assert report["run"] == later


@pytest.mark.slow
def test_what_a_run_dated_ahead_replaced_is_kept_for_its_days(
    scored_job: Path, dated_ahead: dict[str, Any]
) -> None:
    """Retention counts from the publication after it, not from a year ahead."""
    out, job = scored_job / "out", scored_job / "job.yaml"
    retired = out / "_batchscore/retired" / dated_ahead["run"]
    change_job(scored_job, {"output.retention_days": 1})
    for number, days in ((2, 5), (3, 0)):
        write_shard(scored_job / f"in/{number}.parquet", make_rows(100, 300 + 100 * number))
        last = run_json("run", job)
        assert last["status"] == "published"
        assert retired.exists() == (number == 2)
        path = out / "_batchscore/runs" / last["run"] / "manifest.json"
        past = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        path.write_text(path.read_text().replace(last["finished"], past))
        os.utime(path)
