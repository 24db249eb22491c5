"""Test where a run's time is said to go: the limit, its share, the waits, and what would help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.telemetry import (
    BETWEEN,
    MEASURES,
    MOMENTS,
    STAGES,
    THREADS,
    Setting,
    add_up,
    advise,
    explain,
    limiting_stages,
    thread_of,
    threads,
)
from tests.factory import NET, run_json, write_job, write_model

pytestmark = pytest.mark.slow

BUSY = [name for thread in THREADS for name in thread]
UNITS = st.lists(
    st.dictionaries(st.sampled_from([m.name for m in MEASURES]), st.integers(0, 10**6).map(float))
)


def test_each_busy_measure_is_on_one_thread() -> None:
    """The threads hold every stage and the engine once, and no wait."""
    assert sorted(BUSY) == sorted([*(stage.name for stage in STAGES), "engine"])
    assert {m.name for m in BETWEEN} - set(BUSY) == {"wait_read", "wait_infer", "wait_write"}
    late = threads({"wait_infer": 0.0})
    assert ("infer",) in late
    assert sorted(name for thread in late for name in thread) == sorted(BUSY)


@given(UNITS, st.integers(0, 5))
def test_figures_join_in_any_order_and_grouping(units: list[dict[str, float]], cut: int) -> None:
    """Units joined in two groups, in reverse, or at once give the same; no figure is made up."""
    whole = add_up(units)
    assert whole == add_up(units[::-1]) == add_up([add_up(units[:cut]), add_up(units[cut:])])
    assert set(whole) == {name for unit in units for name in unit}


def test_seconds_add_up_and_moments_span() -> None:
    """Seconds are summed over units; a run begins with its first unit and ends with its last."""
    one = {"infer": 2.0, "began": 10.0, "ended": 15.0}
    two = {"infer": 3.0, "began": 8.0, "ended": 12.0, "unknown": 1.0}
    assert add_up([one, two]) == {"infer": 5.0, "began": 8.0, "ended": 15.0}


@given(st.dictionaries(st.sampled_from(BUSY), st.floats(0.01, 1e6), min_size=1))
def test_the_limit_is_the_longest_stage_of_the_busiest_thread(seconds: dict[str, float]) -> None:
    """It comes first; a second one is named if its thread, and it within that, is within 10 %."""
    loads = {thread: sum(seconds.get(name, 0.0) for name in thread) for thread in THREADS}
    limit, *others = limiting_stages(seconds)
    thread = next(thread for thread in THREADS if limit in thread)
    assert loads[thread] == max(loads.values())
    assert seconds[limit] == max(seconds.get(name, 0.0) for name in thread)
    assert len(others) <= 1
    for other in others:
        near = next(thread for thread in THREADS if other in thread)
        assert loads[near] >= 0.9 * loads[thread]
        assert seconds[other] >= 0.9 * max(seconds.get(name, 0.0) for name in near)


@pytest.mark.parametrize(
    ("seconds", "named"),
    [
        ({"preprocess": 2.0, "infer": 2.5, "read": 3.0}, ("infer",)),
        ({"preprocess": 2.4, "infer": 2.5, "read": 3.0}, ("infer", "preprocess")),
        ({"read": 10.0, "infer": 6.0, "preprocess": 3.5}, ("read", "infer")),
        ({"read": 10.0, "infer": 6.0, "preprocess": 2.5}, ("read",)),
        ({"profile": 4.0, "write": 3.0, "infer": 3.5}, ("profile",)),
        ({"engine": 3.0, "infer": 1.0, "write": 3.1}, ("engine",)),
        ({"read": 5.0, "infer": 4.9, "write": 4.8}, ("read", "infer")),
        ({"read": 0.0}, ()),
        ({}, ()),
    ],
)
def test_stages_of_one_thread_add_up(seconds: dict[str, float], named: tuple[str, ...]) -> None:
    """What shares a thread outweighs a longer stage alone; what is not sure by 10 % names two."""
    assert limiting_stages(seconds) == named


def test_a_gpu_is_the_limit_where_it_was_waited_for_most() -> None:
    """Its thread only hands batches over, so that the wait for it tells, and is the share."""
    late = {"read": 6.0, "infer": 3.0, "preprocess": 1.0, "engine": 0.5, "wait_write": 0.0}
    waiting = {**late, "wait_read": 1.0, "wait_infer": 7.5}
    found = explain(waiting, Setting(0, 10, device="cuda:0"))
    assert (found.limited_by, found.share, found.thread_s) == (("infer",), 0.75, 10)
    assert limiting_stages({**late, "wait_read": 7.5, "wait_infer": 1.0}) == ("read",)
    assert limiting_stages({**late, "wait_read": 0.0, "wait_infer": 0.1}) == ("read",)
    assert [thread_of(m, waiting) for m in STAGES] == [
        "reader",
        "main",
        "device",
        "main",
        "main",
        "profiler",
        "writer",
    ]


def measured(start_up: float, units: float, finish: float, **seconds: float) -> dict[str, float]:
    """Return a run's seconds, started at 0, with its moments; what is not given took none."""
    names = {m.name for m in (*STAGES, *BETWEEN)} - {"wait_infer"}
    all_of_them = dict.fromkeys(names, 0.0)
    return {**all_of_them, **seconds, "began": start_up, "ended": start_up + units}


