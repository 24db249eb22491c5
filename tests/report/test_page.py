"""Test the page as text: its order, its size, and that nothing in it can act or call."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules
from batchscore.drift.measures.all_measures import MEASURES
from batchscore.report import Compared, make_report
from batchscore.report.page import LISTED
from tests.manifests import make_manifest
from tests.report import pages

pytestmark = pytest.mark.slow

MOST_BYTES = 2_000_000


class Elements(HTMLParser):
    """Collects elements with their attributes, and the texts of column names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def columns(page: str) -> list[tuple[str, str]]:
    """Returns verdict and name of the columns in the page's order."""
    return re.findall(r'<li data-v="(\w+)">.*?<bdi[^>]*>(.*?)</bdi>', page)


def panels(page: str) -> list[str]:
    """Returns the panels of the page: those that are written out, then those that are packed."""
    written = re.findall(r'<div class="panel">.*?</div></details></li>', page, re.S)
    packs = re.findall(r'class="pack">(.*?)</script>', page)
    return written + [
        panel for each in packs for panel in json.loads(zlib.decompress(base64.b64decode(each)))
    ]


@pytest.fixture(scope="module")
def full() -> str:
    return pages.full_page()


def test_the_worst_columns_come_first(full: str) -> None:
    """Columns that fail come before those that warn, and those before the others."""
    verdicts = [verdict for verdict, _ in columns(full)]
    order = ["fail", "warn", "insufficient_data", "insufficient_resolution", "ok", "none"]
    assert verdicts == sorted(verdicts, key=order.index)
    assert {name for verdict, name in columns(full) if verdict == "fail"} >= {"amount", "shop"}


def test_verdicts_are_put_in_words_next_to_their_colour(full: str) -> None:
    """The head says how many columns fail, and each row why."""
    assert re.search(r"Drift: fail\.\s+Columns: \d fail, ", full)
    why = re.findall(r'<span class="why">(.*?)</span></summary>', full)
    assert re.search(r"mean [\d.]+, was [\d.]+ in .*PSI</abbr> [\d.]+, fails from 0\.25", why[1])


def test_the_figures_are_those_of_the_comparison(full: str) -> None:
    """The page shows each measure as the comparison found it, rounded, with its limits."""
    drift = pages.drifted().drift
    aspect = next(a for a in drift.aspects if (a.column, a.aspect) == ("amount", "value"))
    index = [name for _, name in columns(full)].index("amount")
    shown = measures_of(panels(full)[index])
    judged = [each for each in aspect.measures if each.outcome != "shown"]
    assert [*shown][: len(judged)] == [MEASURES[each.name].label for each in judged]
    psi = next(each for each in judged if each.name == "psi")
    effect, floor, limits = shown["PSI"]
    assert float(effect) == pytest.approx(psi.value, rel=1e-3)
    assert float(floor) == pytest.approx(psi.floor, rel=1e-3)
    assert limits == "0.1 / 0.25"


def measures_of(panel: str) -> dict[str, tuple[str, str, str]]:
    """Returns effect, floor and limits of a panel's measures by their label."""
    line = r'<th scope="row">([^<]+)<small>.*?"Effect">([^<]+)<.*?floor">([^<]+)<.*?fail">([^<]+)<'
    return {name: (value, floor, limits) for name, value, floor, limits in re.findall(line, panel)}


def test_the_run_is_reported(full: str) -> None:
    """Rows, checks, rejects, golden rows, timing and runs each have their figures."""
    for text in (
        "2,010",
        "input 2,010 = 2,000 + 3 + 7",
        "200 golden rows",
        "0.40 s",
        "wait_read",
        "limited by read; what would help: a faster &lt;disk&gt;.",
        "20261104-bbbb",
    ):
        assert text in full
    assert "ValueError: no &lt;b&gt;shop&lt;/b&gt;" in full


def test_a_run_that_measured_less_is_reported_all_the_same() -> None:
    """A manifest with busy seconds alone has its bars, and no help."""
    page = make_report(pages.manifest(timings=None, stage_seconds={"read": 0.4}), [])
    assert page.count('<span class="bar" style="--share') == 1
    assert "what would help" not in page


def test_two_profiles_without_a_run_have_a_page() -> None:
    """Without a manifest the page has the rows of both sides, and no sections of a run."""
    page = make_report(None, [pages.drifted()])
    assert "Comparison of two profiles" in page
    assert "2,000" in page
    assert 'id="checks"' not in page


def test_a_profile_alone_has_a_page() -> None:
    """Without any comparison the columns are listed, and said not to be compared."""
    page = make_report(None, [], profile=pages.drifted().current)
    assert "there is no reference yet" in page
    assert {verdict for verdict, _ in columns(page)} == {"none"}
    assert "100.00% of 2,000 rows are null" in page


def test_a_failed_run_has_a_page() -> None:
    """A manifest that ends with an error has neither rows nor checks nor a profile."""
    failed = make_manifest(job="j", status="failed", error="no <space> left")
    page = make_report(failed, [])
    assert "no &lt;space&gt; left" in page
    assert "The run failed: nothing was published" in page
    assert "No row was scored" in page
    assert "The run did not come to its rows" in page


