"""Tests of how long `check` expects scoring to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.job import load_job
from batchscore.plan import Plan, Work, make_plan, rehearsal, settle
from batchscore.plan.rehearsal import Rehearsal, estimate_seconds
from batchscore.worker.spec import Execution
from tests import factory

BATCH = Rehearsal(
    rows=50,
    scored=50,
    reject_reasons={},
    seconds={"read": 0.1, "preprocess": 0.2, "infer": 0.4, "tiles": 0.5, "write": 0.3},
    columns=(),
    example={},
    golden=(),
)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Plan, Work]:
    """A plan on the CPU, whose 500 rows are all to be scored."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    plan = replace(plan, spec=replace(plan.spec, execution=on(plan, device="cpu")))
    return plan, settle(plan)


def on(plan: Plan, **changes: Any) -> Execution:
    """The plan's execution with changes."""
    return replace(plan.spec.execution, **changes)


@pytest.mark.parametrize(
    ("own_process", "workers", "cores", "batch_s"),
    [
        (False, 1, 8, 0.6),
        (True, 1, 8, 0.4),
        (True, 2, 8, 0.2),
        (False, 1, 2, 0.75),
        (True, 1, 2, 0.55),
        (True, 4, 2, 0.55),
    ],
)
def test_what_overlaps_counts_once(
    planned: tuple[Plan, Work],
    monkeypatch: pytest.MonkeyPatch,
    own_process: bool,
    workers: int,
    cores: int,
    batch_s: float,
) -> None:
    """The busiest thread decides, a model's process among them, or else the cores."""
    plan, work = planned
    monkeypatch.setattr(rehearsal, "count_cores", lambda: cores)
    execution = on(plan, model_process=own_process)
    plan = replace(plan, workers=workers, spec=replace(plan.spec, execution=execution))
    assert estimate_seconds(plan, work, BATCH) == pytest.approx(10 * batch_s)
