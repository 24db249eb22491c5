"""Test the page in a real Chromium, opened from disk with the network off."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, expect

from batchscore.report import make_report
from tests.report import pages
from tests.report.opened import Opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that has everything."""
    return pages.write(tmp_path_factory.mktemp("full"), pages.full_page())


def test_it_opens_from_disk_without_a_network(browser: Browser, full: Path) -> None:
    """All columns are drawn, nothing is asked for but the file, and nothing is complained of."""
    with Opened(browser, full) as opened:
        opened.page.get_by_role("button", name="Open all shown").click()
        plots = opened.page.locator(".plot")
        assert plots.count() > 20
        for number in range(plots.count()):
            expect(plots.nth(number).locator("svg")).to_be_visible()
        assert opened.requests == [full.as_uri()]
        assert opened.complaints == []


def test_a_column_is_found_by_its_name(browser: Browser, full: Path) -> None:
    """The search leaves the columns whose name holds the text, says how many, and opens one."""
    with Opened(browser, full) as opened:
        box = opened.page.get_by_role("searchbox", name="Find a column")
        box.fill("EMBED")
        expect(opened.page.locator("#list > li:visible")).to_have_count(1)
        expect(opened.page.get_by_role("status")).to_have_text("1 of 8 columns")
        box.press("Enter")
        expect(opened.page.get_by_role("heading", name="norm", exact=True)).to_be_visible()
        box.fill("nothing has this name")
        expect(opened.page.get_by_role("status")).to_have_text("0 of 8 columns")


def test_columns_are_chosen_by_verdict(browser: Browser, full: Path) -> None:
    """The list of verdicts leaves those columns alone."""
    with Opened(browser, full) as opened:
        opened.page.get_by_role("combobox", name="Verdict").select_option("ok")
        shown = opened.page.locator("#list > li:visible .badge").all_inner_texts()
        assert {text for text in shown if "ok" not in text} <= {""}
        assert opened.page.locator('#list > li[data-v="fail"]:visible').count() == 0


def test_a_plot_has_its_values(browser: Browser, full: Path) -> None:
    """Hovering a bar tells the value and both shares, as the comparison has them."""
    one = pages.drifted()
    counts = [dict(each.top(9)[i][:2] for i in range(3)) for each in _shops(one)]
    with Opened(browser, full) as opened:
        row = opened.column("shop")
        value = row.get_by_label(re.compile("^Distribution of shop, value")).first
        assert value.locator("rect.reference").count() == 3
        assert value.locator("rect.current").count() == 3
        value.locator("rect.zone").first.hover()
        expect(opened.tip).to_be_visible()
        text = opened.tip.inner_text()
    assert "<b>old</b>" in text
    assert f"{counts[0]['<b>old</b>']:,} rows" in text
    assert f"{counts[1]['<b>old</b>']:,} rows" in text


def _shops(one: Any) -> list[Any]:
    return [side.columns["shop"].aspects["value"] for side in (one.reference, one.current)]


def test_a_histogram_tells_its_bins(browser: Browser, full: Path) -> None:
    """Hovering a histogram names the bin under the pointer and both sides' rows."""
    with Opened(browser, full) as opened:
        box = opened.plot(opened.column("amount")).bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        text = opened.tip.inner_text()
        opened.page.get_by_role("heading", name="Columns, worst first").hover()
        expect(opened.tip).to_be_hidden()
    assert re.search(r"^[\d.]+ to [\d.]+: reference [\d.]+ %, \d+ rows; current [\d.]+ %", text)


