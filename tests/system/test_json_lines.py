"""Test that each line on standard error is one JSON object, wherever it comes from."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.cli.app import log_format
from batchscore.system import json_lines, stderr_pump
from tests import factory
from tests.waiting import wait_until

LOUD = """import logging
import os
import time
import warnings


def loud(batch):
    print("printed")
    logging.getLogger("features").warning("from s3://key:secret@bucket/x\\nsecond line")
    warnings.warn("odd\\nvalues")
    os.write(2, b"native\\n")
    time.sleep(float(os.environ.get("SECONDS_A_BATCH", "0")))
    return batch
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """No facts of another test."""
    json_lines.forget()
    yield
    json_lines.forget()


def written(text: str) -> list[dict[str, Any]]:
    """What becomes of a text that is written to a stream."""
    out = io.StringIO()
    stream = json_lines.JsonStream(out, "stderr")
    stream.write(text)
    stream.finish()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def pumped(data: bytes) -> list[dict[str, Any]]:
    """What the process of its own makes of what is written to the file descriptor."""
    command = [sys.executable, "-I", "-S", stderr_pump.__file__]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_record_is_an_object_with_run_slice_and_unit() -> None:
    """Its message may have several lines; addresses in it are without credentials."""
    json_lines.note(lambda: "u1", run="r1", slice="s1")
    record = logging.LogRecord(
        "features", logging.WARNING, "", 0, "from %s\nsecond", ("s3://key:secret@b/x",), None
    )
    found = json.loads(json_lines.JsonFormatter().format(record))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found.pop("time"))
    assert found == {
        **{"level": "WARNING", "logger": "features", "message": "from s3://***@b/x\nsecond"},
        **{"run": "r1", "slice": "s1", "unit": "u1", "pid": os.getpid()},
    }


def test_a_thread_may_be_on_something_of_its_own() -> None:
    """What it logs names that alone; other threads name what the process is on."""
    json_lines.note(lambda: "u2", run="r2", slice="s2")

    def say() -> None:
        json_lines.note_in_thread(run="r1", slice="s1")
        lines.append(json_lines.json_line(0, "INFO", "mine", "judged"))

    lines: list[str] = []
    thread = threading.Thread(target=say)
    thread.start()
    thread.join()
    lines.append(json_lines.json_line(0, "INFO", "mine", "scored"))
    found = [json.loads(line) for line in lines]
    assert [(each["run"], each["slice"], each.get("unit")) for each in found] == [
        ("r1", "s1", None),
        ("r2", "s2", "u2"),
    ]


def test_an_exception_is_part_of_its_record() -> None:
    """As a text in one field."""
    try:
        raise ValueError("bad")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), info)
    found = json.loads(json_lines.JsonFormatter().format(record))
    assert found["exception"].endswith("ValueError: bad")


@pytest.mark.parametrize(
    ("line", "level", "logger"),
    [
        ("WARNING  metrics x.prom: could not be written", "WARNING", "batchscore"),
        ("FAILED  output x: no room", "ERROR", "batchscore"),
        ("12:00:01 scored 5 of 10 rows", "INFO", "stderr"),
        ("HTTP GET", "INFO", "stderr"),
    ],
)
def test_a_line_of_the_command_has_its_level(line: str, level: str, logger: str) -> None:
    """By the status that it begins with."""
    (found,) = written(f"{line}\n")
    assert (found["level"], found["logger"], found["message"]) == (level, logger, line)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6))
def test_every_line_of_any_text_is_one_object(lines: list[str]) -> None:
    """Whatever it holds, and however it is cut; empty ones are left out."""
    text = "\n".join(lines)
    found = written(text)
    assert "\n".join(each["message"] for each in found) == "\n".join(
        line for line in text.split("\n") if line.strip()
    )


