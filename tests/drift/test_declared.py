"""A measure is declared in one place, and each surface reads that declaration."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchscore.cli.render.drift import drift_lines
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules, Shares, TableDrift, Thresholds
from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.measures.declaration import Difference, MeasureSpec
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile
from batchscore.finish.drift_gate import summarize
from batchscore.report.formats import measure_words
from docs.make_drift_table import PAGE, render

TOY = MeasureSpec(
    name="toy",
    kinds=("numbers",),
    find=lambda sides: [Difference(2.0, lambda alpha: 1.0, shares=Shares(0.1, 0.9))],
    label="Toy",
    meaning="always two",
    tested=True,
    defaults=Thresholds(1.0, 3.0),
    most=4.0,
    words="a toy of",
    changed=lambda shares, title: f"{shares.now} is not {shares.before} of {title}",
    samples="nothing",
    noise="never",
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare one more measure."""
    monkeypatch.setitem(MEASURES, "toy", TOY)


def profile() -> TableProfile:
    """Return the profile of one column of numbers."""
    table = TableProfile.empty()
    table.update(pa.record_batch([pa.array(np.arange(1000.0))], names=["x"]))
    return table


def compared(rules: Rules) -> TableDrift:
    """Compare the same data twice, so that no other measure alarms."""
    return compare_profiles(profile(), profile(), rules)


@pytest.mark.usefixtures("toy")
def test_a_declared_measure_is_judged_printed_and_reported() -> None:
    """Verdict, sentence, table, manifest, report and docs know it from its declaration alone."""
    drift = compared(Rules())
    assert drift.verdict == "warn"
    said = sentences(drift, profile(), profile(), "run r1")
    assert said == {("x", "value"): "x: 0.9 is not 0.1 of run r1; a toy of 2, warns from 1"}
    summary = summarize(drift, said)
    assert [m["outcome"] for m in summary["aspects"][0]["measures"] if m["name"] == "toy"] == [
        "warn"
    ]
    assert any("toy" in line for line in drift_lines(summary, every=False))
    assert measure_words()["toy"] == ("Toy", "always two")
    assert "| `toy` | nothing | 1 | 3 | never |" in render()


@pytest.mark.usefixtures("toy")
def test_a_declared_measure_has_thresholds() -> None:
    """Rules raise its thresholds, up to the largest effect that it declares."""
    assert compared(Rules(thresholds={"toy": Thresholds(None, 2.0)})).verdict == "fail"
    assert compared(Rules(column_thresholds={"x": {"toy": Thresholds(3.0, 4.0)}})).verdict == "ok"
    with pytest.raises(ValueError, match="must be above 0 and at most 4"):
        compared(Rules(thresholds={"toy": Thresholds(1.0, 5.0)}))


def test_without_its_declaration_a_measure_is_unknown() -> None:
    """Nothing else names it."""
    with pytest.raises(ValueError, match="there is no measure 'toy'"):
        compared(Rules(thresholds={"toy": Thresholds(1.0, 2.0)}))


def test_the_page_on_drift_has_the_declared_measures() -> None:
    """`python -m docs.make_drift_table` would not change docs/drift.md."""
    assert render() in PAGE.read_text(encoding="utf-8")


def test_each_measure_says_all_that_its_surfaces_show() -> None:
    """A tested measure has words for sentences and docs; one that is only shown is not judged."""
    for name, spec in MEASURES.items():
        assert name == spec.name
        assert all((spec.kinds, spec.label, spec.meaning, spec.samples))
        assert spec.tested == bool(spec.words) == bool(spec.noise)
        assert spec.tested or spec.defaults == Thresholds(None, None)
