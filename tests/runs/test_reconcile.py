"""Test that rows which do not add up are refused, and that attempts are chosen alike by all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import FailedError
from batchscore.runs.reconcile import Rows, reconcile
from batchscore.units.record import StagedFile, UnitRecord

COUNTS = st.integers(0, 10**9)


@st.composite
def records(draw: st.DrawFn, unit: str) -> UnitRecord:
    """A record whose rows add up."""
    filtered, *files = draw(st.lists(COUNTS, min_size=1, max_size=4))
    reasons = draw(st.dictionaries(st.sampled_from(["a", "b"]), COUNTS, max_size=2))
    rejected, scored = sum(reasons.values()), sum(files)
    return UnitRecord(
        unit=unit,
        attempt=f"{unit}-1",
        run="r",
        pieces=(),
        read=filtered + scored + rejected,
        filtered=filtered,
        scored=scored,
        rejected=rejected,
        reject_reasons=reasons,
        rejects_file=None,
        files=tuple(StagedFile(f"{n}", "", rows, 1, "") for n, rows in enumerate(files)),
        columns=(("id", "int64"),),
        seconds={},
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, UnitRecord], dict[str, int], int, int]:
    """The records of a run, its plan, pruned rows and all rows."""
    made = [draw(records(f"u{number}")) for number in range(draw(st.integers(1, 4)))]
    pruned = draw(COUNTS)
    planned = {record.unit: record.read for record in made}
    return {r.unit: r for r in made}, planned, pruned, pruned + sum(planned.values())


Run = tuple[dict[str, UnitRecord], dict[str, int], int, int]


@pytest.mark.slow
@given(runs())
def test_rows_that_add_up_are_added_up(run: Run) -> None:
    """Every row of the input is filtered, scored or rejected, once."""
    rows = reconcile(*run)
    assert rows.input == run[3] == rows.filtered + rows.scored + rows.rejected
    assert rows.scored == sum(file.rows for r in run[0].values() for file in r.files)


TAMPERED = ["read", "filtered", "scored", "rejected", "files", "reasons", "planned", "pruned"]


def _tamper(run: Run, what: str, unit: str, by: int) -> Run:
    found, planned, pruned, shard_rows = run
    record = found[unit]
    if what == "planned":
        return found, {**planned, unit: planned[unit] + by}, pruned, shard_rows
    if what == "pruned":
        return found, planned, pruned + by, shard_rows
    change: dict[str, Any] = {}
    if what == "files":
        change["files"] = (*record.files, StagedFile("x", "", by, 1, ""))
    elif what == "reasons":
        change["reject_reasons"] = {**record.reject_reasons, "more": by}
    else:
        change[what] = getattr(record, what) + by
    return {**found, unit: replace(record, **change)}, planned, pruned, shard_rows


@pytest.mark.slow
@given(runs(), st.sampled_from(TAMPERED), st.integers(-5, 5).filter(bool), st.data())
def test_any_count_that_is_off_is_refused(
    run: Run, what: str, by: int, data: st.DataObject
) -> None:
    """A single count that is changed, by however little, leaves a run unpublished."""
    unit = data.draw(st.sampled_from(sorted(run[0])))
    with pytest.raises(FailedError, match="nothing was published"):
        reconcile(*_tamper(run, what, unit, by))
    with pytest.raises(FailedError, match="rows do not add up"):
        reconcile(run[0], run[1], run[2], run[3] + by)


@pytest.mark.slow
@given(runs(), st.permutations(["filtered", "scored", "rejected"]), st.integers(1, 5))
def test_a_row_that_moved_from_one_count_to_another_is_refused(
    run: Run, counts: list[str], by: int
) -> None:
    """Counts whose sum still fits are compared with the files and the reasons."""
    unit = sorted(run[0])[0]
    tampered = _tamper(_tamper(run, counts[0], unit, by), counts[1], unit, -by)
    with pytest.raises(FailedError, match=f"unit {unit}"):
        reconcile(*tampered)


@pytest.mark.slow
@given(runs(), st.booleans())
def test_a_unit_too_few_or_too_many_is_refused(run: Run, missing: bool) -> None:
    """Units without a record, and records of no unit, are named."""
    found, planned, pruned, rows = run
    if missing:
        found = {unit: record for unit, record in found.items() if unit != "u0"}
    else:
        found = {**found, "strange": replace(found["u0"], unit="strange")}
    with pytest.raises(FailedError, match="u0" if missing else "strange"):
        reconcile(found, planned, pruned, rows)


def test_units_of_different_columns_are_refused() -> None:
    """Files that could not be read as one table are not published, but empty units are no files."""

    def record(unit: str, scored: int, kind: str) -> UnitRecord:
        files = (StagedFile("x", "", scored, 1, ""),) if scored else ()
        columns = (("score", kind),) if scored else ()
        counts = (scored, 0, scored, 0)
        return UnitRecord(unit, f"{unit}-1", "r", (), *counts, {}, None, files, columns, {})

    fitting = {"a": record("a", 2, "float"), "b": record("b", 0, ""), "c": record("c", 3, "float")}
    planned = {unit: made.read for unit, made in fitting.items()}
    assert reconcile(fitting, planned, 0, 5) == Rows(5, 0, 5, 0)
    with pytest.raises(FailedError, match="score float; and score double"):
        reconcile({**fitting, "c": record("c", 3, "double")}, planned, 0, 5)