def test_a_message_of_the_command_is_one_object() -> None:
    """Its further lines say what is wrong, too; the next status begins another one."""
    found = written("INVALID  job.yaml: a\njob.yaml: b\nWARNING  c\n")
    assert [(each["level"], each["message"]) for each in found] == [
        ("ERROR", "INVALID  job.yaml: a\njob.yaml: b"),
        ("WARNING", "WARNING  c"),
    ]


def test_what_threads_write_at_once_stays_apart() -> None:
    """Though each writes its text and its line break by themselves."""
    out = io.StringIO()
    stream = json_lines.JsonStream(out, "stderr")
    barrier = threading.Barrier(2)

    def write(name: str) -> None:
        for _ in range(20):
            barrier.wait(10)
            stream.write(name)
            barrier.wait(10)
            stream.write("\n")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one", "two"]))
    found = [json.loads(line)["message"] for line in out.getvalue().splitlines()]
    assert Counter(found) == {"one": 20, "two": 20}


@given(st.lists(st.lists(st.integers(1, 3 * 4096), max_size=3), max_size=4), st.randoms())
def test_pieces_of_lines_are_put_together(sizes: list[list[int]], random: Random) -> None:
    """However those of several writers are mixed; no piece is longer than a pipe takes at once."""
    lines = [
        [f"{w}-{n}:{'x' * size}".encode() for n, size in enumerate(s)] for w, s in enumerate(sizes)
    ]
    left = [
        [piece for n, line in enumerate(mine) for piece in stderr_pump.pieces(line, f"{w}-{n}")]
        for w, mine in enumerate(lines)
    ]
    assert all(len(piece) <= select.PIPE_BUF for mine in left for piece in mine)
    found, whole = stderr_pump.Pieces(), list[bytes]()
    while left := [mine for mine in left if mine]:
        for raw in random.choice(left).pop(0).split(b"\n"):
            line = found.whole(raw + b"\n")
            whole += [line.strip()] if line is not None and line.strip() else []
    assert sorted(whole) == sorted(line for mine in lines for line in mine)
    assert found.rests() == []


def test_long_lines_of_many_writers_reach_the_pipe_whole() -> None:
    """Also those of a writer that was killed in the middle, as far as they came."""
    command = [sys.executable, "-I", "-S", stderr_pump.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pump:
        assert pump.stdin is not None
        number = pump.stdin.fileno()

        def write(writer: int) -> None:
            for each in range(20):
                line = json_lines.json_line(0.0, "INFO", "x", f"{writer}-{each} " + "ü" * 5_000)
                for piece in stderr_pump.pieces(line.encode(), f"{writer}-{each}"):
                    os.write(number, piece)

        with ThreadPoolExecutor(5) as pool:
            done = pool.map(write, range(4))
            # It reads while they write: a pipe is full after a few lines.
            reading = pool.submit(lambda: [next(iter(pump.stdout or ())) for _ in range(80)])
            list(done)
            lines = reading.result()
        os.write(number, next(stderr_pump.pieces(b"cut " * 5_000, "killed")))
        rest, _ = pump.communicate(timeout=20)
    found = [json.loads(line) for line in lines]
    assert {each["logger"] for each in found} == {"x"}
    assert all(each["message"].endswith(" " + "ü" * 5_000) for each in found)
    assert json.loads(rest)["message"].startswith("cut cut ")


def test_a_pipe_that_nobody_reads_stops_no_writer() -> None:
    """As after `2>&1 | head`: the rest is read and dropped."""
    command = [sys.executable, "-I", "-S", stderr_pump.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pump:
        assert pump.stdout is not None
        assert pump.stdin is not None
        pump.stdout.close()
        for _ in range(50):
            pump.stdin.write(b"x" * 5_000 + b"\n")
            pump.stdin.flush()
        pump.stdin.write(stderr_pump.END)


def test_a_line_that_is_an_object_already_is_passed_on() -> None:
    """As one that a worker wrote; what only looks like one is wrapped."""
    ours = json_lines.json_line(0.0, "INFO", "worker", "hello")
    broken = '{"time": "now", '
    (first, second) = written(f"{ours}\n{broken}")
    assert first == json.loads(ours)
    assert second["message"] == broken
    (first, second) = pumped(f"{ours}\n{broken}".encode())
    assert (first["message"], second["message"]) == ("hello", broken)
    (forged,) = written('{"time": "now", "run": "r"}')
    assert forged["message"] == '{"time": "now", "run": "r"}'


def test_what_native_code_writes_is_wrapped_with_what_is_known() -> None:
    """Run and slice are those that were noted before; bytes that are no text are replaced."""
    facts = stderr_pump.context({"run": "r1", "slice": "s1"})
    found = pumped(b"first\n" + facts + b"caf\xe9\r\n\n" + stderr_pump.END + b"late\n")
    assert [(each["message"], each.get("run")) for each in found] == [
        ("first", None),
        ("caf\N{REPLACEMENT CHARACTER}", "r1"),
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["run", "job.yaml"], None),
        (["run", "job.yaml", "--log-format", "json"], "json"),
        (["run", "--log-format=text", "job.yaml"], "text"),
        (["run", "job.yaml", "--", "--log-format", "json"], None),
        (["run", "--log-format"], None),
    ],
)
def test_the_format_is_known_before_the_command_line_is_parsed(
    words: list[str], found: str | None
) -> None:
    """What is wrong with the command line is a message too."""
    assert log_format(words) == found


