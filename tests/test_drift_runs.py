"""Test that a run is compared with its references, and what follows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.drift.profile_file import write_table
from batchscore.drift.table import TableProfile
from batchscore.job.rules import REFERENCE_WORDS
from batchscore.runs.profiles import Reference
from tests.factory import (
    change_job,
    read_tree,
    run_cli,
    run_json,
    write_job,
    write_model,
    write_shard,
)

pytestmark = pytest.mark.slow

ROWS = 4000
DAYS = ("2026-11-12", "2026-11-18", "2026-11-19")  # a Thursday, a Wednesday, a Thursday


def make_rows(seed: int, shift: float = 0.0, first: int = 0) -> pa.Table:
    """Return rows of two normal columns, the first one shifted; `id` begins at `first`."""
    chance = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(first, first + ROWS),
            "a": (chance.normal(size=ROWS) + shift).astype(np.float32),
            "b": chance.normal(size=ROWS),
            "part": pa.array(chance.choice(["p0", "p1"], ROWS)),
        }
    )


def profile_file(folder: Path, run: dict[str, Any]) -> Path:
    """Return where the profile of a run lies."""
    return folder / f"out/_batchscore/runs/{run['run']}/profile.parquet"


def begin_job(folder: Path, rows: pa.Table, changes: dict[str, Any] | None = None) -> Path:
    """Write a job over one shard of `rows`."""
    job = write_job(folder, changes)
    (folder / "in/1.parquet").unlink()
    write_shard(folder / "in/0.parquet", rows)
    return job


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of what the model was trained on."""
    folder = tmp_path_factory.mktemp("training")
    return profile_file(folder, run_json("run", begin_job(folder, make_rows(1)))).read_bytes()


@pytest.fixture
def drifted(training: bytes, tmp_path: Path) -> Path:
    """A job whose column `a` moved by 0.6 since its model was trained."""
    job = begin_job(tmp_path, make_rows(2, 0.6, first=10**6))
    write_model(tmp_path / "model", profile=training)
    return job


