"""Test the lines that say where a run's time went, for runs that measured more or less of it."""

from __future__ import annotations

from typing import Any

import pytest

from batchscore.cli.render import times as render_times
from batchscore.cli.render.results import table
from batchscore.runs.manifest_model import Manifest
from tests.manifests import ROWS, make_manifest

COUNTS = {**ROWS, "input": 2_000_000, "scored": 1_900_000}
SECONDS = {"read": 35.7, "infer": 20.0, "write": 8.0}
WAITS = {"engine": 1.0, "wait_read": 12.0, "wait_write": 0.5}
TIMINGS = {
    "share": 0.871,
    "start_up_s": 2.0,
    "scoring_s": 39.0,
    "finish_s": 1.25,
    "thread_s": 41.0,
    "help": "runtime.workers: 4",
}


def manifest(**facts: Any) -> Manifest:
    """Return what a manifest tells of times, all of it measured, or with other facts."""
    measured = {
        "rows": COUNTS,
        "reused_units": 0,
        "seconds": 41.0,
        "device": "cpu, AVX512, asked for auto",
        "workers": 1,
        "limited_by": "read",
        "stage_seconds": {**SECONDS, **WAITS},
        "timings": TIMINGS,
    }
    return make_manifest(**{**measured, **facts})


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "41 s, 46k rows/s, limited by read (87%), cpu; the model waited 12 s for data"),
        (
            {"limited_by": "read and infer", "workers": 4},
            "41 s, 46k rows/s, limited by read and infer (87%), cpu; "
            "the model waited 3.0 s for data",
        ),
        (
            {"stage_seconds": {"wait_read": 1.0, "wait_write": 14.0}},
            "41 s, 46k rows/s, limited by read (87%), cpu; the model waited 14 s for the writer",
        ),
        (
            {"stage_seconds": {"wait_read": 0.1, "wait_infer": 14.0, "wait_write": 0.5}},
            "41 s, 46k rows/s, limited by read (87%), cpu; "
            "the worker waited 14 s for the model's process",
        ),
        (
            {
                "stage_seconds": {"wait_read": 0.1, "wait_infer": 14.0, "wait_write": 0.5},
                "device": "cuda:0 (H200), asked for auto",
            },
            "41 s, 46k rows/s, limited by read (87%), cuda:0 (H200); "
            "the model waited 14 s for the GPU",
        ),
        (
            {"stage_seconds": SECONDS, "timings": None},
            "41 s, 46k rows/s, limited by read, cpu",
        ),
        (
            {"stage_seconds": {}, "limited_by": None, "timings": None},
            "41 s, 46k rows/s, cpu",
        ),
        (
            {"rows": {**COUNTS, "reused": 1_590_000}, "reused_units": 2, "timings": None},
            "41 s, 10k rows/s, limited by read, cpu; the model waited 12 s for data",
        ),
    ],
)
def test_the_line_of_a_run_tells_speed_limit_and_waiting(facts: dict[str, Any], line: str) -> None:
    """One worker's waiting, for data or for whatever it waited longer; nothing unmeasured."""
    assert render_times.speed_and_limit(manifest(**facts)) == line


def test_busy_seconds_and_help_are_reported_if_there_are_any() -> None:
    """A stage that was not measured is left out, and a run of before has no help."""
    busy = "busy seconds  read 35.70  infer 20.00  write 8.00"
    assert render_times.busy_and_help(manifest()) == [busy, "help   runtime.workers: 4"]
    assert render_times.busy_and_help(manifest(timings=None)) == [busy]
    assert render_times.busy_and_help(manifest(stage_seconds={}, timings=None)) == []


def test_the_table_has_a_line_for_all_that_was_measured() -> None:
    """Seconds, their share of the main threads' time, and a speed where rows are worked on."""
    lines = table(render_times.TIMES, render_times.time_rows(manifest()), left=2)
    assert [" ".join(line.split()) for line in lines] == [
        "time thread seconds share speed",
        "read reader 35.70 87% 53k rows/s",
        "infer main 20.00 49% 95k rows/s",
        "write writer 8.00 20% 238k rows/s",
        "engine main 1.00 2% -",
        "wait_read main 12.00 29% -",
        "wait_write main 0.50 1% -",
    ]


def test_what_is_missing_or_took_no_time_has_no_share_and_no_speed() -> None:
    """A run without waits has no whole to take a share of; nothing is divided by zero."""
    (row,) = render_times.time_rows(manifest(stage_seconds={"infer": 0.0}, timings=None))
    assert row == ("infer", "main", "0.00", "-", "-")
    assert render_times.time_rows(manifest(stage_seconds=None, timings=None)) == []


def test_the_phases_of_a_run_are_one_line() -> None:
    """Start-up, scoring, and what came after the last unit; without moments there is no line."""
    assert render_times.phases(manifest()) == [
        "start-up 2.00 s, scoring 39.00 s, 1.25 s of it after the last unit"
    ]
    assert render_times.phases(manifest(timings={"help": "x"})) == []


PHASES = {"start_up": 4.1, "planning": 0.25, "loading": 1.0, "scoring": 35.15, "publishing": 0.5}


def test_a_run_tells_its_phases_twice() -> None:
    """`show` has each to the millisecond; the summary in tenths, next to the whole."""
    run = manifest(phases=PHASES, status="published")
    assert render_times.phases(run) == [
        "phases of 41.000 s: start-up 4.100 s, planning 0.250 s, loading 1.000 s, "
        "scoring 35.150 s, publishing 0.500 s"
    ]
    assert render_times.times(run) == (
        "41 s (start-up 4.1, planning 0.2, loading 1.0, scoring 35.1, publishing 0.5), "
        "46k rows/s, limited by read (87%), cpu"
    )


def test_a_run_that_scored_nothing_tells_no_speed() -> None:
    """Of a run with nothing to do there are the phases that it had; of an older one the whole."""
    nothing = {"start_up": 1.0, "planning": 0.5, "loading": 0.0}
    run = manifest(phases=nothing, seconds=1.5, status="unchanged")
    assert render_times.times(run) == "1.5 s (start-up 1.0, planning 0.5)"
    assert render_times.times(manifest(status="published")).startswith("41 s, 46k rows/s")


def test_a_run_that_scored_nothing_has_no_speed() -> None:
    """All its rows were scored before it: they say nothing of how fast it was."""
    reused = {"rows": {**COUNTS, "reused": COUNTS["input"]}, "reused_units": 1, "limited_by": None}
    reported = manifest(**reused, stage_seconds={}, timings=None)
    assert render_times.speed_and_limit(reported) == "41 s, cpu"