def test_waits_are_shares_of_the_main_threads_time() -> None:
    """Two workers of 10 s each: what they waited, and what limits, is of 20 s and not of 10."""
    seconds = measured(2, 10, 1, read=16, infer=4, wait_read=13, wait_write=1, engine=2)
    found = explain(seconds, Setting(0, 13, workers=2, units=4))
    assert (found.limited_by, found.share) == (("read",), 0.8)
    assert (found.waited_for_data, found.waited_for_writer) == (0.65, 0.05)
    assert (found.engine, found.thread_s) == (0.1, 20)
    assert (found.start_up_s, found.scoring_s, found.finish_s) == (2, 11, 1)


def test_no_share_is_above_all_of_the_time() -> None:
    """What the main thread writes at a unit's end is time of its own, too."""
    seconds = measured(0, 10, 0, write=8, infer=2, wait_write=3)
    found = explain(seconds, Setting(0, 10))
    assert (found.share, found.thread_s, found.waited_for_writer) == (1.0, 8, 0.375)


def test_more_workers_than_units_do_not_count() -> None:
    """A worker without a unit has not waited, and shares are of those that had one."""
    seconds = {"infer": 9.0, "read": 1.0}
    assert explain(seconds, Setting(0, 10, workers=4, units=1)).share == 0.9


def test_what_surrounds_the_units_limits_where_it_took_longer() -> None:
    """A phase is named with its share of the run, if it is longer than all units."""
    setting = Setting(0, 10)
    assert explain(measured(6, 3, 1, read=3), setting).limited_by == ("loading",)
    assert explain(measured(6, 3, 1, read=3), setting).share == 0.6
    early = replace(setting, before={"start_up": 4.0, "planning": 1.0})
    assert explain(measured(6, 3, 1, read=3), early).limited_by == ("start-up",)
    assert explain(measured(6, 3, 1, read=3), early).share == 0.4
    late = replace(setting, before={"start_up": 1.0, "planning": 4.0})
    assert explain(measured(6, 3, 1, read=3), late).limited_by == ("planning",)
    assert explain(measured(2, 2, 6, read=2), setting).limited_by == ("publishing",)
    assert explain(measured(4, 5, 1, read=2, engine=3), setting).limited_by == ("engine",)


def test_clocks_that_disagree_give_no_negative_time() -> None:
    """A unit that began before the run, or ended after it, by another machine's clock."""
    found = explain(measured(-5, 50, 0, infer=9, engine=1), Setting(0, 10))
    assert (found.start_up_s, found.scoring_s, found.finish_s) == (0, 10, 0)