def aspects(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the verdicts of judged values by column."""
    (comparison,) = manifest["drift"]["comparisons"]
    return {
        each["column"]: each["verdict"]
        for each in comparison["aspects"]
        if each["judged"] and each["aspect"] == "value"
    }


def test_without_a_reference_a_run_is_profiled_and_says_so(tmp_path: Path) -> None:
    """There is no check and no verdict, and the run is published."""
    job = begin_job(tmp_path, make_rows(1))
    done = run_cli("run", job)
    assert done.exit_code == 0
    assert "drift  not judged: no reference yet" in done.stdout
    manifest = run_json("show", job)
    assert (manifest["drift"]["verdict"], manifest["drift"]["comparisons"]) == (None, [])
    assert "drift" not in {check["name"] for check in manifest["checks"]}
    assert profile_file(tmp_path, manifest).stat().st_size > 1000


def test_rows_like_those_of_training_are_published(training: bytes, tmp_path: Path) -> None:
    """What the model reads and its score are judged; ids that moved on are not."""
    job = begin_job(tmp_path, make_rows(2, first=10**6))
    write_model(tmp_path / "model", profile=training)
    manifest = run_json("run", job)
    assert (manifest["status"], manifest["drift"]["verdict"]) == ("published", "ok")
    assert aspects(manifest) == {"a": "ok", "b": "ok", "score": "ok"}
    (check,) = [check for check in manifest["checks"] if check["name"] == "drift"]
    assert check["passed"]
    assert check["detail"].startswith("ok against model small 1.0 (")


def test_drift_holds_the_run_with_figures_and_what_to_do(drifted: Path, tmp_path: Path) -> None:
    """Nothing is published; column, measure, effect and threshold are shown, and where to look.

    `show` lists the commands that a person may want next.
    """
    done = run_cli("run", drifted)
    assert done.exit_code == 3
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("CHECK FAILED")]
    assert "drift: fail against model small 1.0" in line
    assert re.search(r"a: mean 0.\d+, was -?0.\d+ in model small 1.0; PSI 0.3\d+, fails from", line)
    assert "fails from 0.25" in line
    run = done.stdout.split()[2]
    assert done.stdout.splitlines()[-1] == f"look   batchscore show {drifted} {run}"
    shown = run_cli("show", drifted, run).stdout.splitlines()
    for command in ("report", "release", "discard"):
        assert any(text.startswith(command) and run in text for text in shown), shown
    assert not list(tmp_path.glob("out/data/**/*.parquet"))
    manifest = run_json("show", drifted, run)
    assert (manifest["status"], aspects(manifest)["a"]) == ("held", "fail")


def test_a_held_run_is_judged_again_without_scoring(drifted: Path) -> None:
    """A threshold that is raised lets the same units through."""
    held = run_json("run", drifted)
    looser = (
        "drift.column_thresholds={a: {psi: [1, 2], ks: [1, null], w1: [1, 2], tail: [1, null]}}"
    )
    scores = "drift.thresholds={psi: [1, 2], ks: [1, null], w1: [1, 2], tail: [1, null]}"
    again = run_json("run", drifted, "--set", looser, "--set", scores)
    assert (held["exit_code"], again["exit_code"]) == (3, 0)
    assert again["rows"]["reused"] == ROWS


def test_release_publishes_a_drifted_run(drifted: Path, tmp_path: Path) -> None:
    """A person may decide that the change is fine."""
    held = run_json("run", drifted)
    done = run_json("release", drifted, held["run"], "--reason", "a new market")
    assert (done["status"], done["drift"]["verdict"]) == ("published", "fail")
    assert list(tmp_path.glob("out/data/**/*.parquet"))


def test_warn_publishes_and_says_so(drifted: Path) -> None:
    """`on_fail: warn` passes the check; the verdict stays."""
    change_job(drifted.parent, {"drift.on_fail": "warn"})
    done = run_cli("run", drifted)
    assert done.exit_code == 0
    assert "drift  fail against model small 1.0" in done.stdout
    assert run_json("show", drifted)["drift"]["verdict"] == "fail"


def test_columns_choose_what_counts(drifted: Path) -> None:
    """Only the columns that are named decide; the others are compared all the same."""
    change_job(drifted.parent, {"drift.columns": ["b", "part"]})
    manifest = run_json("run", drifted)
    assert (manifest["status"], manifest["drift"]["verdict"]) == ("published", "ok")
    (comparison,) = manifest["drift"]["comparisons"]
    found = {a["column"]: a for a in comparison["aspects"] if a["aspect"] == "value"}
    assert (found["a"]["judged"], found["a"]["verdict"]) == (False, "fail")


def test_a_score_that_the_reference_has_not_is_reported(training: bytes, tmp_path: Path) -> None:
    """What cannot be compared does not count, and the run's own lines say so."""
    job = begin_job(tmp_path, make_rows(2), {"postprocess": [{"sigmoid": {"name": "p"}}]})
    write_model(tmp_path / "model", profile=training)
    done = run_cli("run", job)
    assert done.exit_code == 0
    assert "; not judged: p (not in the reference), score (gone)" in done.stdout


@pytest.fixture
def daily(training: bytes, tmp_path: Path) -> Path:
    """A job by date, whose last day moved; the days before are published."""
    job = begin_job(
        tmp_path,
        make_rows(1),
        {
            "params": {"date": {"type": "date"}},
            "input.path": "in/${date}.parquet",
            "drift.reference": "previous",
            "drift.on_fail": "warn",
        },
    )
    write_model(tmp_path / "model", profile=training)
    for number, day in enumerate(DAYS):
        write_shard(tmp_path / f"in/{day}.parquet", make_rows(10 + number, 0.3 * number))
    return job


def run_day(job: Path, day: str, *more: str) -> dict[str, Any]:
    """Run the job for a date."""
    return run_json("run", job, "--param", f"date={day}", *more)


def test_the_day_before_is_compared_in_addition_to_the_anchor(daily: Path) -> None:
    """Creeping drift is small against yesterday, and shows against the model's profile."""
    first, second, third = (run_day(daily, day) for day in DAYS)
    assert [c["anchor"] for c in first["drift"]["comparisons"]] == [True]
    previous, anchor = third["drift"]["comparisons"]
    assert (previous["title"], previous["anchor"]) == (f"run {second['run']}", False)
    assert (anchor["title"], anchor["anchor"]) == ("model small 1.0", True)
    worst = [
        next(a for a in c["aspects"] if (a["column"], a["aspect"]) == ("a", "value"))
        for c in (previous, anchor)
    ]
    effects = [next(m["value"] for m in a["measures"] if m["name"] == "ks") for a in worst]
    assert effects[0] < 0.15 < effects[1]
    assert previous["alpha"] == anchor["alpha"] == 0.0005


def test_the_last_slices_are_merged(daily: Path) -> None:
    """`last` takes those before this one; with `same_weekday` only Thursdays count."""
    runs = [run_day(daily, day)["run"] for day in DAYS[:2]]
    both = run_day(daily, DAYS[2], "--set", "drift.reference={last: 5}")
    comparison = both["drift"]["comparisons"][0]
    assert comparison["title"] == f"the last 2 slices, runs {runs[0]} to {runs[1]}"
    assert comparison["reference_rows"] == 2 * ROWS
    assert Reference.from_json(comparison).name == "the last 2 slices"
    some = "drift.reference={last: 5, same_weekday: true}"
    thursdays = run_day(daily, DAYS[2], "--set", some, "--rescore")
    comparison = thursdays["drift"]["comparisons"][0]
    assert comparison["title"] == f"the last slice, same weekday, run {runs[0]}"
    assert Reference.from_json(comparison).name == "the last slice, same weekday"
    assert comparison["reference_rows"] == ROWS


def test_a_profile_file_or_a_run_may_be_the_reference(training: bytes, tmp_path: Path) -> None:
    """A path is relative to the job file; a run is one of the output's."""
    job = begin_job(tmp_path, make_rows(2), {"drift.reference": "january.parquet"})
    (tmp_path / "january.parquet").write_bytes(training)
    first = run_json("run", job)
    assert first["drift"]["comparisons"][0]["title"] == "file january.parquet"
    change_job(tmp_path, {"drift.reference": {"run": first["run"]}})
    again = run_json("run", job, "--rescore")
    assert again["drift"]["comparisons"][0]["title"] == f"run {first['run']}"
    assert again["drift"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gone.parquet", "gone.parquet: no such file"),
        ("job.yaml", "job.yaml: damaged"),
        ({"run": "20200101-0000"}, "has no such run"),
        ({"last": 3}, "needs a parameter of type date"),
        ({"last": 0}, "expected at least 1"),
        ({"last": 3, "run": "x"}, "either run or last"),
    ],
    ids=str,
)
def test_a_wrong_reference_is_reported_before_any_work(
    scored_job: Path, reference: Any, message: str
) -> None:
    """Exit 2 and one message; the output stays as it is."""
    change_job(scored_job, {"drift.reference": reference})
    before = read_tree(scored_job / "out")
    for command in ("check", "run"):
        done = run_cli(command, scored_job / "job.yaml", *(["--rescore"] * (command == "run")))
        assert done.exit_code == 2, done.output
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert read_tree(scored_job / "out") == before


