"""Test the small plots of `runs --trend`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscore.cli.render.trend import sparkline, trend
from batchscore.runs.history import read_history
from batchscore.runs.series import find_series
from batchscore.storage.store import Store
from tests.factory import run_cli
from tests.manifests import ROWS
from tests.nights import add_night


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with three nights, and one that failed."""
    store = Store(str(tmp_path))
    for night, (rejected, seconds) in enumerate(((0, 10.0), (50, 20.0), (10, 40.0)), 1):
        rows = {**ROWS, "input": 100, "scored": 100 - rejected, "rejected": rejected}
        usage = {"cpu_seconds": 2 * seconds}
        ago = 24.0 * (5 - night)
        add_night(store, f"2026-11-0{night}", ago, rows=rows, seconds=seconds, usage=usage)
    add_night(store, "2026-11-04", 1, "failed", error="no")
    return store


def test_each_figure_has_a_line_over_the_last_runs(store: Store) -> None:
    """Rows, duration, CPU time and the share of rejected rows; runs that failed are left out."""
    lines = trend(find_series(store, read_history(store), {}), is_unicode=True)
    assert lines[0].startswith("flights   3 runs, ")
    assert [line.split() for line in lines[1:]] == [
        ["trend", "least", "median", "most", "last"],
        ["rows", "███", "100", "100", "100", "100"],
        ["duration", "▃▅█", "10", "s", "20", "s", "40", "s", "40", "s"],
        ["CPU", "time", "▃▅█", "20", "s", "40", "s", "80", "s", "80", "s"],
        ["rejected", "▁█▂", "0", "%", "10.00%", "50.00%", "10.00%"],
    ]


def test_a_plot_is_as_long_as_its_values() -> None:
    """What is missing is a gap; nothing but zeros is flat."""
    assert sparkline([None, 1.0, 0.5, None]) == " █▅ "
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


def test_the_command_prints_plots_and_figures(store: Store) -> None:
    """For people, and as JSON."""
    assert "duration" in run_cli("runs", store.address, "--trend").stdout
    (job,) = json.loads(run_cli("runs", store.address, "--trend", "--json").stdout)
    assert [each["rejected_share"] for each in job["runs"]] == [0.0, 0.5, 0.1]
    assert [each["cpu_s"] for each in job["runs"]] == [20.0, 40.0, 80.0]