def test_what_was_not_measured_is_not_reported() -> None:
    """Without waits and moments there is a limit, but no share of waiting and no start-up."""
    found = explain({"read": 2.0, "infer": 1.0}, Setting(0, 3))
    assert (found.limited_by, found.share) == (("read",), 2 / 3)
    untold = (found.start_up_s, found.scoring_s, found.finish_s, found.thread_s)
    assert {*untold, found.waited_for_data, found.waited_for_writer, found.engine} == {None}
    assert explain({"read": 2.0}, Setting(0, 5)).limited_by == ("start-up",)
    assert explain({"read": 2.0}, Setting(0, 3, workers=2, units=2)).limited_by == ("start-up",)
    assert explain({}, Setting(0, 0)).limited_by == ("start-up",)


@given(
    st.dictionaries(st.sampled_from([m.name for m in MEASURES]), st.floats(0, 1e9)),
    st.builds(Setting, started=st.floats(0, 1e9), finished=st.floats(0, 1e9)),
    st.integers(1, 64),
)
def test_any_figures_are_explained(
    seconds: dict[str, float], setting: Setting, workers: int
) -> None:
    """Whatever was measured, shares lie within 0 and 1, phases make up the run, and help is given.

    Phases are shown only where both moments were measured.
    """
    found = explain(seconds, replace(setting, workers=workers, units=workers, cores=workers))
    shares = (found.share, found.waited_for_data, found.waited_for_writer, found.engine)
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert 1 <= len(found.limited_by) <= 2
    assert found.help
    if found.start_up_s is not None and found.scoring_s is not None:
        assert found.start_up_s + found.scoring_s == pytest.approx(setting.seconds)
        assert set(seconds) >= {m.name for m in MOMENTS}


BUSY_READER = measured(1, 10, 1, read=9.5, infer=2, wait_read=7, engine=1)


@pytest.mark.parametrize(
    ("limit", "facts", "said"),
    [
        ("read", {"cores": 4, "units": 6}, "runtime.workers: 4, since with 1 about 1.2 of 4"),
        ("read", {"cores": 4, "units": 2}, "runtime.workers: 2, "),
        ("read", {"cores": 2, "units": 6}, "a faster disk or store"),
        ("read", {"cores": 1, "units": 6}, "a machine with more cores than 1"),
        (
            "read",
            {"passed_columns": 1000, "model_columns": 32, "cores": 2},
            "output.columns: 1,000",
        ),
        ("read", {"passed_columns": 34, "model_columns": 32, "cores": 2}, "a faster disk or store"),
        ("write", {"files": 400, "partition_by": ("day", "hour")}, "by day, hour 400 files"),
        ("write", {"files": 400, "cores": 2}, "fewer or narrower columns"),
        ("profile", {"passed_columns": 40, "cores": 2}, "output.columns: 40 are profiled"),
        ("preprocess", {"preprocess": "f.py:f", "pandas": True}, "preprocess.batch: arrow"),
        ("preprocess", {"preprocess": "f.py:f"}, "make f.py:f faster"),
        ("preprocess", {"cores": 2}, "fewer or simpler features"),
        ("postprocess", {"postprocess": ("f.py:f", "g.py:g")}, "make f.py:f and g.py:g faster"),
        ("postprocess", {"preprocess": "f.py:f", "cores": 2}, "fewer steps after"),
        ("infer", {}, "a GPU (runtime.device: cuda)"),
        ("infer", {"device": "cuda:0", "cores": 16, "units": 8}, "runtime.precision: bf16"),
        ("infer", {"device": "cuda:0", "precision": "bf16"}, "a faster or a further GPU"),
        ("infer", {"batch_rows": 64, "call_rows": 1024}, "runtime.batch_rows of 1,024 or more"),
        ("engine", {"batch_rows": 1000}, "runtime.batch_rows above 1,000"),
        ("engine", {"cores": 2}, "larger shards"),
        ("start-up", {"before": {"start_up": 1.0}}, "framework took 1.0 s of 12.0 s"),
        ("planning", {"before": {"planning": 0.5}}, "comparing them took 0.5 s of 12.0 s"),
        ("loading", {}, "starting workers took 1.0 s of 12.0 s"),
        ("publishing", {"files": 400, "partition_by": ("day",)}, "output.partition_by"),
        ("publishing", {}, "larger shards"),
    ],
)
def test_help_goes_by_the_evidence(limit: str, facts: dict[str, object], said: str) -> None:
    """Each limit has its remedy, the first for which something was measured or set."""
    setting = replace(Setting(0, 12), **facts)  # type: ignore[arg-type]
    assert said in advise(limit, BUSY_READER, setting)