def test_every_plot_has_its_values_in_a_table(browser: Browser, full: Path) -> None:
    """What a plot shows can be read without seeing it: a description, and a table of its rows."""
    with Opened(browser, full) as opened:
        row = opened.column("amount")
        label = re.compile("^Distribution of amount: reference most often")
        expect(row.get_by_role("img", name=label)).to_have_count(2)
        figure = row.locator("figure").first
        figure.get_by_text("Values as a table").click()
        expect(figure.locator("tbody tr").first).to_be_visible()
        cells = figure.locator("tbody tr td:nth-child(3)").all_inner_texts()
        heads = figure.locator("thead th").all_inner_texts()
        note = row.get_by_text("Beyond the plot").first.inner_text()
    counts = re.findall(r"([\d,]+) rows", " ".join(cells))
    rows = sum(int(each.replace(",", "")) for each in counts)
    assert heads == ["", "reference", "current"]
    assert 1900 < rows <= 2000
    assert "current" in note


def test_the_history_is_drawn(browser: Browser, full: Path) -> None:
    """A column has a point for each run, and its table has their verdicts."""
    with Opened(browser, full) as opened:
        row = opened.column("amount")
        history = row.locator("figure", has=opened.page.get_by_text("Median, with 5 % to 95 %"))
        path = history.locator("svg path.dots").get_attribute("d")
        band = history.locator("svg path.band").count()
        history.get_by_text("Values as a table").click()
        expect(history.locator("tbody tr")).to_have_count(5)
        verdicts = history.locator("tbody tr td:nth-child(2)").all_inner_texts()
        runs = history.locator("tbody tr th").all_inner_texts()
        labels = history.locator(".below").inner_text()
        measures = row.locator("figure", has=opened.page.locator("path.limit.fail"))
        titles = measures.locator("h5").all_inner_texts()
    assert path is not None
    assert (path.count("M"), band) == (5, 1)
    assert runs == [f"2026-11-{day:02d}" for day in (1, 2, 3, 4, 20)]
    assert "2026-11-20" in labels
    assert "fail" in verdicts[-1]
    assert "ok" in verdicts[0]
    assert "PSI" in titles


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    """Names and values that are scripts, endless, empty or written backwards are shown as texts."""
    values = {name: [name[:60], "a", "<img src=x onerror=alert(1)>"] * 9 for name in pages.HOSTILE}
    table = pa.table(values)
    page = make_report(pages.manifest(job=pages.HOSTILE[1]), [pages.compared(table, table)])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        opened.page.get_by_role("button", name="Open all shown").click()
        for zone in opened.page.locator("#list > li:first-child rect.zone").all()[:3]:
            zone.hover()
            expect(opened.tip).to_be_visible()
        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.locator("img").count() == 0
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert opened.complaints == []
        assert len(opened.requests) == 1


def test_an_injected_script_would_not_run(browser: Browser, full: Path, tmp_path: Path) -> None:
    """Even markup that got into the page could not act: its policy knows only its own scripts."""
    text = full.read_text(encoding="utf-8").replace(
        "</main>", "</main><script>window.hacked = 1</script><img src='http://127.0.0.1:9/x'>"
    )
    with Opened(browser, pages.write(tmp_path, text)) as opened:
        expect(opened.page.locator("#list .panel").first).to_be_visible()
        assert opened.page.evaluate("window.hacked") is None
        assert opened.failures == ["csp"]
        assert len(opened.complaints) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_contrast_with_what_is_behind_them(browser: Browser, full: Path, scheme: Any) -> None:
    """In both modes each text has a contrast of 4.5 to 1 at least."""
    with Opened(browser, full, color_scheme=scheme) as opened:
        found = opened.page.evaluate(_CONTRASTS)
    assert len(found) > 100
    assert [each for each in found if each[0] < 4.5] == []


def test_it_is_built_for_screen_readers(browser: Browser, full: Path) -> None:
    """Landmarks, one title, headings without gaps, names for all controls and unique ids."""
    with Opened(browser, full) as opened:
        opened.column("amount")
        page = opened.page
        for role in ("banner", "main", "navigation", "search"):
            expect(page.get_by_role(role)).to_have_count(1)
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4,h5')].map(h => +h.tagName[1])"
        )
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input,select,button')]"
            ".filter(e => !(e.labels?.length || e.textContent.trim())).length"
        )
        heads = page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
        assert page.evaluate("document.documentElement.lang") == "en"
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(ids) == len(set(ids))
    assert unnamed == 0
    assert heads


