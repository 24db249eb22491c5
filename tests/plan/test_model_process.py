"""Tests of the choice between a process for the model and none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batchscore.errors import InvalidError
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan, model_process
from batchscore.plan.model_process import with_model_process
from tests import factory


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A plan of a job with a torch model."""
    return make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))


def chosen(plan: Plan, workers: int = 1, **runtime: str) -> tuple[bool, str]:
    """What is chosen for other values of the job's runtime section, and why."""
    job = plan.loaded.job
    changed = job.model_copy(update={"runtime": job.runtime.model_copy(update=runtime)})
    made = with_model_process(replace(plan, loaded=replace(plan.loaded, job=changed)), workers)
    return made.spec.execution.model_process, made.choices["model_process"]


def with_rows(plan: Plan, rows: int) -> Plan:
    """The plan as if its row groups had so many rows."""
    piece = plan.pieces[0]
    return replace(plan, pieces=(replace(piece, sizes=(rows,)),))


def test_what_is_asked_for_is_chosen(plan: Plan) -> None:
    """The reason says that it was asked for."""
    assert chosen(plan, model_process="on") == (True, "on, as asked for")
    assert chosen(plan, model_process="off") == (False, "off, as asked for")


def test_auto_says_why(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is chosen where it makes the run faster, as far as that was measured."""
    many = with_rows(plan, 2_000_000)
    fields = "off, since torch is imported in this process already"
    assert chosen(many, model_process="auto") == (False, fields)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(model_process, "shows_gpu", lambda: False)
    monkeypatch.setattr(model_process, "count_cores", lambda: 2)
    assert chosen(plan) == (False, "off, since 500 rows are soon done")
    assert chosen(many)[0]
    why = "on, so that 2 workers share one model and its framework"
    assert chosen(plan, workers=2) == (True, why)
    assert chosen(many, engine="flink") == (False, "off, since it was not measured on engine flink")
    assert chosen(many, device="cuda:1") == (False, "off, since it was not measured on a GPU")
    monkeypatch.setattr(model_process, "count_cores", lambda: 1)
    assert chosen(many) == (False, "off, since there is one core")
    assert chosen(many, workers=2) == (True, why)


def test_a_model_in_memory_is_in_no_other_process(plan: Plan) -> None:
    """To ask for one is an error, and the message says what to set."""
    model = replace(plan.spec.scoring.model, folder="memory://model")
    spec = replace(plan.spec, scoring=replace(plan.spec.scoring, model=model))
    hidden = replace(plan, spec=spec)
    fields = "off, since the model is in this process's memory"
    assert chosen(hidden, model_process="auto") == (False, fields)
    with pytest.raises(InvalidError, match="the model is in this process's memory; set it to auto"):
        chosen(hidden, model_process="on")