def test_fewer_workers_help_where_starting_them_took_longer_than_they_spare() -> None:
    """Two workers spare half of the work; one is advised only if starting took longer than that."""
    two = Setting(0, 10, workers=2, units=4)
    assert advise("loading", measured(6, 4, 0), two).startswith("runtime.workers: 1, which")
    assert "runs" in advise("loading", measured(6, 4, 0), replace(two, workers=4))
    assert "runs" in advise("loading", measured(6, 4, 0), replace(two, workers=1))


def test_more_workers_help_only_where_it_pays() -> None:
    """Not where the stage took few seconds, nor where tiles keep the cores busy, or a GPU works."""
    setting = Setting(0, 12, cores=4, units=6)
    short = {name: second / 10 for name, second in BUSY_READER.items()}
    assert "runtime.workers" in advise("read", BUSY_READER, setting)
    assert "runtime.workers" not in advise("read", short, setting)
    alone = measured(1, 10, 1, read=3, infer=9, engine=1)
    assert "runtime.workers" not in advise("infer", {**alone, "tiles": 27.0}, setting)
    assert "runtime.workers: 4" in advise("infer", alone, setting)
    assert "runtime.workers" not in advise("infer", alone, replace(setting, device="cuda:0"))


# Slow only while a run is at work: the sample before it calls a function several times.
SLOW = """import os
import time

import pyarrow as pa


def arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    time.sleep(1.0 * os.path.isdir(WORK))
    return batch


def frame(batch):
    time.sleep(1.0 * os.path.isdir(WORK))
    return batch.copy()
"""
SLEEP = "__import__('time').sleep(1.0 * __import__('os').path.isdir(WORK))"
SLOW_NET = NET.replace("logit: ", f"{SLEEP}\n        logit: ")


@pytest.fixture(scope="module")
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run before: the next one need not import Beam and torch, which takes seconds."""
    run_json("run", write_job(tmp_path_factory.mktemp("imported")))


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No phase of a busy machine outlasts the units, however long it takes."""
    monkeypatch.setattr("batchscore.telemetry._OUTSIDE", ("scoring",))


@pytest.mark.usefixtures("_imported", "_quiet")
@pytest.mark.parametrize(
    ("changes", "limit", "said"),
    [
        ({"postprocess": {"function": "slow.py:arrow"}}, "postprocess", "make slow.py:arrow"),
        ({"preprocess": {"function": "slow.py:arrow"}}, "preprocess", "make slow.py:arrow"),
        (
            {"preprocess": {"function": "slow.py:frame", "batch": "pandas"}},
            "preprocess",
            "write slow.py:frame on Arrow batches (preprocess.batch: arrow)",
        ),
        ({}, "infer", "a GPU (runtime.device: cuda)"),
    ],
)
def test_a_run_names_the_stage_that_is_slow(
    tmp_path: Path, changes: dict[str, object], limit: str, said: str
) -> None:
    """A real run with one stage slow on purpose: it is the limit, most of the time, with help."""
    job = write_job(tmp_path, changes)
    work = repr(str(tmp_path / "out/_batchscore/work"))
    (tmp_path / "slow.py").write_text(SLOW.replace("WORK", work))
    if limit == "infer":
        write_model(tmp_path / "model", SLOW_NET.replace("WORK", work))
    manifest = run_json("run", job)
    assert manifest["status"] == "published", manifest
    assert (manifest["limited_by"], manifest["stage_seconds"][limit] >= 1) == (limit, True)
    assert manifest["timings"]["share"] > 0.5
    assert said in manifest["timings"]["help"]


def test_data_that_is_waited_for_most_of_the_time_is_the_limit() -> None:
    """A store that answers slowly, or is asked again, keeps no thread busy."""
    seconds = {"read": 0.5, "infer": 0.8, "write": 0.9, "wait_read": 24.4, "wait_write": 0.1}
    assert limiting_stages({**seconds, "engine": 0.1}) == ("read",)
