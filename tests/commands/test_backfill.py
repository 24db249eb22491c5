"""`backfill` as a person uses it: real dates, real workers, kills and signals in the middle."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batchscore as bs
from batchscore.commands.backfill import Backfilled, assign, try_model
from batchscore.commands.date_worker import DateEnd, DateRun
from batchscore.commands.dates import Request, find_dates
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.torch.backend import TorchBackend
from batchscore.plan.settled import Settled, settled_by
from batchscore.runs import layout
from batchscore.runs.lease import acquire
from batchscore.storage.store import Store
from batchscore.worker.kept import keep_models
from tests import factory
from tests.faults import backfills
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def facts(output: Path) -> dict[str, Any]:
    """SHA-256 of files and profile of each published slice, and what its checks found."""
    found = {}
    for marker in sorted(output.glob("_batchscore/slices/*/_SUCCESS")):
        run = output / "_batchscore/runs" / marker.read_text().strip()
        manifest = json.loads((run / "manifest.json").read_text())
        listed = (marker.parent / "current.txt").read_text().split()
        files = [output / path for path in listed]
        said = [manifest[key] for key in ("drift", "checks", "rows", "columns", "profile")]
        text = json.dumps(said).replace(str(output), "OUT")
        found[marker.parent.name] = (
            [hashlib.sha256(each.read_bytes()).hexdigest() for each in files],
            hashlib.sha256((run / "profile.parquet").read_bytes()).hexdigest(),
            re.sub(r"\d{8}-[0-9a-f]{4}", "RUN", text),
        )
    return found


def test_a_backfill_equals_nights(tmp_path: Path) -> None:
    """Rows and profiles are equal by SHA-256, verdicts by their words, to those of nights in turn.

    One date is held, and the next one is compared with the last that was published before.
    """
    dates = backfills.write_dates(tmp_path, 6)
    nights = tmp_path / "nights"
    for day in dates.days:
        to = f"output.path={nights}"
        factory.run_cli("run", dates.job, "--param", f"date={day}", "--set", to)
    done = factory.run_cli("backfill", *dates.arguments, "--side-by-side", "3")
    assert done.exit_code == 1
    assert facts(tmp_path / "out") == facts(nights)
    assert len(facts(nights)) == 4
    lines = done.stdout.splitlines()
    assert lines[0].startswith("BACKFILL small   date 2026-01-01 to 2026-01-06: 6 dates in ")
    assert lines[1].split()[:2] == ["published", "4"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["held", "1"],
        [dates.held, "run"],
        ["failed", "1"],
        [dates.broken, "shard"],
    ]


def test_killed_and_started_again_it_publishes_all_that_can_be(tmp_path: Path) -> None:
    """After -9 in the middle the same command publishes the rest, and names the two others."""
    dates = backfills.write_dates(tmp_path, 16)
    before = backfills.kill_after(dates, 5)
    found = backfills.resume(dates)
    good = [day for day in dates.days if day not in (dates.held, dates.broken)]
    assert 5 <= len(before) < len(good)
    assert dates.published() == good
    assert found["exit_code"] == 1
    assert found["counts"]["published"] == len(good)
    named = {each["date"]: each["status"] for each in found["dates"] if each["reason"]}
    assert named == {dates.held: "held", dates.broken: "invalid"}
    kept = [each["date"] for each in found["dates"] if each["status"] == "kept"]
    assert kept == before
    assert not Store(str(tmp_path / "out")).names("_batchscore/work")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_open_dates_and_the_table_comes(tmp_path: Path, number: int) -> None:
    """It ends with 130 or 143, has no run open, and says which dates are left."""
    dates = backfills.write_dates(tmp_path, 40)
    process = backfills.start(dates.arguments)
    wait_until(lambda: len(dates.published()) >= 2)
    process.send_signal(number)
    printed, said = process.communicate()
    assert process.returncode == 128 + number, said
    assert "the same command goes on with these" in printed
    assert f"left{40 - len(dates.published()) - printed.count('  run '):>12}"[:4] in printed
    runs = json.loads(factory.run_cli("runs", "--json", tmp_path / "out").stdout)
    assert "unfinished" not in {run["status"] for run in runs}
    assert dates.published() == sorted(dates.published())


def test_a_worker_loads_the_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that scores several dates loads the model once, and proves each date's rows."""
    loads: list[str] = []
    load = TorchBackend.load

    def count(self: TorchBackend, *arguments: Any, **more: Any) -> Predictor:
        loads.append("loaded")
        return load(self, *arguments, **more)

    monkeypatch.setattr(TorchBackend, "load", count)
    dates = backfills.write_dates(tmp_path, 5, {"runtime": {"model_process": "off"}})
    request = Request(str(dates.job), dates.days[0], dates.days[-1])
    over, found = find_dates(request)
    settled = try_model(found, rescore=False, workers=2)
    assert isinstance(settled, Settled)
    loads.clear()
    with kept_models():
        shared = assign(request, over, settled, 2)
        outcomes = [_carried_out(DateRun(shared, day, _ignored)) for day in dates.days]
    assert [each.status for each in outcomes].count("published") == 3
    assert loads == ["loaded"]
    shown = factory.run_json("show", dates.job, "--param", f"date={dates.days[-1]}")
    assert shown["workers"] == 1


