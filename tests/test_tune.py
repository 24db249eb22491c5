"""Test that stored nights are replayed, and that tuned thresholds do in a run what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.factory import change_job, run_cli, run_json, write_model, write_shard
from tests.test_drift_runs import begin_job, make_rows, profile_file

pytestmark = pytest.mark.slow

SHIFTS = {f"2026-11-{day:02d}": shift for day, shift in enumerate((0.0, 0.3, 0.9, 0.1, 0.35), 1)}


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose five nights are published; three of them fail, the third by far the most."""
    folder = tmp_path_factory.mktemp("nights")
    training = begin_job(folder / "training", make_rows(1))
    profile = profile_file(folder / "training", run_json("run", training)).read_bytes()
    by_date = {"params": {"date": {"type": "date"}}, "input.path": "in/${date}.parquet"}
    job = begin_job(folder, make_rows(1), {**by_date, "drift.on_fail": "warn"})
    write_model(folder / "model", profile=profile)
    for number, (day, shift) in enumerate(SHIFTS.items()):
        write_shard(folder / f"in/{day}.parquet", make_rows(10 + number, shift))
        run_json("run", job, "--param", f"date={day}")
    return job


def runs_of(job: Path) -> list[dict[str, Any]]:
    """Return the runs of the job's output, newest first."""
    found: list[dict[str, Any]] = json.loads(run_cli("runs", "--json", job.parent / "out").stdout)
    return found


def failed(document: dict[str, Any], key: str) -> list[str]:
    """Return the nights that fail."""
    return [each["night"] for each in document["nights"] if each[key]]


def test_each_night_comes_out_as_its_run_did(nights: Path) -> None:
    """By the job's own thresholds the replay fails where the runs failed."""
    found = run_json("tune", nights.parent / "out", "--pages", "1/5")
    runs = runs_of(nights)
    verdicts = {run["params"]["date"]: run["drift"]["verdict"] for run in runs}
    assert failed(found, "fails") == sorted(day for day in verdicts if verdicts[day] == "fail")
    assert failed(found, "fails") == ["2026-11-02", "2026-11-03", "2026-11-05"]
    assert failed(found, "fails_tuned") == ["2026-11-03"]


def test_drift_is_shown_up_to_a_run(nights: Path) -> None:
    """`show --trend` has each night's effect as its manifest has it, and no night after the run."""
    out = nights.parent / "out"
    found = run_json("show", out, "--trend")
    runs = runs_of(nights)[::-1]
    assert [each["of"] for each in found["runs"]] == [*SHIFTS]
    psi = next(m for m in found["measures"] if (m["column"], m["measure"]) == ("a", "psi"))
    aspects = [run["drift"]["comparisons"][0]["aspects"] for run in runs]
    mine = [
        next(a for a in each if (a["column"], a["aspect"]) == ("a", "value")) for each in aspects
    ]
    kept = [next(m["value"] for m in each["measures"] if m["name"] == "psi") for each in mine]
    assert psi["values"] == kept
    done = run_cli("show", out, runs[2]["run"], "--trend")
    assert "3 runs, 2026-11-01 to 2026-11-03" in done.stdout


def test_tuned_thresholds_alarm_in_runs_as_promised(nights: Path, tmp_path: Path) -> None:
    """The section that is written goes into the job file as it is; only the worst night fails."""
    written = tmp_path / "tuned.yaml"
    done = run_cli("tune", nights.parent / "out", "--pages", "1/5", "-o", written)
    assert done.exit_code == 0, done.output
    section = yaml.safe_load(written.read_text())["drift"]["column_thresholds"]
    job = change_job(nights.parent, {"drift.column_thresholds": section, "output.path": "again"})
    for day in SHIFTS:
        drift = run_json("run", job, "--param", f"date={day}")["drift"]
        assert (drift["verdict"] == "fail") == (day == "2026-11-03"), day
    change_job(nights.parent, {"drift.column_thresholds": {}, "output.path": "out"})
    second = run_cli("tune", nights.parent / "out", "-o", written)
    assert second.exit_code == 2
    assert "exists, and is not replaced" in second.stderr


def test_other_thresholds_can_be_tried(nights: Path) -> None:
    """With thresholds of the option no night alarms, and nothing is to be tuned."""
    tried = [f"--threshold={name}=0.9,1" for name in ("psi", "ks", "w1", "tail")]
    done = run_cli("tune", nights.parent / "out", *tried)
    assert "0 of 5 nights alarm" in done.stdout
    assert "nothing to tune" in done.stdout


def test_a_night_without_its_profile_is_left_out_by_name(nights: Path) -> None:
    """The others are replayed."""
    run = runs_of(nights)[0]
    profile = nights.parent / f"out/_batchscore/runs/{run['run']}/profile.parquet"
    content = profile.read_bytes()
    profile.unlink()
    try:
        found = run_json("tune", nights.parent / "out")
    finally:
        profile.write_bytes(content)
    (line,) = found["skipped"]
    assert line.startswith(f"{run['params']['date']}: profile ")
    assert "no such file" in line
    assert len(found["nights"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pages", "2"], "expected a share of nights such as 1/30"),
        (["--pages", "1/0"], "expected a share of nights"),
        (["--threshold", "psy=1,2"], "there is no measure 'psy'"),
        (["-o", "tuned.parquet"], "ends in .yaml"),
    ],
    ids=["pages", "zero", "measure", "name"],
)
def test_wrong_options_are_refused(nights: Path, arguments: list[str], message: str) -> None:
    """One message, and nothing is written."""
    done = run_cli("tune", nights.parent / "out", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_was_never_compared_is_refused(tmp_path: Path) -> None:
    """The message says what a replay needs."""
    job = begin_job(tmp_path, make_rows(1))
    run_json("run", job)
    done = run_cli("tune", tmp_path / "out")
    assert done.exit_code == 2
    assert "no run was compared with a reference yet" in done.stderr
    assert json.loads(run_cli("tune", tmp_path / "out", "--json").stdout)["exit_code"] == 2