def test_an_unknown_measure_is_reported(scored_job: Path) -> None:
    """The nearest known one is named."""
    change_job(scored_job, {"drift.thresholds": {"psy": [0.1, 0.2]}})
    done = run_cli("check", scored_job / "job.yaml")
    assert done.exit_code == 2
    assert "'psi'" in done.stderr


def test_a_reference_with_nothing_in_common_is_no_ok(tmp_path: Path) -> None:
    """Where no column can be judged the verdict says so."""
    job = begin_job(tmp_path, make_rows(2))
    other = TableProfile()
    other.update(pa.RecordBatch.from_pydict({"x": [1.0, 2.0]}))
    write_model(tmp_path / "model", profile=write_table(other, {}))
    done = run_cli("run", job)
    assert done.exit_code == 0
    assert "drift  insufficient_data against model small 1.0 (nothing judged)" in done.stdout


def test_new_rows_are_judged_apart_from_all(training: bytes, tmp_path: Path) -> None:
    """A late shard that is garbage does not hide among what is published already."""
    job = begin_job(tmp_path, make_rows(2))
    for shard in range(1, 6):
        write_shard(tmp_path / f"in/{shard}.parquet", make_rows(2 + shard))
    write_model(tmp_path / "model", profile=training)
    first = run_json("run", job)
    assert [c["rows"] for c in first["drift"]["comparisons"]] == ["all"]
    write_shard(tmp_path / "in/9.parquet", make_rows(9, 0.4)[: ROWS // 4])
    done = run_cli("run", job)
    assert done.exit_code == 3
    held = run_json("show", job)
    new, whole = held["drift"]["comparisons"]
    assert (new["rows"], new["verdict"], new["current_rows"]) == ("new", "fail", ROWS // 4)
    assert (whole["rows"], whole["verdict"], whole["current_rows"]) == ("all", "ok", 6.25 * ROWS)
    assert new["alpha"] == whole["alpha"] == 0.0005
    assert f"fail new rows against {new['title']}" in done.stdout
    page = tmp_path / "report.html"
    assert run_cli("report", job, "-o", page).exit_code == 0
    assert "new rows" in page.read_text()


def test_the_slice_itself_is_compared_with_its_new_rows_only(tmp_path: Path) -> None:
    """`previous` without dates is what is published of the slice, which is among all rows."""
    job = begin_job(tmp_path, make_rows(2), {"drift.reference": "previous"})
    run_json("run", job)
    write_shard(tmp_path / "in/1.parquet", make_rows(3))
    manifest = run_json("run", job)
    assert [c["rows"] for c in manifest["drift"]["comparisons"]] == ["new"]
    assert manifest["drift"]["verdict"] == "ok"


def test_rejected_rows_are_among_the_profile(training: bytes, tmp_path: Path) -> None:
    """What makes rows unscorable is just what drift should see."""
    rows = make_rows(2)
    spoiled = rows["a"].to_numpy().copy()
    spoiled[::4] = np.nan
    rows = rows.set_column(1, "a", pa.array(spoiled))
    job = begin_job(tmp_path, rows, {"rejects.max_ratio": 0.5})
    write_model(tmp_path / "model", profile=training)
    done = run_cli("run", job)
    assert done.exit_code == 3
    assert "a: 25 % of the rows are null, 0 % were in model small 1.0; a differ" in done.stdout
    assert run_json("show", job)["profile"]["a"]["nan"] == ROWS // 4


def test_a_changed_type_leaves_older_runs_out(daily: Path) -> None:
    """The last slices that can be merged are the reference; what is left out is noted."""
    for day in DAYS[:2]:
        run_day(daily, day)
    path = daily.parent / f"in/{DAYS[1]}.parquet"
    rows = pq.read_table(path)
    write_shard(path, rows.set_column(1, "a", rows["a"].cast(pa.float64())))
    newer = run_day(daily, DAYS[1], "--rescore")
    assert newer["status"] == "held"  # the slice's columns changed
    run_json("release", daily.parent / "out", newer["run"], "--reason", "a wider type")
    found = run_day(daily, DAYS[2], "--set", "drift.reference={last: 5}")
    assert found["exit_code"] == 0
    assert found["drift"]["comparisons"][0]["reference_rows"] == ROWS
    assert newer["run"] in str(found["drift"]["comparisons"][0]["files"])
    (note,) = found["drift"]["notes"]
    assert "is left out of the reference: column 'a'" in note


def test_profiles_that_are_gone_do_not_stop_a_job(daily: Path) -> None:
    """A missing profile of an earlier run is noted; labels that are missing do not matter."""
    first, _ = (run_day(daily, day) for day in DAYS[:2])
    home = daily.parent / "out/_batchscore/runs"
    for extra in home.glob("*/profile.extra.parquet"):
        extra.unlink()
    found = run_day(daily, DAYS[2], "--set", "drift.reference={last: 5}")
    assert found["drift"]["comparisons"][0]["reference_rows"] == 2 * ROWS
    (home / first["run"] / "profile.parquet").unlink()
    again = run_day(daily, DAYS[2], "--set", "drift.reference={last: 5}", "--rescore")
    assert again["drift"]["comparisons"][0]["reference_rows"] == ROWS
    assert "no such file" in again["drift"]["notes"][0]


def test_a_lost_profile_is_made_again_from_the_ledger(tmp_path: Path) -> None:
    """What is published is added to, though the profile of its run is gone or another one."""
    job = begin_job(tmp_path, make_rows(2))
    first = run_json("run", job)
    other = TableProfile()
    other.update(pa.RecordBatch.from_pydict({"x": [1.0]}))
    profile_file(tmp_path, first).write_bytes(write_table(other, {}))
    assert run_json("verify", job)["exit_code"] == 1
    write_shard(tmp_path / "in/1.parquet", make_rows(3))
    assert run_json("run", job)["profile"]["a"]["count"] == 2 * ROWS


def test_slices_of_another_parameter_are_not_previous(tmp_path: Path) -> None:
    """Only dates come before one another: region B is not compared with region A."""
    changes = {
        "params": {"region": {"type": "string"}},
        "input.path": "in/${region}.parquet",
        "drift.reference": "previous",
    }
    job = begin_job(tmp_path, make_rows(1), changes)
    for region, shift in (("a", 0.0), ("b", 3.0)):
        write_shard(tmp_path / f"in/{region}.parquet", make_rows(4, shift))
        found = run_json("run", job, "--param", f"region={region}")
        assert (found["status"], found["drift"]["comparisons"]) == ("published", [])


def test_check_tells_what_is_compared(drifted: Path) -> None:
    """References, what counts, and a column that cannot be, before anything is scored."""
    done = run_cli("check", drifted)
    assert "drift       against model small 1.0, on_fail hold; judged: a, b, scores" in done.stdout
    change_job(drifted.parent, {"drift.columns": ["a", "scroe"]})
    wrong = run_cli("check", drifted)
    assert wrong.exit_code == 2
    assert "drift.columns: there is no column 'scroe'" in wrong.stderr
    assert "'score'" in wrong.stderr


def test_words_are_no_paths() -> None:
    """`model` and `previous` stay words when paths are made absolute."""
    assert set(REFERENCE_WORDS) == {"model", "previous"}


def test_any_number_of_workers_makes_the_same_profile(tmp_path: Path) -> None:
    """One worker, three, and tiny batches give the same bytes, and checks the same examples."""
    made, counted = [], []
    for number, changes in enumerate(
        ({"runtime.workers": 1}, {"runtime.workers": 3}, {"runtime.batch_rows": 777})
    ):
        folder = tmp_path / str(number)
        job = write_job(folder, {**changes, "checks.accepted": {"part": ["p0"]}})
        for shard in range(3):
            write_shard(folder / f"in/{shard}.parquet", make_rows(shard))
        found = run_json("run", job)
        made.append(profile_file(folder, found).read_bytes())
        counted.append(json.dumps(found["column_checks"]).replace(str(folder), ""))
    assert made[0] == made[1] == made[2]
    assert counted[0] == counted[1] == counted[2]
    assert '"rows": 12000' in counted[0]
