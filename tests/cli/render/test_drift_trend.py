"""Test the plots of drift in a terminal: worst first, with thresholds, noise, events and trends."""

from __future__ import annotations

from typing import Any

from batchscore.cli.render.drift_trend import LISTED, drift_trend, drift_trend_json
from batchscore.report.past import PastRun, runs_of
from batchscore.runs.manifest_model import Manifest
from tests.manifests import make_manifest

DECISION = {"by": "me", "at": "2026-11-22T08:00:00+00:00", "reason": "a strike"}


def night(number: int, columns: dict[str, float], verdict: str = "ok", **more: Any) -> Manifest:
    """Returns the manifest of a night on which columns had a PSI."""
    limits = {"name": "psi", "floor": 0.02, "warn": 0.1, "fail": 0.25, "outcome": "ok"}
    aspects = [
        {"column": name, "aspect": "value", "verdict": "ok", "measures": [{**limits, "value": psi}]}
        for name, psi in columns.items()
    ]
    return make_manifest(
        run=f"r{number:02d}",
        started=f"2026-11-{number + 1:02d}T00:00:00+00:00",
        drift={"verdict": verdict, "comparisons": [{"verdict": verdict, "aspects": aspects}]},
        **more,
    )


def runs(*nights: Manifest) -> list[PastRun]:
    """Returns nights, the oldest first, as what is looked back on."""
    return runs_of(nights[-1], nights[-2::-1])


def test_a_plot_reaches_its_threshold_at_the_top() -> None:
    """A bar as high as the plot is at the threshold, so that plots compare; the worst is first."""
    three = [night(i, {"a": 0.02 * i, "b": 0.125 * i}) for i in range(3)]
    found = drift_trend("job", runs(*three), is_unicode=True)
    assert found[0] == "job   3 runs, 2026-11-01 to 2026-11-03"
    rows = [line.split() for line in found if " PSI " in line]
    assert rows == [
        ["b", "PSI", "▁▅█", "0.25", "0.02", "0.1", "/", "0.25"],
        ["a", "PSI", "▁▂▂", "0.04", "0.02", "0.1", "/", "0.25"],
    ]


def test_verdicts_models_and_releases_have_signs() -> None:
    """Each sign is below its run, and a line says what it is."""
    models = [{"name": "m", "version": each, "identity": "2b68"} for each in ("1", "2")]
    found = drift_trend(
        "job",
        runs(
            night(0, {"a": 0.1}, model=models[0]),
            night(1, {"a": 0.1}, "warn", model=models[1]),
            night(2, {"a": 0.3}, "fail", model=models[1], released=DECISION),
        ),
        is_unicode=False,
    )
    place = found[1].index("trend")
    cells = {line[:7].strip(): line[place : place + 3] for line in found[2:5]}
    assert cells == {"verdict": ".wF", "a": "--#", "events": " mr"}
    assert "m 2026-11-02: model m 2" in found
    assert "r 2026-11-03: released" in found
    assert "w warn, F fail" in found


def test_slow_drift_is_said() -> None:
    """A measure that creeps is named with its slope, though no night failed."""
    nights = [night(i, {"a": 0.002 * i, "b": 0.01 * (i % 2)}) for i in range(20)]
    found = drift_trend("job", runs(*nights), is_unicode=True)
    assert found[found.index("Slow drift") + 1].startswith("a, PSI: Rises by about 0.002 a run")
    assert not any(line.startswith("b, PSI: ") for line in found)


def test_what_is_left_out_is_counted() -> None:
    """Of many columns the worst are shown, and all of them as JSON."""
    nights = [night(i, {f"c{j}": 0.001 * j for j in range(30)}) for i in range(2)]
    found = drift_trend("job", runs(*nights), is_unicode=True)
    assert sum(" PSI " in line for line in found) == LISTED
    assert found[-1] == "10 measures with smaller effects left out; --json has all"
    document = drift_trend_json("job", runs(*nights))
    assert len(document["measures"]) == 30
    worst = document["measures"][0]
    assert (worst["column"], worst["values"], worst["trend"]) == ("c29", (0.029, 0.029), None)


def test_without_a_second_judged_night_there_is_nothing_to_draw() -> None:
    """The answer says why there is no plot."""
    (line,) = drift_trend("job", runs(night(0, {"a": 0.1})), is_unicode=True)
    assert line == "job   nothing to draw: fewer than two runs judged a column"
