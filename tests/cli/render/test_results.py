"""Test how results read: figures with units, aligned tables, and every outcome with its reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.cli.render import results as render
from batchscore.cli.render.summary import summary, unchanged
from batchscore.runs.history import Unreadable
from batchscore.telemetry import STAGES
from tests.factory import run_json, write_job
from tests.manifests import make_manifest

# Nothing of this job is explained.
DONE = [stage.name for stage in STAGES if stage.name != "explain"]
CELLS = st.text("abc 1,.", min_size=1, max_size=8).map(str.strip).filter(bool)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (render.count(336_776), "336,776"),
        (render.size(0), "0 B"),
        (render.size(999), "999 B"),
        (render.size(1_000), "1.0 kB"),
        (render.size(999_949), "999.9 kB"),
        (render.size(999_999), "1.0 MB"),
        (render.size(6_700_000), "6.7 MB"),
        (render.size(3.5e12), "3.5 TB"),
        (render.size(5e16), "50000.0 TB"),
        (render.rate(10, 0), "0 rows/s"),
        (render.rate(9_999, 1), "9,999 rows/s"),
        (render.rate(49_000, 1), "49k rows/s"),
        (render.rate(999_600, 1), "1.0M rows/s"),
        (render.rate(4_100_000, 2), "2.0M rows/s"),
        (render.duration(0.04), "0.0 s"),
        (render.duration(9.94), "9.9 s"),
        (render.duration(9.96), "10 s"),
        (render.duration(99.4), "99 s"),
        (render.duration(99.6), "2 min"),
        (render.duration(7_080), "118 min"),
        (render.duration(7_200), "2 h 0 min"),
        (render.duration(9_000), "2 h 30 min"),
    ],
)
def test_figures_are_short_and_have_their_unit(shown: str, expected: str) -> None:
    """Counts mark thousands; bytes, rates and times take the unit that keeps them short."""
    assert shown == expected


@pytest.mark.slow
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6), st.integers(0, 3))
def test_tables_align(rows: list[list[str]], left: int) -> None:
    """Each cell starts or ends where the others of its column do, and none is lost."""
    lines = render.table(rows[0], rows[1:], left)
    assert len(lines) == len(rows)
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    for line, row in zip(lines, rows, strict=True):
        start = 0
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            part = line[start : start + width].ljust(width)
            assert part == (cell.ljust(width) if index < left else cell.rjust(width))
            start += width + 2


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a real run wrote."""
    return run_json("run", write_job(tmp_path_factory.mktemp("render")))


def _failed(manifest: dict[str, Any]) -> dict[str, Any]:
    kept = "run job slice params model started seconds engine device workers batch_rows tile_rows"
    facts = {key: manifest[key] for key in f"{kept} rows inputs job_sha256 packages".split()}
    return {**facts, "status": "failed", "error": "shard x: is torn", "files": []}


SHOW = "batchscore show job.yaml"
AT = "2026-11-20T01:02:00+00:00"


