"""Test the page of all jobs in a real Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from batchscore.report.jobs_page import make_jobs_page
from batchscore.runs.history import read_history
from batchscore.runs.series import find_series
from batchscore.storage.store import Store
from tests.nights import add_night
from tests.report.opened import Opened

pytestmark = pytest.mark.slow


def test_the_page_of_all_jobs_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    """It is drawn without scripts, and fits a narrow screen."""
    store = Store(str(tmp_path / "out"))
    for ago in range(20):
        add_night(store, f"2026-11-{ago + 1:02}", 24.0 * (20 - ago))
    path = tmp_path / "jobs.html"
    path.write_text(make_jobs_page("out", find_series(store, read_history(store), {})))
    options: dict[str, Any] = {
        "java_script_enabled": False,
        "viewport": {"width": 400, "height": 800},
    }
    with Opened(browser, path, **options) as opened:
        assert opened.requests == [path.as_uri()]
        assert opened.complaints == []
        expect(opened.page.locator("svg[role=img]")).to_have_count(3)
        box = opened.page.locator("svg[role=img]").first.bounding_box()
        assert box is not None
        assert box["width"] <= 400


def test_the_table_of_many_jobs_fits_a_wide_screen(browser: Browser, tmp_path: Path) -> None:
    """However long the addresses and names are: ages are seen without scrolling."""
    jobs = []
    for number in range(4):
        store = Store(str(tmp_path / f"an_output_with_a_rather_long_name_{number}"))
        params = {"region": "a region whose name is long as well"}
        add_night(store, "2026-11-30", 27.1, job="j" * 64, params=params)
        jobs += find_series(store, read_history(store), {})
    path = tmp_path / "jobs.html"
    path.write_text(make_jobs_page("out", jobs))
    with Opened(browser, path, viewport={"width": 1280, "height": 800}) as opened:
        table = opened.page.get_by_role("region", name="Jobs", exact=True)
        assert table.evaluate("each => each.scrollWidth <= each.clientWidth")