@contextmanager
def kept_models() -> Iterator[None]:
    """Has this process keep models, as a worker does, for a while."""
    keep_models("a test")
    try:
        yield
    finally:
        keep_models("")


def _carried_out(run: DateRun) -> DateEnd:
    run.turn.set()
    return run.outcome()


def _ignored(_what: str, _about: object) -> None:
    """Nobody waits for what a date says."""


def test_a_date_whose_own_model_is_refused_leaves_the_others_alone(tmp_path: Path) -> None:
    """If the model's path has the date, a missing model is that date's failure."""
    changes = {"model.path": "models/${date}", "drift": None}
    dates = backfills.write_dates(tmp_path, 4, changes)
    for number, day in enumerate(dates.days):
        if day not in (dates.days[0], dates.broken):
            factory.write_model(tmp_path / "models" / day, version=f"{number}.0")
    found = factory.run_json("backfill", *dates.arguments, "--side-by-side", "2")
    status = [each["status"] for each in found["dates"]]
    assert (found["exit_code"], status) == (1, ["invalid", "published", "invalid", "published"])
    assert "no such model folder" in found["dates"][0]["reason"]
    versions = factory.published(tmp_path / "out")["model_version"].unique().to_pylist()
    assert sorted(versions) == ["1.0", "3.0"]


def test_dates_with_outputs_of_their_own(tmp_path: Path) -> None:
    """If the output's path has the date, one that cannot be written is that date's failure.

    The others are published, each where its document says, and `status` of the folder shows them.
    """
    dates = backfills.write_dates(tmp_path, 4, {"output.path": "out/${date}", "drift": None})
    (tmp_path / "out" / dates.days[0]).mkdir(parents=True)
    (tmp_path / "out" / dates.days[0] / "theirs").touch()
    done = factory.run_cli("backfill", *dates.arguments, "--side-by-side", "2")
    assert done.stdout.splitlines()[-1] == f"look   batchscore status {tmp_path / 'out'}"
    found = factory.run_json("backfill", *dates.arguments)
    status = [each["status"] for each in found["dates"]]
    assert (found["exit_code"], status) == (1, ["invalid", "kept", "invalid", "kept"])
    assert "holds 'theirs' and is not an output" in found["dates"][0]["reason"]
    assert found["dates"][1]["output"] == str(tmp_path / "out" / dates.days[1])
    shown = factory.run_json("status", found["output"])
    assert [Path(each).name for each in shown["outputs"]] == [dates.days[1], dates.days[3]]


