"""The report of a run: compared again as its gate did, with what there is to look back on."""

from __future__ import annotations

import html
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.compare import compare_data
from batchscore.commands.earlier_runs import HISTORY
from batchscore.commands.report import report_comparison, report_run, write_report
from batchscore.drift.findings import Rules, Thresholds
from batchscore.finish.drift_gate import rules_from_json, rules_to_json
from batchscore.report import Compared, make_report
from batchscore.runs import layout
from batchscore.runs.history import newest, read_manifest
from batchscore.runs.manifest_model import Manifest
from batchscore.storage.store import Store
from tests import factory

pytestmark = pytest.mark.slow

Output = tuple[Store, Manifest]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two runs, the second judged against the first by rules of its own."""
    folder = tmp_path_factory.mktemp("judged")
    drift = {"reference": "previous", "alpha": 0.01, "thresholds": {"psi": [0.2, 0.4]}}
    job = factory.write_job(folder, {"drift": drift, "drift.columns": ["a", "score"]})
    for _ in range(2):
        assert factory.run_cli("run", job, "--rescore").exit_code == 0
    return folder / "out"


@pytest.fixture
def output(judged: Path, tmp_path: Path) -> Output:
    """A copy of that output, and its newest manifest."""
    shutil.copytree(judged, tmp_path / "out")
    # References are named by the output's address.
    store = Store(str(tmp_path / "out"))
    manifest = newest(store, None)
    for each in comparisons(manifest):
        for file in each["files"]:
            file["folder"] = store.address
    return store, manifest


def comparisons(manifest: Manifest) -> list[Any]:
    """What a manifest keeps of its run's comparisons."""
    assert manifest.drift is not None
    return list(manifest.drift["comparisons"])


def copies(store: Store, manifest: Manifest, number: int, **facts: Any) -> None:
    """Leave manifests of so many more runs, seven a day, in the days of January 2026."""
    for i in range(number):
        day, hour = 1 + i // 7, 1 + i % 7
        facts |= {
            "run": f"202601{day:02}-aaa{hour}",
            "started": f"2026-01-{day:02}T0{hour}:00:00+00:00",
        }
        path = layout.run_file(facts["run"], "manifest.json")
        store.write_json(path, {**manifest.document, **facts})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page was made of, and the page that is really made."""
    taken: dict[str, Any] = {}

    def note(manifest: Any, compared: Any, history: Any = (), *more: Any) -> str:
        taken.update(manifest=manifest, compared=compared, history=history)
        return make_report(manifest, compared, history, *more)

    monkeypatch.setattr("batchscore.commands.report.make_report", note)
    return taken


def test_a_run_is_compared_again_as_it_was_judged(output: Output, seen: dict[str, Any]) -> None:
    """The page has the verdicts of the manifest, by the same rules, and the run before."""
    store, manifest = output
    page = report_run(store, manifest)
    kept = comparisons(manifest)[0]
    (found,) = seen["compared"]
    assert isinstance(found, Compared)
    assert found.title == f"reference: {kept['title']}"
    assert (found.drift.alpha, found.drift.comparisons) == (0.01, kept["tests"])
    assert [(a.column, a.aspect, a.verdict, a.judged) for a in found.drift.aspects] == [
        (a["column"], a["aspect"], a["verdict"], a["judged"]) for a in kept["aspects"]
    ]
    psi = next(m for m in found.drift.aspects[0].measures if m.name == "psi")
    assert (psi.warn, psi.fail) == (0.2, 0.4)
    assert (page.missing, page.runs) == ((), 1)
    assert manifest.run in page.html


@pytest.mark.parametrize("gone", ["reference", "own"])
def test_a_profile_that_is_gone_is_named(output: Output, gone: str) -> None:
    """Without the reference's profile, or the run's own, there is a page, and it names the file."""
    store, manifest = output
    earlier = comparisons(manifest)[0]["files"][0]["name"]
    path = earlier if gone == "reference" else layout.run_file(manifest.run, "profile.parquet")
    store.remove(path)
    page = report_run(store, manifest)
    assert len(page.missing) == 1
    assert path in page.missing[0]
    assert f"Left out: <bdi>{page.missing[0]}" in html.unescape(page.html)
    assert manifest.run in page.html


@pytest.mark.parametrize("left", [(), ("drift",), ("drift", "profile", "rejects", "checks")])
def test_what_a_manifest_lacks_is_left_out(output: Output, left: tuple[str, ...]) -> None:
    """A run that failed, or was made before there was drift, has a page all the same."""
    store, manifest = output
    bare = reduce(Manifest.without, left, manifest)
    assert manifest.run in report_run(store, bare).html


def test_history_is_of_the_job_and_ends_somewhere(output: Output, seen: dict[str, Any]) -> None:
    """Runs of the same job before this one are looked back on, newest first, so many at most."""
    store, manifest = output
    first = read_manifest(
        store, next(r for r in store.names("_batchscore/runs") if r != manifest.run)
    )
    copies(store, manifest, 70)
    assert report_run(store, manifest).runs == HISTORY
    runs = [each.run for each in seen["history"]]
    assert runs == sorted(runs, reverse=True)
    assert runs[0] == first.run
    assert all(map(comparisons, seen["history"][1:]))
    assert report_run(store, first).runs == HISTORY
    assert manifest.run not in [each.run for each in seen["history"]]


def test_runs_of_other_jobs_and_damaged_ones_are_no_history(output: Output) -> None:
    """What another job ran, what has no profile, and what cannot be read do not count."""
    store, manifest = output
    copies(store, manifest, 20, job="another")
    assert report_run(store, manifest).runs == 1
    copies(store, manifest, 20, profile={})
    assert report_run(store, manifest).runs == 1
    store.write(layout.run_file("20260101-aaaa", "manifest.json"), b"{")
    assert report_run(store, manifest).runs == 1


def test_two_tables_have_a_report(tmp_path: Path) -> None:
    """A comparison of tables that belong to no run is a page, from Python as from the terminal."""
    found = compare_data(factory.make_rows(), factory.make_rows(200, 40))
    page = report_comparison(found)
    path = tmp_path / "page.html"
    sides = found.reference.profile, found.current.profile
    assert write_report(path, found.drift, *sides) == path.stat().st_size
    for text in (page.html, path.read_text()):
        assert text.lstrip().lower().startswith("<!doctype html>")
        assert "part" in text


def test_rules_return_from_a_manifest() -> None:
    """What a manifest keeps of the rules is all of them."""
    rules = Rules(
        alpha=0.01,
        columns=frozenset({"b", "a"}),
        thresholds={"psi": Thresholds(0.1, None)},
        column_thresholds={"a": {"ks": Thresholds(None, 0.2)}},
    )
    for each in (rules, Rules()):
        assert rules_from_json(rules_to_json(each)) == each
