"""Test that a job lists its references, each with what a verdict of fail against it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.factory import change_job, read_tree, run_cli, run_json, write_model, write_shard
from tests.test_drift_runs import ROWS, begin_job, make_rows, profile_file

pytestmark = pytest.mark.slow

DAYS = ("2026-11-18", "2026-11-19")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job by date whose first day is published, and whose second is far from training alone."""
    folder = tmp_path_factory.mktemp("listed")
    training = begin_job(folder / "training", make_rows(1))
    profile = profile_file(folder / "training", run_json("run", training)).read_bytes()
    by_date = {"params": {"date": {"type": "date"}}, "input.path": "in/${date}.parquet"}
    job = begin_job(folder, make_rows(1), {**by_date, "drift.on_fail": "warn"})
    write_model(folder / "model", profile=profile)
    for number, day in enumerate(DAYS):
        write_shard(folder / f"in/{day}.parquet", make_rows(10 + number, 0.6))
    (folder / "january.parquet").write_bytes(profile)
    run_json("run", job, "--param", f"date={DAYS[0]}")
    return folder


def run_with(folder: Path, *references: dict[str, Any], on_fail: str = "hold") -> dict[str, Any]:
    """Run the second day with these references."""
    listed = {"drift.reference": list(references), "drift.on_fail": on_fail}
    job = change_job(folder, {**listed, "output.path": "out"})
    return run_json("run", job, "--param", f"date={DAYS[1]}", "--rescore")


