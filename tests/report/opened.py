"""A page in Chromium, opened from disk with the network off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect


class Opened:
    """A page that was opened, with what it asked for and what it complained of."""

    def __init__(self, browser: Browser, path: Path, script: str = "", **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.failures: list[str | None] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.failures.append(request.failure))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(script)
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def column(self, name: str) -> Any:
        """Returns the row of a column, opened."""
        row = self.page.locator("#list > li").filter(
            has=self.page.get_by_role("heading", name=name, exact=True, level=3)
        )
        row.locator("> details").evaluate("details => details.open = true")
        return row

    @property
    def tip(self) -> Any:
        """What is said of the place under the pointer."""
        return self.page.get_by_role("tooltip")

    def plot(self, row: Any) -> Any:
        """Returns the first plot of an opened column, scrolled to."""
        plot = row.locator(".plot svg").first
        plot.scroll_into_view_if_needed()
        return plot

    def lines(self, row: Any) -> list[str]:
        """Returns the values in the table of a column's first plot, which it opens."""
        figure = row.locator("figure").first
        figure.get_by_text("Values as a table").click()
        expect(figure.locator("tbody th").first).to_be_visible()
        return [*figure.locator("tbody th").all_inner_texts()]
