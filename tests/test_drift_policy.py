"""Test what of drift counts on a night: columns that are muted, and a job that still learns."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from batchscore.runs.history import slice_date
from tests.factory import change_job, run_cli, run_json, write_model, write_shard
from tests.test_drift_runs import begin_job, make_rows, profile_file

pytestmark = pytest.mark.slow

DAYS = ("2026-11-18", "2026-11-19", "2026-11-20")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of what the model was trained on."""
    folder = tmp_path_factory.mktemp("training")
    return profile_file(folder, run_json("run", begin_job(folder, make_rows(1)))).read_bytes()


@pytest.fixture
def nightly(training: bytes, tmp_path: Path) -> Path:
    """A job by date over three days, each of which drifted in `a` and in the score."""
    by_date = {"params": {"date": {"type": "date"}}, "input.path": "in/${date}.parquet"}
    job = begin_job(tmp_path, make_rows(1), by_date)
    write_model(tmp_path / "model", profile=training)
    for number, day in enumerate(DAYS):
        write_shard(tmp_path / f"in/{day}.parquet", make_rows(10 + number, 0.6))
    return job


def mutes(until: str, *columns: str) -> list[dict[str, str]]:
    """Return mutes of columns."""
    return [{"column": name, "until": until, "why": "a new sensor"} for name in columns]


def run_day(job: Path, day: str, *more: str) -> dict[str, Any]:
    """Run the job for a date."""
    return run_json("run", job, "--param", f"date={day}", *more)


def test_a_muted_column_does_not_count_until_its_last_day(nightly: Path) -> None:
    """The manifest keeps why, until when, and what its verdict would have been.

    On the last day it is muted; on the next one it counts, and a note asks for a decision.
    """
    change_job(nightly.parent, {"drift.mute": mutes(DAYS[1], "a", "score")})
    first, second, third = (run_day(nightly, day) for day in DAYS)
    assert [each["status"] for each in (first, second, third)] == ["published"] * 2 + ["held"]
    (comparison,) = second["drift"]["comparisons"]
    assert comparison["verdict"] == "ok"
    assert comparison["muted"][0] == {
        **mutes(DAYS[1], "a")[0],
        "verdict": "fail",
    }
    assert "muted" not in third["drift"]["comparisons"][0]
    assert f"drift.mute of a ended with {DAYS[1]}" in third["drift"]["notes"][0]


def test_check_and_run_name_a_mute(nightly: Path) -> None:
    """Both name the column, the day and the reason, so that no mute is forgotten."""
    change_job(nightly.parent, {"drift.mute": mutes(DAYS[0], "a", "score")})
    said = f"a is muted until {DAYS[0]}, a new sensor"
    assert said in run_cli("check", nightly, "--param", f"date={DAYS[0]}").stdout
    done = run_cli("run", nightly, "--param", f"date={DAYS[0]}")
    assert f"muted: a (fail) until {DAYS[0]}, a new sensor; score (fail)" in done.stdout


@pytest.mark.parametrize(
    ("mute", "message"),
    [
        ([{"column": "ab", "until": "2026-11-20", "why": "x"}], "there is no column 'ab'"),
        ([{"column": "a", "until": "tomorrow", "why": "x"}], "drift.mute.0.until"),
        ([{"column": "a", "until": "2026-11-20"}], "drift.mute.0.why"),
        (mutes("2026-11-20", "a", "a"), "column 'a' is muted twice; keep one"),
    ],
    ids=["column", "day", "reason", "twice"],
)
def test_a_wrong_mute_is_refused(nightly: Path, mute: Any, message: str) -> None:
    """Exit 2 and one message that names the key or the column."""
    change_job(nightly.parent, {"drift.mute": mute})
    done = run_cli("check", nightly, "--param", f"date={DAYS[0]}")
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_learns_only_warns(nightly: Path) -> None:
    """Until two nights are published failures warn, and the run says which night it is."""
    change_job(nightly.parent, {"drift.learn": 2})
    assert (
        "learning, night 1 of 2" in run_cli("check", nightly, "--param", f"date={DAYS[0]}").stdout
    )
    first, second, third = (run_day(nightly, day) for day in DAYS)
    assert [each["status"] for each in (first, second, third)] == ["published"] * 2 + ["held"]
    assert first["drift"]["verdict"] == "fail"
    assert second["drift"]["learning"] == {"night": 2, "of": 2}
    assert "learning" not in third["drift"]
    again = run_cli("run", nightly, "--param", f"date={DAYS[0]}", "--rescore")
    assert "drift  learning, night 1 of 2: failures only warn" in again.stdout


def test_without_a_date_the_runs_that_published_are_the_nights(
    training: bytes, tmp_path: Path
) -> None:
    """A job of one slice learns from its own runs."""
    job = begin_job(tmp_path, make_rows(2, 0.6), {"drift.learn": 1})
    write_model(tmp_path / "model", profile=training)
    assert run_json("run", job)["status"] == "published"
    assert run_json("run", job, "--rescore")["status"] == "held"


@pytest.mark.parametrize(
    ("slice_", "day"),
    [
        ("job=j,date=2026-11-20", date(2026, 11, 20)),
        ("job=j,region=eu", None),
        ("job=j,a=2026-99-99,b=2026-01-02", date(2026, 1, 2)),
    ],
)
def test_the_date_of_a_slice_is_read_from_its_name(slice_: str, day: date | None) -> None:
    """A text that only looks like a date is passed over."""
    assert slice_date(slice_) == day


@pytest.mark.parametrize("mode", ["warn", "hold", "off"])
def test_a_file_that_came_again_is_noticed(nightly: Path, mode: str) -> None:
    """A night with the rows of the one before says so, or is held; another one does not."""
    changes = {} if mode == "warn" else {"drift.repeated": mode}
    change_job(nightly.parent, {"drift.on_fail": "warn", **changes})
    shutil.copy(nightly.parent / f"in/{DAYS[0]}.parquet", nightly.parent / f"in/{DAYS[1]}.parquet")
    first, second, third = (run_day(nightly, day) for day in DAYS)
    held = "held" if mode == "hold" else "published"
    assert [each["status"] for each in (first, second, third)] == ["published", held, "published"]
    said = [[n for n in each["drift"]["notes"] if "again" in n] for each in (first, second, third)]
    assert said[0] == said[2] == []
    assert [*map(bool, said[1:2])] == [mode != "off"]
    if said[1]:
        assert f"the rows are those of {first['slice']} again" in said[1][0]
        assert first["run"] in said[1][0]
