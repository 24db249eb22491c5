"""What `auto` comes to: cores within a quota, and workers that are worth their start."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.plan.auto import choose_workers
from batchscore.processes import count_cores, read_quota
from batchscore.units.unit import Unit
from tests import factory


@pytest.mark.parametrize(
    ("text", "cores"),
    [("400000 100000\n", 4), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", None)],
)
def test_a_containers_quota_is_read_in_whole_cores(
    tmp_path: Path, text: str, cores: int | None
) -> None:
    """A part of a core counts as one; `max` is no quota."""
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert read_quota(str(path)) == cores


def test_without_quota_all_cores_count(tmp_path: Path) -> None:
    """Elsewhere than in a container there is no such file."""
    assert read_quota(str(tmp_path / "cpu.max")) is None
    assert count_cores() >= 1


@pytest.mark.parametrize(
    ("units", "shards", "rows", "workers"),
    [
        (0, 0, 0, 1),
        (3, 1, 1_000_000, 1),
        (5, 1, 1_000_000, 2),
        (2, 500, 2_000, 2),
        (2, 50, 20_000, 1),
    ],
)
def test_workers_are_started_where_they_are_worth_it(
    monkeypatch: pytest.MonkeyPatch, units: int, shards: int, rows: int, workers: int
) -> None:
    """From four million rows on, or from fewer in many shards, each of which has to be opened."""
    monkeypatch.setattr("batchscore.plan.auto.count_cores", lambda: 2)
    unit = Unit("u", factory.make_unit(rows).pieces * shards)
    assert choose_workers("auto", [unit] * units, ["/in"])[0] == workers