def test_it_is_used_by_keyboard(browser: Browser, full: Path) -> None:
    """Tab leads to the columns, and Enter opens and closes one."""
    with Opened(browser, full) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the columns")).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_role("searchbox").focus()
        page.get_by_role("button", name="Close all").focus()
        page.keyboard.press("Tab")
        first = page.locator("#list > li > details").first
        expect(first.locator("> summary")).to_be_focused()
        page.keyboard.press("Enter")
        assert not first.evaluate("details => details.open")
        page.keyboard.press("Enter")
        assert first.evaluate("details => details.open")


@pytest.mark.parametrize(
    ("path", "names"), [("full", ["amount"]), ("alike", ["addresses", "large"])]
)
def test_a_phone_needs_no_sideways_scrolling(
    browser: Browser, request: pytest.FixtureRequest, path: str, names: list[str]
) -> None:
    """At 375 pixels the page is as wide as the screen, with all columns open."""
    viewport = {"width": 375, "height": 812}
    with Opened(browser, request.getfixturevalue(path), viewport=viewport) as opened:
        opened.page.get_by_role("button", name="Open all shown").click()
        for name in names:
            expect(opened.column(name).locator(".panel")).to_be_visible()
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 375


def test_it_prints(browser: Browser, full: Path) -> None:
    """On paper the opened columns have their plots in light colours, without the controls."""
    with Opened(browser, full, color_scheme="dark") as opened:
        opened.column("amount")
        paper = opened.page.pdf(format="A4")
        opened.page.emulate_media(media="print")
        expect(opened.page.get_by_role("search")).to_be_hidden()
        ground = "getComputedStyle(document.body).backgroundColor"
        assert opened.page.evaluate(ground) == "rgb(253, 253, 252)"
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 2