@pytest.mark.slow
def test_a_published_run_says_where_every_row_went(manifest: dict[str, Any]) -> None:
    """Title, equation, time, drift, files, and where to look: six lines and no advice."""
    lines = summary(make_manifest(**manifest), "/out", SHOW)
    phases = ", ".join(rf"{name} [\d.]+" for name in ("start-up", "planning", "loading", "scoring"))
    expected = [
        rf"PUBLISHED run {manifest['run']}   small   model small 1\.0",
        r"read 500 = scored 500 \+ rejected 0 \+ filtered 0      \(reused 0\)",
        rf"[\d.]+ s \({phases}, publishing [\d.]+\), .* rows/s, limited by .*, cpu",
        r"drift  not judged: no reference yet .*; the run is profiled",
        r"files: 1 added, 0 replaced, [\d.]+ kB   in /out/data",
        rf"look   batchscore show job\.yaml {manifest['run']}",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def _held(manifest: dict[str, Any]) -> dict[str, Any]:
    held = {**manifest, "status": "held", "files": [], "replaced": []}
    held["checks"] = [
        {"name": "rejects", "passed": False, "detail": "9 of 10", "status": "held"},
        {"name": "volume", "passed": False, "detail": "too few", "status": "held"},
    ]
    files = [f"_batchscore/rejects/{run}/{unit}.parquet" for run in "ab" for unit in "xy"]
    return {**held, "rejects": {"reasons": {"infer: NonFiniteScore: NaN": 1_234}, "files": files}}


def test_a_held_run_says_which_checks_and_that_nothing_changed(manifest: dict[str, Any]) -> None:
    """The checks that did not pass are one line with their figures; no command decides anything."""
    held = _held(manifest)
    lines = summary(make_manifest(**held), "/out", SHOW)
    assert lines[0].startswith("HELD run ")
    assert lines[3:] == [
        "CHECK FAILED  rejects: 9 of 10 | volume: too few | "
        "rejected most often: infer: NonFiniteScore: NaN",
        "nothing was published; earlier results are unchanged",
        f"look   batchscore show job.yaml {held['run']}",
    ]


def test_what_a_summary_leaves_out_is_shown(manifest: dict[str, Any]) -> None:
    """`show` has each failed check, the places of rejects, busy seconds, help, and the commands."""
    held = _held(manifest)
    reported = make_manifest(**held)
    lines = [*render.details(reported, "/out"), *render.steps(reported, "job.yaml", "batchscore")]
    run = held["run"]
    assert {"CHECK FAILED  rejects: 9 of 10", "CHECK FAILED  volume: too few"} <= set(lines)
    assert "rejected 1,234  infer: NonFiniteScore: NaN" in lines
    assert [line for line in lines if line.startswith("rejects in")] == [
        f"rejects in /out/_batchscore/rejects/{run}" for run in "ab"
    ]
    busy = "busy seconds  " + "  ".join(rf"{name} [\d.]+" for name in DONE)
    assert any(re.fullmatch(busy, line) for line in lines)
    assert any(line.startswith("help   ") for line in lines)
    assert lines[-3:] == [
        f"report   batchscore report job.yaml {run} -o report.html",
        f"release  batchscore release job.yaml {run} --reason …",
        f"discard  batchscore discard job.yaml {run}",
    ]
    undo = f"undo     batchscore rollback job.yaml --undo {run}"
    assert render.steps(make_manifest(**manifest), "job.yaml", "batchscore")[-1] == undo


def test_no_summary_has_more_than_six_lines(manifest: dict[str, Any]) -> None:
    """Whatever was found of a run, and whatever was decided on it."""
    decision = {"by": "me@here", "at": AT, "reason": "a quiet night"}
    full = {
        **_held(manifest),
        "changed": ["model", "version of torch"],
        "bad_shards": [{"path": f"in/{n}.parquet", "reason": "is torn"} for n in range(9)],
        "damaged": {f"ledger/{n}": "is gone" for n in range(9)},
    }
    drifted = _drifted(full, "fail", False)
    for run in (manifest, full, drifted, {**drifted, "released": decision}, _failed(manifest)):
        assert len(summary(make_manifest(**run), "/out", SHOW)) <= 6
    assert len(unchanged(make_manifest(**{**drifted, "status": "unchanged"}), "/out", SHOW)) <= 6


def test_a_run_held_before_it_scored_has_nothing_to_release(manifest: dict[str, Any]) -> None:
    """Without scored units there is the reason and how to look, and no figures of scoring."""
    checks = [{"name": "on_change.model", "passed": False, "detail": "x", "status": "held"}]
    facts = {key: manifest[key] for key in ("run", "job", "params", "model")}
    held = {**facts, "status": "held", "checks": checks, "rejects": {"reasons": {}, "files": []}}
    assert summary(make_manifest(**held), "/out", SHOW)[1:] == [
        "CHECK FAILED  on_change.model: x",
        "nothing was published; earlier results are unchanged",
        f"look   batchscore show job.yaml {held['run']}",
    ]
    assert render.steps(make_manifest(**held), "job.yaml", "batchscore") == []


def test_a_decision_is_reported_with_who_and_why(manifest: dict[str, Any]) -> None:
    """What is shown of a run names its release, discard and rollback: by whom, when and why."""
    decision = {"by": "me@here", "at": AT, "reason": "a quiet night"}
    for kind in ("released", "discarded", "rollback", "revoked"):
        lines = render.ended(make_manifest(**{**manifest, kind: decision}), "/out")
        assert f"{kind} by me@here at {AT}: a quiet night" in lines
    silent = {**manifest, "discarded": {**decision, "reason": ""}}
    lines = render.ended(make_manifest(**silent), "/out")
    assert f"discarded by me@here at {AT}" in lines


def test_reused_rows_are_reported_and_do_not_count_as_speed(manifest: dict[str, Any]) -> None:
    """What was scored before is named with its units, and rows a second are of the rest."""
    rows = {"input": 600, "scored": 600, "rejected": 0, "filtered": 0, "quarantined": 0}
    some = {**manifest, "rows": {**rows, "reused": 500}, "reused_units": 2, "seconds": 2.0}
    lines = render.ended(make_manifest(**some), "/out")
    assert lines[1].endswith("(reused 500 in 2 units)")
    assert lines[2].startswith("2.0 s, 50 rows/s")


def test_finished_units_that_an_engine_gave_out_again_are_counted(
    manifest: dict[str, Any],
) -> None:
    """The line on rows says how many units a restart did not cost."""
    counts = [{"step": "Read", "name": "units_found_finished", "value": 5}]
    some = {**manifest, "beam_metrics": [*manifest["beam_metrics"], *counts]}
    lines = render.ended(make_manifest(**some), "/out")
    assert lines[1].endswith("(reused 0; restarted, 5 finished units not scored again)")


def test_a_run_that_scores_published_rows_again_says_why(manifest: dict[str, Any]) -> None:
    """What changed since is one line, also of an earlier version's run; others have none."""
    reported = {**manifest, "rescored": ["code f.py changed", "model 1.0 to 1.1"]}
    expected = "scored again: code f.py changed; model 1.0 to 1.1"
    assert expected in render.ended(make_manifest(**reported), "/out")
    earlier = {**manifest, "changed": ["model", "version of torch"]}
    del earlier["rescored"]
    expected = "scored again: model changed; version of torch changed"
    assert expected in render.ended(make_manifest(**earlier), "/out")
    for facts in (manifest, {k: v for k, v in manifest.items() if k != "changed"}):
        lines = render.ended(make_manifest(**facts), "/out")
        assert not [line for line in lines if "scored again" in line]


def test_shards_that_were_left_out_are_named(manifest: dict[str, Any]) -> None:
    """Quarantined rows are part of the equation, and each bad shard is shown with its reason."""
    rows = {"input": 600, "scored": 500, "rejected": 0, "filtered": 0, "quarantined": 100}
    bad = [{"path": "in/2.parquet", "reason": "is torn"}]
    some = {**manifest, "rows": {**rows, "reused": 0}, "bad_shards": bad}
    lines = render.ended(make_manifest(**some), "/out")
    assert lines[1].startswith("read 600 = scored 500 + rejected 0 + filtered 0 + quarantined 100 ")
    assert "BAD SHARD  in/2.parquet: is torn" in lines


def test_files_that_stay_are_distinguished_from_those_added(manifest: dict[str, Any]) -> None:
    """Files of earlier runs are kept, not added."""
    (file,) = manifest["files"]
    files = [file, {**file, "path": "data/20260101-0000-u-0000.parquet"}]
    line = render.ended(make_manifest(**{**manifest, "files": files}), "/out")[-1]
    assert line.startswith("files: 1 added, 1 kept, 0 replaced, ")


def test_a_failed_run_says_why(manifest: dict[str, Any]) -> None:
    """The lines of the run show the error, and `show` shows it later."""
    failed = _failed(manifest)
    look = f"look   batchscore show job.yaml {failed['run']}"
    assert summary(make_manifest(**failed), "/out", SHOW)[1:] == ["error  shard x: is torn", look]
    lines = render.details(make_manifest(**failed), "/out")
    assert lines[:2] == [render.title(make_manifest(**failed)), "error  shard x: is torn"]
    assert any(line.startswith("input     2 shards") for line in lines)


def test_details_hold_checks_facts_and_profiles(manifest: dict[str, Any]) -> None:
    """What `show` tells: the summary, the facts, each stage, each check, and a line a column."""
    lines = render.details(make_manifest(**manifest), "/out")
    assert lines[0] == summary(make_manifest(**manifest), "/out", "x")[0]
    assert any(line.startswith("phases of ") for line in lines)
    assert any(re.match(r"device    cpu, \w+, asked for auto", line) for line in lines)
    assert sum(line.startswith("ok     ") for line in lines) == len(manifest["checks"])
    header = next(number for number, line in enumerate(lines) if line.startswith("column"))
    names = [line.split()[0] for line in lines[header + 1 :]]
    assert names == ["a", "b", "id", "part", "score"]
    times = next(number for number, line in enumerate(lines) if line.startswith("time "))
    stages = [line.split()[0] for line in lines[times + 1 : times + 1 + len(DONE)]]
    assert stages == DONE


def test_nothing_to_do_names_the_published_run(manifest: dict[str, Any]) -> None:
    """An unchanged run says which run published, how many files, and how to score again."""
    text = "\n".join(unchanged(make_manifest(**{**manifest, "status": "unchanged"}), "/out", SHOW))
    assert text.startswith("UNCHANGED run ")
    assert f"run {manifest['run']} published these rows at {manifest['finished']}" in text
    assert "--rescore" in text


def _drifted(manifest: dict[str, Any], verdict: str, passed: bool) -> dict[str, Any]:
    aspect = {"column": "x", "aspect": "value", "verdict": verdict, "judged": True, "measures": []}
    comparison = {"verdict": verdict, "title": "model m 1", "aspects": [{**aspect, "note": "far"}]}
    checks = [{"name": "drift", "passed": passed, "detail": "said", "status": "held"}]
    drift = {"verdict": verdict, "comparisons": [comparison]}
    return {**manifest, "checks": [*manifest["checks"], *checks], "drift": drift}


@pytest.mark.parametrize(
    ("verdict", "passed", "mark"),
    [
        ("fail", True, "WARN"),
        ("warn", True, "WARN"),
        ("ok", True, "ok"),
        ("insufficient_data", True, "ok"),
        ("fail", False, "FAILED"),
    ],
)
def test_drift_that_was_let_pass_is_marked(
    manifest: dict[str, Any], verdict: str, passed: bool, mark: str
) -> None:
    """`show` marks the check, not only its text, where drift warns or fails without holding.

    The summary has the findings once: as those of the check where it failed, else as a line.
    """
    lines = render.details(make_manifest(**_drifted(manifest, verdict, passed)), "/out")
    assert f"{mark:<6} drift: said" in lines
    assert sum(line.startswith("WARN") for line in lines) == (mark == "WARN")
    reported = [line for line in lines if line.startswith(("drift  ", "CHECK FAILED  drift"))]
    assert reported == (
        [
            f"drift  {verdict} against model m 1 (1 {verdict})"
            + (": x: far" if mark == "WARN" else "")
        ]
        if passed
        else ["CHECK FAILED  drift: said"]
    )


def test_history_tells_drift(manifest: dict[str, Any]) -> None:
    """The status says how drift was judged where it alarms, and once only where it held the run."""
    cases = [("fail", True), ("warn", True), ("ok", True), ("fail", False)]
    runs = [_drifted(manifest, *case) for case in cases]
    lines = render.history([make_manifest(**run) for run in runs], {manifest["run"]})
    status, end = (lines[0].index(name) for name in ("status", "slice"))
    assert [line[status:end].strip() for line in lines[1:]] == [
        "published * (drift fail)",
        "published * (drift warn)",
        "published *",
        "published * (drift)",
    ]


@pytest.mark.parametrize("passed", [True, False])
def test_an_unchanged_run_tells_its_drift(manifest: dict[str, Any], passed: bool) -> None:
    """The published run is shown with its drift, also if a person released it."""
    lines = unchanged(make_manifest(**_drifted(manifest, "fail", passed)), "/out", SHOW)
    assert lines[3] == "drift  fail against model m 1 (1 fail): x: far"


def test_history_is_a_line_a_run(manifest: dict[str, Any]) -> None:
    """Runs of every outcome have a line each; without any there is a line, too.

    What is published has a star, and a held run the checks that hold it.
    """
    passed = {"volume": False, "rows": True}
    checks = [{"name": name, "passed": done, "detail": ""} for name, done in passed.items()]
    held = {**manifest, "run": "h", "status": "held", "checks": checks}
    runs = [make_manifest(**run) for run in (manifest, held, {**_failed(manifest), "run": "f"})]
    damaged = Unreadable("d", "damaged", "", "is torn")
    lines = render.history([*runs, damaged], {manifest["run"], "other"})
    status = lines[0].index("status")
    assert [line[status : lines[0].index("slice")].strip() for line in lines[1:-1]] == [
        "published *",
        "held (volume)",
        "failed",
        "damaged",
    ]
    assert render.history([], set()) == ["no runs yet"]


def test_a_profile_shows_what_it_has() -> None:
    """A type without figures shows dashes; large counts mark thousands, floats four digits."""
    profile = {
        "t": {"type": "list", "count": 20_000, "nulls": 3},
        "x": {"type": "double", "count": 5, "nulls": 0, "min": 0.123456, "max": 2.0, "p50": 1.5},
    }
    lines = render.profile_table(profile)
    assert lines[1].split() == ["t", "list", "20,000", "3", "-", "-", "-", "-", "-"]
    assert lines[2].split() == ["x", "double", "5", "0", "0.1235", "-", "1.5", "-", "2"]


def test_no_control_character_reaches_a_terminal(manifest: dict[str, Any]) -> None:
    """Names and reasons from outside are shown without escapes, and a line stays a line."""
    evil = "\x1b[2J\nred"
    spoiled = {**manifest, "job": evil, "params": {"p": evil}, "slice": evil}
    spoiled["model"] = {**manifest["model"], "name": evil, "version": evil}
    spoiled["rejects"] = {"reasons": {evil: 1}, "files": []}
    spoiled["bad_shards"] = [{"path": evil, "reason": evil}]
    spoiled["released"] = {"by": evil, "at": manifest["finished"], "reason": evil}
    spoiled["actor"] = evil
    spoiled["checks"] = [{"name": "rejects", "passed": False, "detail": evil, "status": "failed"}]
    spoiled["profile"] = {evil: {"type": "string", "count": 1, "nulls": 0, "min": evil}}
    for lines in (
        render.details(make_manifest(**spoiled), "/out"),
        render.history([make_manifest(**spoiled)], {spoiled["run"]}),
        unchanged(make_manifest(**spoiled), "/out", SHOW),
        summary(make_manifest(**spoiled), "/out", SHOW),
    ):
        assert all("\x1b" not in line and "\n" not in line for line in lines)


def test_a_run_that_failed_a_check_cannot_be_undone(manifest: dict[str, Any]) -> None:
    """Nothing was published: what is left is to look, in the terminal or on a page."""
    failed = make_manifest(**{**manifest, "status": "failed", "files": []})
    run = failed.run
    assert summary(failed, "/out", SHOW)[-1] == f"look   batchscore show job.yaml {run}"
    assert render.steps(failed, "job.yaml", "batchscore") == [
        "",
        f"report   batchscore report job.yaml {run} -o report.html",
    ]


def test_history_marks_what_was_decided_and_rescored(manifest: dict[str, Any]) -> None:
    """Released and revoked runs have by whom and when, rescored ones why; a rollback its run."""
    decision = {"by": "me@here", "at": "2026-11-20T01:02:03.004+00:00", "reason": "a quiet night"}
    runs = [
        {**manifest, "released": decision},
        {**manifest, "status": "revoked", "revoked": decision},
        {**manifest, "rescored": ["model changed"]},
        {**manifest, "rescored": ["--rescore"], "released": decision},
        {**manifest, "undoes": "20261120-aaaa"},
        {**_failed(manifest), "rescored": ["model changed"]},
    ]
    lines = render.history([make_manifest(**run) for run in runs], set())
    status, end = (lines[0].index(name) for name in ("status", "slice"))
    by = "2026-11-20T01:02:03 by me@here"
    assert [line[status:end].strip() for line in lines[1:]] == [
        f"published (released {by})",
        f"revoked (revoked {by})",
        "published (rescored: model changed)",
        f"published (released {by},rescored: --rescore)",
        "published (rollback of 20261120-aaaa)",
        "failed",
    ]
