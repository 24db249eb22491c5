"""Makes report.png: the report of July's flights against January's, one column opened.

It needs Playwright and Chromium.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from batchscore.commands.compare import compare_data
from batchscore.commands.report import report_comparison

PICTURE = Path(__file__).resolve().with_name("report.png")
ROOT = Path(__file__).resolve().parent.parent
REFERENCE, CURRENT = (f"data/samples/flights/month={month}" for month in (1, 7))
CHROMIUM = "/usr/bin/chromium"
WIDTH = 1200
COLUMN = "arr_delay"


def main() -> None:
    """Compares, opens the page and takes its picture."""
    os.chdir(ROOT)  # the page names both sides as they are given here
    html = report_comparison(compare_data(REFERENCE, CURRENT)).html
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "report.html")
        path.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1600})
        page.goto(path.as_uri())
        _take(page)
        browser.close()


def _take(page: Page) -> None:
    page.get_by_role("button", name="Close all").click()
    heading = page.get_by_role("heading", name=COLUMN, exact=True, level=3)
    heading.click()
    plot = page.locator("#list > li").filter(has=heading).locator("figure").first
    expect(plot.locator("svg")).to_be_visible()
    box = plot.bounding_box()
    assert box is not None
    height = box["y"] + box["height"] + 4
    page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


if __name__ == "__main__":
    main()
