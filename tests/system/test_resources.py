"""Tests of the cores that this process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.system.resources import count_cores, read_quota


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