def test_a_model_that_is_damaged_meanwhile_stops_all_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused for each date ends the backfill with 2, not with a failure for each date."""
    dates = backfills.write_dates(tmp_path, 8, {"drift": None, "runtime.model_process": "off"})

    def damaging(*plans: Any) -> Settled:
        (tmp_path / "model/weights.safetensors").write_bytes(b"nothing")
        return settled_by(*plans)

    monkeypatch.setattr("batchscore.commands.backfill.settled_by", damaging)
    found = factory.run_json("backfill", *dates.arguments, "--side-by-side", "1")
    assert (found["status"], found["exit_code"]) == ("invalid", 2)
    assert found["counts"]["left"] >= 5
    assert "weights.safetensors" in found["error"]
    assert not dates.published()


def test_an_output_that_is_full_stops_all_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A date says so of its own failure; the backfill fails with 1, since it had work."""
    dates = backfills.write_dates(tmp_path, 3, {"drift": None, "runtime.model_process": "off"})
    over, found = find_dates(Request(str(dates.job), dates.days[0], dates.days[-1]))
    settled = try_model(found, rescore=False, workers=1)
    assert isinstance(settled, Settled)

    def is_full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("batchscore.commands.run.take", is_full)
    shared = assign(Request(str(dates.job), dates.days[0], dates.days[-1]), over, settled, 1)
    end = _carried_out(DateRun(shared, dates.days[0], _ignored))
    assert (end.status, end.for_all) == ("failed", True)
    assert "make room and run again" in end.reason
    left = [DateEnd(day, "left") for day in dates.days[1:]]
    outputs = dict.fromkeys(dates.days, str(tmp_path / "out"))
    done = Backfilled("small", over, outputs, (end, *left), (), 1.0, for_all=end)
    assert (done.exit_code, done.status, done.to_json()["error"]) == (1, "failed", end.reason)


LOUD = """import logging


def look(batch):
    logging.getLogger("features").error("looked")
    return batch
"""


def test_each_line_of_a_log_names_the_date_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON lines; a date's lines come once, and none name the date before."""
    function = {"function": "look.py:look", "columns": ["a", "b"]}
    dates = backfills.write_dates(tmp_path, 4, {"preprocess": function, "drift": None})
    (tmp_path / "look.py").write_text(LOUD)
    monkeypatch.setenv("BATCHSCORE_LOG_FORMAT", "json")
    _, said = backfills.start([*dates.arguments, "--side-by-side", "1"]).communicate()
    lines = [json.loads(line) for line in said.splitlines()]
    looked = [each for each in lines if "looked" in each["message"] and "slice" in each]
    assert {each["message"] for each in looked} == {"looked"}
    counts = Counter((each["slice"], "unit" in each) for each in looked)
    good = [f"small,date={day}" for day in dates.days if day != dates.broken]
    assert {slice_ for slice_, in_unit in counts if not in_unit} >= {*good[1:]}
    assert {slice_: counts[slice_, True] for slice_ in good} == dict.fromkeys(good, 1)
    runs = {(each["slice"], each["run"]) for each in looked if "unit" in each}
    published = {
        (path.parent.name, path.read_text().strip())
        for path in (tmp_path / "out/_batchscore/slices").glob("*/_SUCCESS")
    }
    assert runs == published


# Ends the process that has a row of the date that would be held.
DEADLY = """import os

import pyarrow as pa


def look(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.column("a")[0].as_py() == 9.0:
        os._exit(7)
    return batch
"""


def test_a_date_that_kills_its_worker_is_named_and_alone(tmp_path: Path) -> None:
    """Another worker takes the dead one's place, and scores the dates after it."""
    function = {"function": "look.py:look", "columns": ["a", "b"]}
    dates = backfills.write_dates(tmp_path, 5, {"preprocess": function, "drift": None})
    (tmp_path / "look.py").write_text(DEADLY)
    found = factory.run_json("backfill", *dates.arguments, "--side-by-side", "1")
    status = {each["date"]: each["status"] for each in found["dates"]}
    assert [day for day, what in status.items() if what == "published"] == dates.published()
    assert len(dates.published()) == 3
    reason = next(each["reason"] for each in found["dates"] if each["date"] == dates.held)
    assert re.fullmatch(
        r"worker process \d+ ended with exit code 7 while it scored this date; .*", reason
    )


