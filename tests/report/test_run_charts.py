"""Test the charts of a column over runs: what they show, with which limits, and what they say."""

from __future__ import annotations

from typing import Any

import pytest

from batchscore.report.past import runs_of
from batchscore.report.run_charts import MEASURES_SHOWN, Chart, charts_of
from batchscore.runs.manifest_model import Manifest
from tests.manifests import make_manifest

DECISION = {"by": "me", "at": "2026-11-22T08:00:00+00:00", "reason": "a strike"}


def measure(name: str, value: float, **more: Any) -> dict[str, Any]:
    """Returns a measure as manifests keep it."""
    limits = {"warn": 0.1, "fail": 0.25}
    outcome = "fail" if value >= 0.25 else "ok"
    return {"name": name, "value": value, "floor": 0.01, "outcome": outcome, **limits, **more}


def night(number: int, *measures: dict[str, Any], model: str = "1.0.0", **more: Any) -> Manifest:
    """Returns the manifest of a night whose column `x` was judged by measures."""
    aspects = [{"column": "x", "aspect": "value", "verdict": "ok", "measures": [*measures]}]
    profile = {"x": {"count": 10, "nulls": 0, "p05": 0.5, "p50": float(number), "p95": 40.0}}
    return make_manifest(
        run=f"r{number:02d}",
        started=f"2026-11-{number + 1:02d}T00:00:00+00:00",
        profile=profile,
        drift={"verdict": "ok", "comparisons": [{"verdict": "ok", "aspects": aspects}]},
        model={"name": "m", "version": model, "identity": "2b68"},
        **more,
    )


def charts(nights: list[Manifest]) -> dict[str, Chart]:
    """Returns the charts of `x` by their titles."""
    return {chart.title: chart for chart in charts_of("x", runs_of(nights[-1], nights[-2::-1]))}


def test_a_measure_is_drawn_with_its_limits_and_its_noise() -> None:
    """The chart has the thresholds as lines and in words, the floor, and a line for each run."""
    chart = charts([night(i, measure("psi", 0.02 * i)) for i in range(6)])["PSI"]
    kinds = [line.kind for line in chart.drawing.lines]
    assert kinds == ["limit warn", "limit fail", "floor", "over", "dots"]
    assert chart.note == "Warns from 0.1, fails from 0.25."
    assert chart.lines[5] == ("2026-11-06", "ok", "0.1", "0.01", "r05", "")


def test_the_worst_measures_are_drawn() -> None:
    """Of many measures those nearest to their failure have a chart."""
    names = ["psi", "ks", "js", "wasserstein", "mean_shift"]
    nights = [night(i, *(measure(n, 0.01 * k) for k, n in enumerate(names))) for i in range(3)]
    shown = [chart for chart in charts(nights).values() if chart.heads[2] == "effect"]
    assert len(shown) == MEASURES_SHOWN
    assert "PSI" not in {chart.title for chart in shown}


def test_releases_and_models_are_events() -> None:
    """A line marks the run of another model and one that a person released; the table names it."""
    nights = [
        night(1),
        night(2, model="2.0.0"),
        night(3, model="2.0.0", released=DECISION),
        night(4, model="2.0.0"),
    ]
    chart = charts(nights)["Median, with 5 % to 95 %"]
    assert [line[-1] for line in chart.lines] == ["", "model m 2.0.0", "released", ""]
    assert [line.path for line in chart.drawing.lines if line.kind == "event"] == [
        "M37.5 0V100",
        "M62.5 0V100",
    ]
    assert chart.drawing.zones[1].words.endswith("model m 2.0.0")


def test_slow_drift_is_said() -> None:
    """A measure that creeps below its threshold for many nights has a sentence of its own."""
    nights = [night(i, measure("psi", 0.003 * i)) for i in range(20)]
    note = charts(nights)["PSI"].note
    assert note.endswith("Rises by about 0.003 a run over 20 runs (Mann-Kendall, p < 0.001).")
    assert "Rises" not in charts(nights[:4])["PSI"].note


@pytest.mark.parametrize("floor", [None, 40.0])
def test_a_floor_far_above_does_not_press_the_chart_flat(floor: float | None) -> None:
    """Where noise may reach far more than the threshold, the table alone has it."""
    chart = charts([night(i, measure("psi", 0.02 * i, floor=floor)) for i in range(3)])["PSI"]
    assert "floor" not in [line.kind for line in chart.drawing.lines]
    assert chart.lines[0][3] == ("none" if floor is None else "40")


def test_a_column_of_one_run_has_no_chart() -> None:
    """One night is no history."""
    assert charts([night(1, measure("psi", 0.1))]) == {}
