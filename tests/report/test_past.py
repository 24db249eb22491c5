"""Test the history of columns over runs."""

from __future__ import annotations

from typing import Any

from batchscore.report.past import RUNS, column_history, runs_of
from batchscore.runs.manifest_model import Manifest
from tests.manifests import make_manifest


def run(number: int, verdict: str = "ok", **column: Any) -> Manifest:
    """Returns a manifest whose profile has the column `x`."""
    aspects = [
        {"column": "x", "verdict": verdict, "judged": True},
        {"column": "x", "verdict": "fail", "judged": False},
    ]
    drift = {"verdict": verdict, "comparisons": [{"verdict": verdict, "aspects": aspects}]}
    profile = {"x": {"count": 10, "nulls": number, "nan": 1, **column}}
    started = "2026-01-01T00:00:00+00:00"
    return make_manifest(run=f"r{number}", started=started, profile=profile, drift=drift)


def test_runs_are_listed_oldest_first_and_once() -> None:
    """Earlier runs come first, and the reported one, which the history may hold too, last."""
    runs = runs_of(run(3), [run(3), run(2), run(1)])
    assert [each.run for each in runs] == ["r1", "r2", "r3"]


def test_only_the_last_runs_are_shown() -> None:
    """The page looks back on a bounded number of runs, the newest."""
    runs = runs_of(run(0), [run(i) for i in range(1, 100)])
    assert len(runs) == RUNS
    assert [runs[0].run, runs[-1].run] == [f"r{RUNS - 1}", "r0"]


def test_missing_values_are_nulls_and_nan() -> None:
    """The share of nulls counts NaN as missing; what does not take part gives no verdict."""
    past = column_history("x", runs_of(run(2, "warn", p50=5.0), [run(1, p50=4.0)]))
    assert past == {"nulls": [0.2, 0.3], "verdict": ["ok", "warn"], "p50": [4, 5]}


def test_quantiles_that_differ_late_stay_apart() -> None:
    """Quantiles are rounded, but never so far that those of two runs become the same."""
    runs = [run(1, p50=12345678.25), run(2, p50=12345678.5), run(3, p50=1 / 3)]
    past = column_history("x", runs_of(runs[2], runs[1::-1]))
    assert past["p50"] == [12345678.2, 12345678.5, 0.333333333]


def test_a_column_of_one_run_has_no_history() -> None:
    """One run is no history, and neither is a run that has not the column."""
    assert column_history("x", runs_of(run(1), [])) == {}
    assert column_history("y", runs_of(run(1), [run(2)])) == {}


def test_a_column_without_values_of_its_own_is_seen_by_an_aspect() -> None:
    """A vector has the history of its norm, and the page says so."""
    runs = [run(i, aspects={"norm": {"p50": float(i)}, "vector": {}}) for i in (1, 2)]
    past = column_history("x", runs_of(runs[1], runs[:1]))
    assert (past["of"], past["p50"]) == ("norm", [1, 2])


def test_categories_have_the_share_of_the_most_frequent_value() -> None:
    """Of texts the history is that of the largest share."""
    runs = [run(i, top=[{"value": "a", "count": i, "share": i / 4}]) for i in (1, 2)]
    assert column_history("x", runs_of(runs[1], runs[:1]))["top"] == [0.25, 0.5]


def test_a_run_that_failed_early_is_looked_past() -> None:
    """Manifests without profile or drift do not break the history."""
    failed = make_manifest(run="f", status="failed")
    runs = runs_of(run(2), [failed, run(1)])
    assert column_history("x", runs)["nulls"] == [0.2, None, 0.3]
    assert runs[1].verdict is None


def test_runs_of_a_job_by_dates_are_distinguished_by_them() -> None:
    """A run is named by its parameters, without any by the day on which it began."""
    of_day = run(1).updated(params={"date": "2013-09-01"})
    assert [each.about for each in runs_of(run(2), [of_day])] == ["2013-09-01", "2026-01-01"]
