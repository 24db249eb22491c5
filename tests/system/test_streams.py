"""Test that who reads a command's output, and until when, does not change what the command did."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchscore.cli import app as cli_app
from batchscore.system.streams import Stream
from tests import factory
from tests.endings import CLOSED, end_of

pytestmark = pytest.mark.slow

FULL = "/dev/full"
PROGRAM = f"{shlex.quote(sys.executable)} -m batchscore"
TALKATIVE = """import os
import sys


def talk(batch):
    print("x" * 100_000)
    sys.stdout.buffer.write(b"x" * 100_000)
    if "RAW" in os.environ:
        os.write(1, b"printed")
        os.write(2, b"printed")
    return batch
"""


def shell(command: str) -> tuple[int, str]:
    """The exit code of a pipeline, whose last part never fails, and what its errors say."""
    args = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose function prints much, published once."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "talk.py").write_text(TALKATIVE)
    changes = {"preprocess": {"function": "talk.py:talk"}, "runtime.batch_rows": 100}
    path = factory.write_job(folder, changes)
    assert factory.run_cli("run", path).exit_code == 0
    return path


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ("", "<&- >&- 2>&-"),
        pytest.param("--json --set runtime.workers=2", "2>&1 | true", marks=pytest.mark.slow),
    ],
    ids=["closed streams", "closed pipe"],
)
def test_a_run_is_published_though_nobody_reads(options: str, end: str, job: Path) -> None:
    """What the command or a function cannot print fails no row and no run, and gets into no file.

    A file that a process opens takes the number of a stream that was closed before it started.
    """
    output = job.parent / end.replace(" ", "") / options
    command = f"{PROGRAM} run {job} --set output.path={shlex.quote(str(output))} {options} {end}"
    code, _ = shell(f"RAW=1 {command}" if "<" in end else command)
    assert code == 0
    assert len(factory.published(output)) == 500
    assert not [p for p in output.rglob("*") if p.is_file() and b"printed" in p.read_bytes()]


@pytest.mark.parametrize(
    ("option", "stdout"), [("--json", CLOSED), ("--debug", FULL), ("--json", FULL)]
)
def test_a_result_that_cannot_be_printed_changes_no_exit_code(
    option: str, stdout: str, job: Path, tmp_path: Path
) -> None:
    """A run that did its work ends with 0; a full disk is reported, a reader who left is not."""
    code, said = end_of("run", job, option, log=tmp_path, stdout=stdout)
    assert code == 0, said
    message = "WARNING  the result could not be printed (No space left on device); make room"
    assert message in said if stdout == FULL else said == ""


def test_a_reader_of_a_shell_who_leaves_is_no_error() -> None:
    """The process itself ends with 0 and in silence, too, after all of its own is done."""
    assert shell(f"{PROGRAM} --help | true") == (0, "")


@pytest.mark.parametrize("command", ["show", "files"])
def test_a_reader_who_leaves_is_no_error(command: str, job: Path, tmp_path: Path) -> None:
    """Commands that only read end with 0, too, if their output is not read to its end."""
    assert end_of(command, job, log=tmp_path, stdout=CLOSED) == (0, "")


@pytest.mark.parametrize("command", ["files", "schema", "--help"])
def test_a_list_that_is_cut_is_an_error(command: str, job: Path, tmp_path: Path) -> None:
    """What is there to be read, and cannot be written, does not end like a complete list."""
    where = [job] if command == "files" else []
    code, said = end_of(command, *where, log=tmp_path, stdout=FULL)
    assert code == 1
    assert said.startswith("FAILED  the result could not be printed (No space left on device)")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ([], {"stderr": FULL}),
        (["--json"], {"stdout": FULL}),
        (["--json"], {"stdout": CLOSED}),
        ([], {"stdout": CLOSED, "stderr": CLOSED}),
    ],
)
def test_an_error_keeps_its_exit_code(
    options: list[str], places: dict[str, str], tmp_path: Path
) -> None:
    """A wrong command or job ends with 2, whether its message can be written or not."""
    for command in (["show", str(tmp_path)], ["nonsense"]):
        code, said = end_of(*command, *options, log=tmp_path, **places)
        assert code == 2, said
        assert "Traceback" not in said


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_character_without_encoding_changes_no_exit_code(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed by its number, which JSON reads back: a run that did its work ends with 0."""
    output = tmp_path / "out-日é"
    with open(tmp_path / "printed", "wb") as file:
        stream = Stream(io.TextIOWrapper(file, encoding), quiet=False)
        monkeypatch.setattr("sys.stdout", stream)
        cli_app.print_lines([str(output)])
        cli_app.print_json({"output": str(output)})
        stream.flush()
    text, _, document = (tmp_path / "printed").read_text(encoding).partition("\n")
    shown = {"latin-1": "out-\\u65e5é", "utf-8": "out-日é"}
    assert text.endswith(shown[encoding])
    assert json.loads(document) == {"output": str(output)}


def test_a_slow_reader_loses_nothing() -> None:
    """A descriptor that somebody made non-blocking is waited for, as any other."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "wb") as file:
        stream = Stream(io.TextIOWrapper(file, "utf-8"), quiet=False)
        thread = threading.Thread(
            target=print, args=("x" * 1_000_000,), kwargs={"file": stream, "flush": True}
        )
        thread.start()
        with open(reader, "rb") as end:
            read = end.read(1_000_000)
        thread.join()
    assert read == b"x" * 1_000_000