@pytest.mark.parametrize(
    ("facts", "commands"),
    [
        ({"status": "held", "units": []}, {"show", "release", "discard"}),
        ({"status": "held"}, {"show"}),
        ({"status": "published", "units": []}, {"show", "trace", "rollback"}),
        ({"status": "failed"}, {"show"}),
    ],
)
def test_the_page_says_what_to_do_next(facts: dict[str, Any], commands: set[str]) -> None:
    """The page shows the commands that a run allows, with its id and the address of its output."""
    page = make_report(pages.manifest(**facts), [], where="/an output")
    found = re.findall(r"<code><bdi>batchscore (\w+) &#39;/an output&#39;([^<]*)", page)
    assert {command for command, _ in found} == commands
    assert all("20261121-aaaa" in rest for command, rest in found if command != "trace")
    assert ("Held: nothing was published" in page) == ("release" in commands)
    assert ("Held before anything was scored" in page) == (facts == {"status": "held"})


def test_what_is_gone_is_said_with_the_verdict_that_was() -> None:
    """Without its reference's profile a run has the verdict of its manifest, and the reason."""
    drift = pages.recorded(pages.drifted().drift)
    gone = "model <i>: profile x.parquet: no such file"
    page = make_report(pages.manifest(drift=drift), [], (), pages.drifted().current, [gone])
    assert "Left out: <bdi>model &lt;i&gt;: profile x.parquet: no such file" in page
    assert "Drift was fail when the run ended" in page
    assert "there is no reference yet" not in page


def test_decisions_are_reported() -> None:
    """The page of a run says who released it, when and why."""
    decision = {"by": "me@here", "at": "2026-11-22T08:00:00.5+00:00", "reason": "a <b>strike</b>"}
    page = make_report(pages.manifest(released=decision), [])
    assert "released by me@here at 2026-11-22 08:00:00 UTC: a &lt;b&gt;strike&lt;/b&gt;" in page


def test_a_category_that_grew_threefold_is_not_said_to_pass_the_threshold() -> None:
    """A value far below the threshold on differences warns by its ratio, in those words."""
    before, now = (pa.table({"x": ["a"] * 9000 + ["b"] * rare}) for rare in (9, 250))
    page = make_report(None, [pages.compared(before, now)])
    assert re.search(r"a difference of 0\.0\d+, three times its share or more", page)


def test_gone_and_added_columns_are_reported() -> None:
    """A column that only one side has is listed with what that means."""
    before, now = (pages.profile(pa.table({n: [1, 2, 3]})) for n in ("old", "young"))
    drift = compare_profiles(before, now, Rules())
    page = make_report(None, [Compared("reference", before, now, drift)])
    assert {name: verdict for verdict, name in columns(page)}["old"] == "fail"
    assert "added column <bdi" in page


def test_the_page_holds_no_address_and_may_call_none(full: str) -> None:
    """No element loads anything, and the policy lets nothing run but the page's own scripts."""
    elements = Elements(full).found
    assert not [attrs for _, attrs in elements if {"src", "srcset", "action"} & set(attrs)]
    links = [attrs["href"] or "" for _, attrs in elements if "href" in attrs]
    assert links
    assert all(link.startswith("#") for link in links)
    policy = next(a["content"] for _, a in elements if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert re.search(r"script-src 'sha256-\S+'$", policy)


def test_hostile_names_stay_texts() -> None:
    """Names and values of columns bring no element and no script into the page."""
    values = {name: [name, "a", "</script>"] for name in pages.HOSTILE}
    page = make_report(
        pages.manifest(job="<script>"), [pages.compared(pa.table(values), pa.table(values))]
    )
    elements = [tag for tag, _ in Elements(page).found]
    assert elements.count("script") == 1
    assert "img" not in elements
    assert len(columns(page)) == len(pages.HOSTILE)
    assert "\0" not in page
    assert "(empty name)" in page
    assert "{{ 7 * 7 }}" in page
    assert len(page) < 700_000


@pytest.mark.parametrize("count", [100, 500])
def test_a_wide_table_is_whole_and_small(count: int) -> None:
    """Of a hundred or five hundred columns the page has every figure, in less than 2 MB."""
    page = make_report(pages.manifest(), [pages.wide(count)])
    assert len(page.encode()) < MOST_BYTES
    assert len(panels(page)) == len(columns(page)) == count


def test_what_has_no_room_is_said() -> None:
    """Where there is no room for all columns, the worst have their figures, and it is said."""
    one = pages.wide(LISTED + 10, rows=100)
    page = make_report(None, [one, one])
    held = len(panels(page))
    assert len(page.encode()) < MOST_BYTES
    assert 250 < held < LISTED == len(columns(page))
    assert f"figures of the {held:,} worst columns" in page
    assert "10 more, none of them worse" in page