def _alike() -> pa.Table:
    """Returns columns whose values differ late: in digits, in milliseconds, after 48 signs."""
    few, many = range(12), range(300)
    stem = "https://example.org/catalogue/departments/garden/"
    points = {
        "rates": [1.08511 + i * 1e-6 for i in few],
        "prices": [12_345_678.25 + i / 4 for i in few],
        "epochs": [1_763_000_000_000 + i for i in few],
        "ids": [10**12 + i for i in few],
        "large": [2**62 + i for i in few],
        "addresses": [f"{stem}{i % 10:02d}" for i in few],
        "moments": pa.array([10**15 + i for i in few], pa.timestamp("us")),
        "extremes": [(i - 6) * 1e307 for i in few],
    }
    bins = {
        "fine rates": [1.0851 + i * 1e-7 for i in many],
        "large ids": [2**62 + i // 6 for i in many],
        "whole range": [(i / 299 * 2 - 1) * 1.79e308 for i in many],
        "ticks": pa.array([10**12 + i for i in many], pa.timestamp("ms")),
    }
    repeated = {
        name: pa.array(values).take([i % 12 for i in many]) for name, values in points.items()
    }
    return pa.table({**repeated, **bins})


@pytest.mark.parametrize(
    ("name", "bars"),
    [
        *((name, 12) for name in ("rates", "prices", "epochs", "ids", "large")),
        *((name, 12) for name in ("moments", "extremes")),
        ("addresses", 10),
    ],
)
def test_values_that_differ_late_have_bars_of_their_own(
    browser: Browser, alike: Path, name: str, bars: int
) -> None:
    """Each value has its bar on both sides, a label next to it, and words to point at."""
    with Opened(browser, alike) as opened:
        shares = opened.column(name).locator("table.shares").first
        assert shares.locator("rect.reference").count() == bars
        assert shares.locator("rect.current").count() == bars
        labels = shares.locator("tbody th").all_inner_texts()
        lines = shares.locator("rect.zone title").all_text_contents()
        assert opened.complaints == []
    assert len(labels) == len(set(labels)) == bars
    assert len(lines) == len(set(lines)) == bars
    assert not any("…" in label and len(label) > 30 for label in labels)


@pytest.mark.parametrize("name", ["fine rates", "large ids", "whole range", "ticks"])
def test_bins_that_differ_late_have_labels_that_differ(
    browser: Browser, alike: Path, name: str
) -> None:
    """Each bin has its own place in the plot, and edges that tell it from its neighbours."""
    with Opened(browser, alike) as opened:
        row = opened.column(name)
        svg = opened.plot(row)
        boxes = [zone.bounding_box() for zone in svg.locator("rect.zone").all()]
        axis = row.locator(".below").first.locator("span").all_inner_texts()
        lines = opened.lines(row)
        figures = row.get_by_role("region", name="Statistics").locator("tr").all_inner_texts()
        assert opened.complaints == []
    assert 2 <= len(axis) == len(set(axis))
    assert 25 <= len(set(lines)) == len(lines)
    assert len({round(box["x"]) for box in boxes}) == len(lines)
    assert all(len(set(line.split(" to "))) == 2 for line in lines)
    assert not re.search("NaN|Infinity|undefined", " ".join([*axis, *lines, *figures]))


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of columns whose values differ late, with a history."""
    one = pages.compared(_alike(), _alike())
    past = [pages.manifest(f"r{i}", profile=one.current.summary()) for i in range(3)]
    page = make_report(past[0], [one], past[1:])
    return pages.write(tmp_path_factory.mktemp("alike"), page)


def test_statistics_tell_neighbours_apart(browser: Browser, alike: Path) -> None:
    """Quantiles that differ in their seventh digit are shown with it, integers in full."""
    with Opened(browser, alike) as opened:
        places = [
            opened.column(name)
            .get_by_role("region", name=f"Statistics of {name}")
            .locator("tr", has_text=re.compile("^(min|p25|p50|max)"))
            .locator("td:nth-child(2)")
            .all_inner_texts()
            for name in ("rates", "large")
        ]
    assert places[0] == ["1.08511", "1.085112", "1.085115", "1.085121"]
    assert places[1] == [f"{2**62 + i:,}" for i in (0, 2, 5, 11)]


def test_counts_that_are_not_exact_say_so(browser: Browser, tmp_path: Path) -> None:
    """Tooltip, table and a note say which side's counts are approximate."""
    many = np.random.default_rng(4).normal(size=40_000)
    one = pages.compared(pa.table({"x": many[:2000]}), pa.table({"x": many}))
    page = make_report(None, [one])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        row = opened.column("x")
        box = opened.plot(row).bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tip = opened.tip.inner_text()
        opened.lines(row)
        lines = row.locator("figure tbody tr").all_inner_texts()
        expect(row.get_by_text("these counts are approximate")).to_be_visible()
    assert re.search(r"reference [\d.]+ %, \d+ rows?; current ≈ [\d.]+ %, [\d,]+ rows?", tip)
    assert all(line.count("≈") == 1 for line in lines)


def test_what_the_plot_leaves_out_is_said(browser: Browser, tmp_path: Path) -> None:
    """Infinite values are below the plot with their counts, also where nothing else is there."""
    values = {"x": [*range(200), float("inf"), float("-inf")], "y": [float("inf")] * 202}
    table = pa.table({name: pa.array(each, pa.float64()) for name, each in values.items()})
    page = make_report(None, [pages.compared(table, table)])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        note = opened.column("x").get_by_text("Beyond the plot").inner_text()
        only = opened.column("y").get_by_text("Beyond the plot").inner_text()
        assert opened.complaints == []
    assert "current 0.495 % -∞ (1 row), 0.495 % +∞ (1 row)" in note
    assert "current 100 % +∞ (202 rows)" in only


def test_it_is_whole_without_scripts(browser: Browser, full: Path) -> None:
    """In a mail or a viewer that runs no script the worst columns have plots, tables and words."""
    with Opened(browser, full, java_script_enabled=False) as opened:
        row = opened.page.locator("#list > li").first
        expect(row.locator(".plot svg").first).to_be_visible()
        expect(row.locator("table.measures").first).to_be_visible()
        title = row.locator("rect.zone title").first.text_content()
        assert opened.complaints == []
    assert title is not None
    assert "reference" in title


def test_all_that_is_open_is_on_paper(browser: Browser, alike: Path) -> None:
    """Every open column has its plots on paper, as lines that a printer draws sharply."""
    with Opened(browser, alike) as opened:
        expect(opened.page.locator("#list details[open]")).to_have_count(0)
        folded = opened.page.pdf(format="A4")
        opened.page.get_by_role("button", name="Open all shown").click()
        expect(opened.page.locator("#list > li .panel").last).to_be_visible()
        figures = opened.page.locator("#list figure:visible").count()
        drawn = opened.page.locator("#list figure:visible svg:visible").count()
        paper = opened.page.pdf(format="A4")
        assert opened.complaints == []
    assert drawn >= figures > 20
    assert len(paper) > 2 * len(folded)
    assert not re.search(rb"/Subtype\s*/Image\b", paper)


def test_columns_that_are_packed_are_there_when_opened(browser: Browser, tmp_path: Path) -> None:
    """Beyond the worst columns a panel is unpacked when its column is opened, the right one."""
    page = make_report(None, [pages.wide(60)])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        names = opened.page.locator("#list h3").all_inner_texts()
        for place in (0, 19, 20, 44, 45, 59):
            row = opened.column(names[place])
            label = re.compile(f"^Distribution of {names[place]}: ")
            expect(row.get_by_role("img", name=label)).to_be_visible()
        assert opened.complaints == []


def test_a_browser_that_cannot_unpack_says_so(browser: Browser, tmp_path: Path) -> None:
    """An old browser names the command that has the figures; the worst columns are there."""
    page = make_report(None, [pages.wide(40)])
    path = pages.write(tmp_path, page)
    with Opened(browser, path, script="delete window.DecompressionStream") as opened:
        opened.page.get_by_role("button", name="Open all shown").click()
        expect(opened.page.locator("#list > li").first.locator(".plot svg")).to_be_visible()
        expect(opened.page.locator("#list > li").last).to_contain_text("batchscore show has them")


def test_spaces_and_controls_are_seen(browser: Browser, tmp_path: Path) -> None:
    """A trailing space, an empty value and a control character have signs of their own."""
    table = pa.table({"x": ["late", "late ", "", "a\tb", "no\u00a0break"] * 9})
    page = make_report(None, [pages.compared(table, table)])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        shares = opened.column("x").get_by_role("region", name=re.compile("of x, value: "))
        labels = shares.locator("tbody th").all_inner_texts()
    assert sorted(labels) == sorted(["late", "late␣", "(empty)", "a␉b", "noU+00A0break"])


def test_five_hundred_columns_open_quickly(browser: Browser, tmp_path: Path) -> None:
    """A wide page answers a search within a second or two of being opened."""
    page = make_report(pages.manifest(), [pages.wide(500)])
    with Opened(browser, pages.write(tmp_path, page)) as opened:
        opened.page.get_by_role("searchbox").fill("feature_0499")
        expect(opened.page.locator("#list > li:visible")).to_have_count(1, timeout=3000)
        ready = opened.page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
        opened.plot(opened.column("feature_0499"))
    assert ready < 3000


# Of each visible text: its contrast with the nearest opaque background, its colour and itself.
_CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const seen = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility()
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  return seen.map((node) => {
    const svg = node instanceof SVGElement;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [ratio, node.tagName, node.textContent.trim().slice(0, 40)];
  });
}"""
