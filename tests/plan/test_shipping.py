"""Test what is never sent to workers, and that a job with such files is refused before any work."""

from __future__ import annotations

import importlib.machinery
from dataclasses import replace
from pathlib import Path

import pytest

from batchscore.engines.direct import DirectEngine
from batchscore.engines.flink import FlinkEngine
from batchscore.errors import FunctionError, InvalidError, ModelError
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan
from batchscore.plan.shipping import pack
from tests import factory


def planned(home: Path, *code: str) -> Plan:
    """The plan of a job that declares files."""
    for name in code:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"content")
    return make_plan(load_job(str(factory.write_job(home, {"code": list(code)}))))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}", "native extension.*install it as a"),
        (".env", "is hidden.*never sent to workers"),
        ("lists/.token", "is hidden.*rename it"),
    ],
)
def test_files_that_do_not_travel_are_refused(name: str, words: str, tmp_path: Path) -> None:
    """The engine that would send them refuses them by name; one of this machine does not."""
    plan = planned(tmp_path, name)
    assert DirectEngine().place(plan, ()).workers == 1
    with pytest.raises(FunctionError, match=words):
        FlinkEngine().place(plan, ())


def test_a_hidden_file_of_a_model_is_refused(tmp_path: Path) -> None:
    """Only an evaluation, which no worker reads, may be one."""
    plan = planned(tmp_path)
    scoring = plan.spec.scoring
    model = replace(scoring.model, sha256={**scoring.model.sha256, ".vocab": "0" * 64})
    plan = replace(plan, spec=replace(plan.spec, scoring=replace(scoring, model=model)))
    with pytest.raises(ModelError, match=r"'\.vocab' is hidden"):
        FlinkEngine().place(plan, ())


@pytest.mark.parametrize("name", ["lists/a.txt", "model/net.py"])
def test_a_file_that_changed_since_is_refused(name: str, tmp_path: Path) -> None:
    """What is sent is what the score hash covers."""
    plan = planned(tmp_path, "lists/a.txt")
    (tmp_path / name).write_text("edited")
    with pytest.raises(InvalidError, match=f"{name} was changed since it was hashed; run again"):
        pack(plan)
    (tmp_path / name).unlink()
    with pytest.raises(InvalidError, match=f"{name} cannot be read"):
        pack(plan)


def test_golden_rows_travel_and_an_evaluation_does_not(tmp_path: Path) -> None:
    """Workers score the golden rows and compare profiles; nobody there reads an evaluation."""
    planned(tmp_path)
    more = {"evaluation.json": b"{}", "extra.json": b"{}"}
    golden = {"golden.parquet": factory.make_rows(2)}
    factory.write_model(
        tmp_path / "model",
        tables=golden,
        more=more,
        golden="golden.parquet",
        evaluation="evaluation.json",
    )
    plan = make_plan(load_job(str(tmp_path / "job.yaml")))
    sent = {"net.py", "weights.safetensors", "golden.parquet", "extra.json"}
    assert pack(plan).model.keys() == sent