def run(job: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Starts the command on a loud job."""
    command = [sys.executable, "-m", "batchscore", "run", str(job), "--log-format", "json", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def loud_job(folder: Path, workers: int) -> Path:
    """A job whose function prints, logs, and writes to the file descriptor."""
    (folder / "loud.py").write_text(LOUD)
    factory.write_job(folder)
    runtime = {"workers": workers, "batch_rows": 100}
    changes = {"preprocess": {"function": "loud.py:loud"}, "runtime": runtime}
    return factory.change_job(folder, changes)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_all_that_a_run_writes_to_standard_error_is_objects(tmp_path: Path, workers: int) -> None:
    """Of the launcher, its workers and native code; the result on standard output stays text."""
    with run(loud_job(tmp_path, workers)) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("PUBLISHED run ")
    found = [json.loads(line) for line in err.splitlines()]
    name = out.split()[2]
    mine = [each for each in found if each.get("run") == name]
    warned = [each for each in mine if each["level"] == "WARNING"]
    said = {each["message"] for each in warned if each["logger"] == "features"}
    assert said == {"from s3://***@bucket/x\nsecond line"}
    # Python shows a warning of one place once, here before the run has its name.
    (odd, *_) = [each["message"] for each in found if each["logger"] == "py.warnings"]
    assert "UserWarning: odd\nvalues" in odd
    assert all(each["slice"] == "small" and each["unit"] for each in warned)
    assert {each["message"] for each in mine} >= {"printed", "native"}


@pytest.mark.slow
def test_a_run_that_is_interrupted_says_so_as_an_object(tmp_path: Path) -> None:
    """Ctrl-C reaches the command, not what wraps its lines."""
    job = loud_job(tmp_path, 1)
    environment = {**os.environ, "SECONDS_A_BATCH": "0.3"}
    with run(job, env=environment, start_new_session=True) as process:
        wait_until(lambda: any(tmp_path.glob("out/_batchscore/work/*/progress/*.json")))
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    last = json.loads(err.splitlines()[-1])
    assert (last["level"], last["logger"]) == ("ERROR", "batchscore")
    assert last["message"].startswith("INTERRUPTED  ")


def test_what_is_wrong_with_the_command_line_is_an_object(tmp_path: Path) -> None:
    """So is a job file that does not exist."""
    with run(tmp_path / "none.yaml") as process:
        _, err = process.communicate(timeout=60)
    (found,) = [json.loads(line) for line in err.splitlines()]
    assert process.returncode == 2
    assert found["message"].startswith("INVALID  no such job file")