def test_a_date_that_fails_while_it_is_scored_names_its_run(tmp_path: Path) -> None:
    """`show` tells of that run; nothing of the date is published."""
    changes = {"rejects.max_rows": 0, "drift": None}
    dates = backfills.write_dates(tmp_path, 4, changes)
    rows = factory.make_rows(backfills.ROWS)
    some = [None if row == 150 else 0.5 for row in range(backfills.ROWS)]
    nulls = rows.set_column(1, "a", pa.array(some, pa.float32()))
    factory.write_shard(tmp_path / "in" / dates.days[3] / "0.parquet", nulls)
    found = factory.run_json("backfill", *dates.arguments)
    last = found["dates"][3]
    assert last["status"] == "failed"
    shown = factory.run_json("show", tmp_path / "out", last["run"])
    assert shown["status"] == "failed"
    assert dates.published() == [*dates.days[:2]]


def test_dates_that_are_not_there_yet_are_to_be_tried_later(tmp_path: Path) -> None:
    """Without `ready`, or if another run holds the slice, a backfill ends with 4."""
    dates = backfills.write_dates(tmp_path, 3, {"input.ready": "_SUCCESS", "drift": None})
    for day in dates.days[:2]:
        (tmp_path / "in" / day / "_SUCCESS").touch()
    store = Store(str(tmp_path / "out"))
    layout.claim_output(store)
    with acquire(store, f"small,date={dates.days[1]}", "run"):
        found = factory.run_json("backfill", *dates.arguments)
    assert [each["status"] for each in found["dates"]] == ["published", "retry", "retry"]
    assert "is held by `run`" in found["dates"][1]["reason"]
    assert (found["status"], found["exit_code"]) == ("retry", 4)


def test_python_gets_what_became_of_each_date(tmp_path: Path) -> None:
    """`bs.backfill` returns each date with its run, or why it has none."""
    dates = backfills.write_dates(tmp_path, 3, {"drift": None})
    found = bs.backfill(dates.job, dates.days[0], dates.days[-1], side_by_side=2)
    assert found.status == "failed"
    assert [each.status for each in found.dates] == ["published", "published", "invalid"]
    assert "0.parquet" in str(found.dates[2].reason)
    with pytest.raises(bs.InvalidError, match="the first date is after the last"):
        bs.backfill(dates.job, dates.days[-1], dates.days[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "2026-02-30", "--to", "2026-03-01"), "--from 2026-02-30: is no date"),
        (("--from", "2026-01-03", "--to", "2026-01-01"), "the first date is after the last"),
        (
            ("--from", "2026-01-01", "--to", "2026-01-03", "--over", "day"),
            "--over day: expected a parameter of type date; its parameters are date (date), "
            "region (string)",
        ),
        (
            ("--from", "2026-01-01", "--to", "2026-01-03", "--param", "date=2026-01-01"),
            "--param date: the backfill itself gives this parameter a value",
        ),
        (
            ("--from", "2026-01-01", "--to", "2026-01-03", "--set", "runtime.engine=flink"),
            "runtime.engine flink: a backfill judges dates in their order",
        ),
        (
            ("--from", "2026-01-01", "--to", "2026-01-03", "--set", "model.path=nowhere"),
            "no such model folder",
        ),
    ],
)
def test_what_no_date_can_do_ends_before_any_work(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """Wrong dates, parameters, engines and models end the backfill with 2, and write nothing."""
    kinds = {"date": {"type": "date"}, "region": {"type": "string"}}
    dates = backfills.write_dates(tmp_path, 3, {"params": kinds})
    done = factory.run_cli("backfill", dates.job, "--param", "region=north", *arguments)
    assert done.exit_code == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_job_without_dates_is_refused_with_its_parameters(tmp_path: Path) -> None:
    """The message names the parameters that there are, and how to declare a date."""
    kinds = {"region": {"type": "string"}, "hour": {"type": "integer"}}
    dates = backfills.write_dates(tmp_path, 3, {"params": kinds, "input.path": "in"})
    done = factory.run_cli("backfill", *dates.arguments)
    assert done.exit_code == 2
    assert "its parameters are region (string), hour (integer)" in done.stderr
