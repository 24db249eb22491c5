"""Test that a run knows what its output's earlier nights differ by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factory import run_cli, run_json, write_model, write_shard
from tests.test_drift_runs import begin_job, make_rows, profile_file

pytestmark = pytest.mark.slow

NIGHTS = 11
SHIFTS = (0.3, -0.3, 0.25, -0.3, 0.3, -0.25, 0.3, -0.3, 0.25, -0.3, 2.0)


@pytest.fixture(scope="module")
def nightly(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A job whose nights differ by more than their rows tell, the last by far the most."""
    folder = tmp_path_factory.mktemp("nights")
    training = begin_job(folder / "training", make_rows(1))
    profile = profile_file(folder / "training", run_json("run", training)).read_bytes()
    by_date = {"params": {"date": {"type": "date"}}, "input.path": "in/${date}.parquet"}
    job = begin_job(folder, make_rows(1), {**by_date, "drift.on_fail": "warn"})
    write_model(folder / "model", profile=profile)
    runs = []
    for number, shift in enumerate(SHIFTS):
        day = f"2026-11-{number + 1:02d}"
        write_shard(folder / f"in/{day}.parquet", make_rows(10 + number, shift))
        runs.append(run_json("run", job, "--param", f"date={day}"))
    return job, runs


def test_nights_that_differ_as_always_do_not_alarm(
    nightly: tuple[Path, list[dict[str, Any]]],
) -> None:
    """Rows alone decide on the first eight nights; then only what is more than usual alarms."""
    _, runs = nightly
    verdicts = [run["drift"]["verdict"] for run in runs]
    assert set(verdicts[:8]) <= {"warn", "fail"}
    assert verdicts[8:] == ["ok", "ok", "fail"]
    assert all("usual" not in run["drift"]["comparisons"][0] for run in runs[:8])
    usual = runs[9]["drift"]["comparisons"][0]["usual"]
    assert {each["column"] for each in usual} >= {"a"}
    assert all(each["effect"] < each["nights_differ_by"] for each in usual)


def test_a_person_reads_what_does_not_count(nightly: tuple[Path, list[dict[str, Any]]]) -> None:
    """`show` names the measure, its effect, and what earlier nights differ by."""
    job, runs = nightly
    shown = run_cli("show", job.parent / "out", runs[9]["run"]).stdout
    assert "does not count, since earlier nights differ by up to 0." in shown
    report = job.parent / "report.html"
    assert run_cli("report", job.parent / "out", runs[9]["run"], "-o", report).exit_code == 0
    assert "Drift: ok." in report.read_text(encoding="utf-8")


def test_a_replay_judges_each_night_as_its_run_did(
    nightly: tuple[Path, list[dict[str, Any]]],
) -> None:
    """`tune` knows what each night knew of the nights before."""
    job, runs = nightly
    found = run_json("tune", job.parent / "out", "--pages", "1/1")
    failed = [each["night"] for each in found["nights"] if each["fails"]]
    assert failed == [run["params"]["date"] for run in runs if run["drift"]["verdict"] == "fail"]
    assert np.isin("2026-11-11", failed)
