"""Test the page of all jobs: what it shows, and that no browser loads or runs anything for it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from batchscore.report.bar_plots import HEIGHT, Stack, plot
from batchscore.report.jobs_page import make_jobs_page
from batchscore.runs.history import read_history
from batchscore.runs.lateness import find_late
from batchscore.runs.series import Series, find_series
from batchscore.storage.store import Store
from tests.factory import run_cli
from tests.nights import HOUR, add_night
from tests.report.pages import HOSTILE


@pytest.fixture
def jobs(tmp_path: Path) -> list[Series]:
    """A job with three nights, the last of which is held."""
    store = Store(str(tmp_path / "out"))
    add_night(store, "2026-11-28", 48)
    add_night(store, "2026-11-29", 24, seconds=30.0)
    check = {"name": "rejects", "passed": False, "detail": "90 of 500"}
    add_night(store, "2026-11-30", 1, "held", checks=[check], drift={"verdict": "fail"})
    return find_series(store, read_history(store), {})


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_runs_ages_verdicts_rows_and_durations(jobs: list[Series]) -> None:
    """A plot of rows, durations and verdicts by job, and each run in a table."""
    html = make_jobs_page("out", jobs, find_late(jobs, 26 * HOUR))
    for words in ("rejects: 90 of 500", "2026-11-29, 24 h ago", "held", "✕</span> fail", "60 s"):
        assert words in html
    bars = [attrs for tag, attrs in _Tags(html).found if tag == "rect"]
    # Three runs: scored and rejected rows, durations, verdicts.
    assert [bar["class"] for bar in bars] == [
        *("ok", "rejected", "ok", "rejected", "warn", "rejected"),
        *("ok", "ok", "warn"),
        *("ok", "ok", "fail"),
    ]
    assert html.count('<p class="verdict fail">') == 1


def test_nothing_is_loaded_and_no_script_runs(jobs: list[Series]) -> None:
    """Whatever names and reasons hold, they are text."""
    last = jobs[0].runs[0]
    hostile = [
        replace(jobs[0], job=text, runs=(replace(last, why=text, dates=text),)) for text in HOSTILE
    ]
    tags = _Tags(make_jobs_page(HOSTILE[0], hostile)).found
    names = {tag for tag, _ in tags}
    assert not names & {"script", "img", "link", "iframe", "object", "image", "use"}
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in tags)
    assert not [attrs for _, attrs in tags if any(key.startswith("on") for key in attrs)]
    policy = next(attrs["content"] for tag, attrs in tags if "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_a_plot_fills_its_height_and_shows_what_is_small() -> None:
    """The largest run reaches the top; a part that is not zero is seen."""
    found = plot(
        "t", [[Stack(1e6, "ok", ""), Stack(1, "rejected", "")], [], [Stack(0, "ok", "")]], str
    )
    large, small, nothing = found.bars
    assert large.height == pytest.approx(HEIGHT, abs=0.01)
    assert small.height > 1
    assert nothing.height == 0
    assert all(0 <= bar.y <= HEIGHT for bar in found.bars)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """Under a name of a page alone; the page of an empty list says so."""
    add_night(Store(str(tmp_path / "out")), "2026-11-30", 1)
    page = tmp_path / "jobs.html"
    found = run_cli("status", tmp_path / "out", "--html", page)
    assert found.exit_code == 0
    assert f"page {page}" in found.stdout
    assert re.search(r"<title>.*batchscore jobs</title>", page.read_text())
    assert run_cli("status", tmp_path / "out", "--html", tmp_path / "x.parquet").exit_code == 2
    assert "There is no run yet." in make_jobs_page("out", [])