def outcomes(manifest: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return verdict, first word of the title, and policy of each comparison."""
    found = manifest["drift"]["comparisons"]
    return [(c["verdict"], c["title"].split()[0], c["on_fail"]) for c in found]


PREVIOUS, MODEL = {"previous": True}, {"model": True}
LAST, FILE = {"last": 7}, {"file": "january.parquet"}


@pytest.mark.parametrize(
    ("references", "status", "verdict", "expected"),
    [
        (
            [{**LAST, "on_fail": "hold"}, {**MODEL, "on_fail": "warn"}],
            *("published", "fail"),
            [("ok", "the", "hold"), ("fail", "model", "warn")],
        ),
        (
            [{**PREVIOUS, "on_fail": "warn"}, {**MODEL, "on_fail": "hold"}],
            *("held", "fail"),
            [("ok", "run", "warn"), ("fail", "model", "hold")],
        ),
        (
            [PREVIOUS, {**FILE, "on_fail": "off"}],
            *("published", "ok"),
            [("ok", "run", "hold"), ("fail", "file", "off")],
        ),
        ([FILE], "held", "fail", [("fail", "file", "hold")]),
        ([PREVIOUS], "published", "ok", [("ok", "run", "hold")]),
        ([{**MODEL, "on_fail": "off"}], "published", None, [("fail", "model", "off")]),
    ],
)
def test_each_reference_holds_or_warns_by_its_own_policy(
    output: Path, references: Any, status: str, verdict: str | None, expected: Any
) -> None:
    """The references of the list, and no other, are compared, each with its own consequence."""
    found = run_with(output, *references)
    assert (found["status"], found["drift"]["verdict"]) == (status, verdict)
    assert outcomes(found) == expected
    counted = sum(policy != "off" for *_, policy in expected)
    assert {c["alpha"] for c in found["drift"]["comparisons"]} == {0.001 / max(1, counted)}


def test_an_item_takes_the_policy_of_the_section(output: Path) -> None:
    """Without its own `on_fail` an item does what `drift.on_fail` says."""
    assert run_with(output, MODEL, on_fail="warn")["status"] == "published"
    assert run_with(output, MODEL, on_fail="hold")["status"] == "held"


def test_policies_are_shown_before_and_after(output: Path) -> None:
    """`check`, the run's lines, `show` and the report name each reference's policy."""
    off, warn = {**PREVIOUS, "on_fail": "off"}, {**MODEL, "on_fail": "warn"}
    found = run_with(output, off, warn)
    day = ("--param", f"date={DAYS[1]}")
    job = output / "job.yaml"
    reported = run_json("check", job, *day)
    assert reported["reference_on_fail"] == ["off", "warn"]
    checked = run_cli("check", job, *day).stdout
    assert "(on_fail off) and model small 1.0 (on_fail warn); judged: a, b, scores" in checked
    shown = run_cli("show", job, found["run"], *day).stdout
    assert "on_fail off" in shown
    assert "fail against model small 1.0, on_fail warn" in shown
    page = output / "report.html"
    assert run_cli("report", job, found["run"], "-o", page, *day).exit_code == 0
    assert "(on_fail off)" in page.read_text()


def test_a_reference_that_is_off_leaves_the_report_as_it_would_be(output: Path) -> None:
    """Its columns are shown on the page, and neither the page's verdict nor a column's is bad."""
    found = run_with(output, PREVIOUS, {**MODEL, "on_fail": "off"})
    page = output / "report.html"
    day = ("--param", f"date={DAYS[1]}")
    assert run_cli("report", output / "job.yaml", found["run"], "-o", page, *day).exit_code == 0
    text = page.read_text()
    assert '<p class="verdict ok">' in text
    assert '<li data-v="fail">' not in text
    assert "model small 1.0 (on_fail off)" in text


def test_what_is_not_there_yet_is_noted(tmp_path: Path) -> None:
    """On a first run nothing is compared, as before, and a note for each reference says so."""
    job = begin_job(tmp_path, make_rows(1), {"drift.reference": [PREVIOUS, MODEL]})
    assert "not judged: no reference yet" in run_cli("check", job).stdout
    found = run_json("run", job)
    assert (found["status"], found["drift"]["verdict"]) == ("published", None)
    first, second = found["drift"]["notes"]
    assert first == (
        "drift.reference.0: nothing is published before this slice yet; it is not compared"
    )
    assert second == "drift.reference.1: the model folder has no profile; it is not compared"


def test_a_single_reference_keeps_the_shape_of_its_manifest(output: Path) -> None:
    """The other forms say nothing of a policy in their comparisons."""
    job = change_job(output, {"drift.reference": "previous"})
    found = run_json("run", job, "--param", f"date={DAYS[1]}", "--rescore")
    comparisons = found["drift"]["comparisons"]
    assert [c["anchor"] for c in comparisons] == [False, True]
    assert not any("on_fail" in c for c in comparisons)
    assert comparisons[0]["current_rows"] == ROWS


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ([{"model": True, "last": 3}], "found model and last"),
        ([{"on_fail": "warn"}], "expected exactly one of model, previous, file, run, last"),
        ([{"model": False}], "expected true, found false"),
        ([{"last": 0}], "drift.reference.0.last: expected at least 1"),
        ([{"run": "x", "same_weekday": True}], "same_weekday needs last"),
        ([{"previous": True}, {"lats": 3}], "drift.reference.1.lats: unknown key; nearest: 'last'"),
        ([{"model": True, "on_fail": "stop"}], "'hold', 'warn' or 'off'"),
        ([{"last": 3}], "drift.reference.0: last needs a parameter of type date"),
        ([{"previous": True}, {"previous": True, "on_fail": "off"}], "items 0 and 1 are the same"),
        ([{"file": "a"}, {"file": "./a"}], "items 0 and 1 are the same"),
        ([{"previous": True}, {"file": "gone.parquet"}], "expected model, previous, or a file"),
        ([{"run": "20200101-0000"}], "has no such run"),
        (["model"], "drift.reference.0: expected a mapping with keys such as"),
        ([], "a list that is not empty, found []"),
    ],
    ids=str,
)
def test_a_wrong_list_is_reported_before_any_work(
    scored_job: Path, reference: Any, message: str
) -> None:
    """Exit 2 and one message that names the item; the output stays as it is."""
    change_job(scored_job, {"drift.reference": reference})
    before = read_tree(scored_job / "out")
    done = run_cli("run", scored_job / "job.yaml", "--rescore")
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert read_tree(scored_job / "out") == before


def test_an_item_is_set_for_one_run(output: Path) -> None:
    """`--set` reaches into the list by position."""
    run_with(output, MODEL)
    done = run_json(
        *("run", output / "job.yaml", "--param", f"date={DAYS[1]}", "--rescore"),
        *("--set", "drift.reference.0.on_fail=warn"),
    )
    assert (done["status"], outcomes(done)[0][2]) == ("published", "warn")
