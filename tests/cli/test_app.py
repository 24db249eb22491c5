"""The command line: its frozen surface, what its commands print, and how signals end it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click
import psutil
import pytest

from batchscore.cli import cli, main
from batchscore.cli.app import json_text
from tests import factory
from tests.conftest import ROOT, Published
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# Others rely on these names: a change here is a change for them, and needs a reason.
JOB = {"--param", "--set"}
EVERY = {"--json", "--debug", "-h", "--help"}
SURFACE = {
    "init": {
        *("PARQUET", "MODEL", "-o", "--output", "--name", "--inputs", "--allow-code"),
        "--max-rejects",
        *EVERY,
    },
    "model": {"-h", "--help"},
    "model inspect": {"MODEL", "--all", *EVERY},
    "model save": {
        *("FILE", "-o", "--output", "--sample", "--reference", "--rows", "--name", "--version"),
        *(
            "--inputs",
            "--outputs",
            "--call",
            "--missing",
            "--postprocess",
            "--tolerance",
            "--overwrite",
        ),
        *EVERY,
    },
    "check": {"JOB", *JOB, "--probe", "--engine", "[-- BEAM OPTIONS]", *EVERY},
    "run": {
        *(
            "JOB",
            *JOB,
            "--rescore",
            "--detach",
            "--on-interrupt",
            "--wait",
            "--metrics",
            "--log-format",
        ),
        "--engine",
        *("[-- BEAM OPTIONS]", *EVERY),
    },
    "backfill": {
        *("JOB", "--from", "--to", "--over", "--side-by-side", "--rescore"),
        *("--yes", *JOB, *EVERY),
    },
    "runs": {"WHERE", "--trend", *JOB, *EVERY},
    "show": {"WHERE", "[RUN]", "--logs", "--trend", *JOB, *EVERY},
    "files": {"WHERE", *JOB, *EVERY},
    "verify": {"WHERE", *JOB, *EVERY},
    "trace": {"WHERE", "COLUMN=VALUE [COLUMN=VALUE ...]", *JOB, *EVERY},
    "status": {"WHERE", "--max-age", "--html", *JOB, *EVERY},
    "wait": {"WHERE", "[RUN]", "--timeout", *JOB, *EVERY},
    "cancel": {"WHERE", "RUN", *JOB, *EVERY},
    "release": {"WHERE", "RUN", "--reason", *JOB, *EVERY},
    "discard": {"WHERE", "RUN", "--reason", *JOB, *EVERY},
    "rollback": {"WHERE", "--undo", "--reason", *JOB, *EVERY},
    "profile": {"DATA...", "-o", "--output", "--columns", "--probability", "--classes", *EVERY},
    "compare": {
        *("REFERENCE", "CURRENT", "--alpha", "--columns", "--threshold", "--all"),
        *("-o", "--output", *EVERY),
    },
    "report": {"WHERE", "[RUN]", "-o", "--output", *JOB, *EVERY},
    "tune": {"WHERE", "--pages", "--threshold", "-o", "--output", *JOB, *EVERY},
    "schema": {*EVERY, "--manifest"},
}

HEAVY = (
    "apache_beam",
    "torch",
    "pyarrow",
    "pandas",
    "numpy",
    "pydantic",
    "fsspec",
    "rich",
    "scipy",
)

SLEEPY = """import os
import time


def sleep(batch):
    time.sleep(float(os.environ.get("SECONDS_A_BATCH", "0")))
    return batch
"""
SECONDS_A_BATCH = "0.3"

# Makes its stdin the terminal of this process, then becomes the command.
IN_TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "batchscore", *sys.argv[1:]])
"""


def every_command() -> dict[str, click.Command]:
    """All commands by what is typed, those of groups among them."""
    found = dict(cli.commands)
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {each}": inner for each, inner in command.commands.items()}
    return found


def names_of(command: click.Command) -> set[str]:
    """The arguments and options of a command as its help shows them."""
    context = click.Context(command, help_option_names=["-h", "--help"])
    found = set()
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Argument):
            found.add(parameter.make_metavar(context))
        else:
            found.update([*parameter.opts, *parameter.secondary_opts])
    return found


def write_sleepy_job(folder: Path, **runtime: int) -> Path:
    """A job of 100 batches, slow where the environment says so."""
    (folder / "sleepy.py").write_text(SLEEPY)
    changes = {
        "preprocess": {"function": "sleepy.py:sleep"},
        "runtime": {"batch_rows": 5, **runtime},
    }
    return factory.write_job(folder, changes)


def read_terminal(terminal: int, until: Callable[[str], bool], seconds: float = 90) -> str:
    """Read what a terminal shows until it is enough, or its other end is closed."""
    text, end = "", time.monotonic() + seconds
    while not until(text):
        assert time.monotonic() < end, text
        try:
            text += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            return text
    return text


def test_every_command_and_option_is_known() -> None:
    """No command, argument or option comes or goes without this list being changed."""
    assert {name: names_of(command) for name, command in every_command().items()} == SURFACE
    assert names_of(cli) == {"--version", "-h", "--help"}


@pytest.mark.parametrize("name", ["", *SURFACE])
def test_every_command_has_help(name: str) -> None:
    """Help names each argument and option of a command, and exits 0."""
    done = factory.run_cli(*name.split(), "--help")
    command = every_command()[name] if name else cli
    assert done.exit_code == 0
    assert all(word in done.stdout for word in names_of(command))
    assert all(word in done.stdout for word in (cli.commands if not name else ()))


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    """Help and the version come before Beam, torch, Arrow and the like are imported."""
    program = (
        "import sys\nfrom batchscore.cli import main\n"
        f"sys.argv = ['batchscore', *{args!r}]\n"
        "try:\n    main()\nfinally:\n"
        f"    print('HEAVY', sorted({set(HEAVY)!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert len(done.stdout.splitlines()) > 1


@pytest.mark.parametrize("group", [(), ("model",)], ids=["batchscore", "model"])
def test_a_list_of_commands_cuts_no_description(group: tuple[str, ...]) -> None:
    """Each command's line says all of its first sentence, on a terminal of 80 columns."""
    printed = factory.run_cli(*group, "--help").stdout
    lines = printed.partition("Commands:\n")[2].splitlines()
    assert len(lines) >= 2
    assert [line for line in lines if "..." in line] == []


def test_a_script_that_its_workers_run_again_is_shown_the_guard(tmp_path: Path) -> None:
    """A worker imports the script that started it; the message names the line that it lacks."""
    factory.write_job(tmp_path, {"runtime.workers": 2})
    call = "cli(['run', 'job.yaml', f'--set=output.path=out{os.getpid()}'])"
    (tmp_path / "script.py").write_text(f"import os\nfrom batchscore.cli import cli\n{call}\n")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert 'call the command under if __name__ == "__main__":, or call bs.run' in done.stderr
    assert "defect" not in done.stderr


def test_runs_lists_the_newest_first(tmp_path: Path) -> None:
    """`runs` has a line a run, of a job or of a whole output, the newest first, and marks it."""
    job = factory.write_job(tmp_path)
    made = [factory.run_json("run", job, "--rescore")["run"] for _ in range(2)]
    for where in (job, tmp_path / "out"):
        lines = factory.run_cli("runs", where).stdout.splitlines()
        assert lines[0].split()[:3] == ["run", "status", "slice"]
        assert [line.split()[:5] for line in lines[1:]] == [
            [made[1], "published", "*", "(rescored:", "--rescore)"],
            [made[0], "published", "small", "1.0", lines[2].split()[4]],
        ]
        found = json.loads(factory.run_cli("runs", where, "--json").stdout)
        assert [manifest["run"] for manifest in found] == made[::-1]


def test_show_tells_of_one_run(flights: Published) -> None:
    """`show` prints rows, times, checks, versions, and a line a column of the profile."""
    run = flights.manifest["run"]
    text = factory.run_cli("show", flights.output).stdout
    assert factory.run_cli("show", flights.output, run).stdout == text
    for words in (
        f"PUBLISHED run {run}   flight_delays   model flight_delays 1.0.0",
        "read 336,776 = scored 309,772 + rejected 0 + filtered 27,004",
        "24 shards",
        "ok     rows: input 336,776 = 309,772 + 0 + 27,004",
        "ok     rejects: 0 of 309,772 rows were rejected",
        "torch ",
    ):
        assert words in text
    columns = {line.split()[0] for line in text.splitlines() if line}
    assert {"distance", "carrier", "time_hour", "score"} <= columns
    shown = factory.run_json("show", flights.output)
    assert (shown["run"], shown["rows"]) == (run, flights.manifest["rows"])


def test_files_prints_what_to_read(flights: Published) -> None:
    """`files` prints the published files' full addresses, one a line and nothing else."""
    lines = factory.run_cli("files", flights.output).stdout.splitlines()
    assert lines == [str(path) for path in flights.current]
    assert all(Path(line).is_file() for line in lines)
    found = json.loads(factory.run_cli("files", flights.output, "--json").stdout)
    assert found == lines


def test_files_of_a_job_are_its_slice(tmp_path: Path) -> None:
    """For a job file `files` prints its own slice; for the output those of all slices."""
    first = factory.write_job(tmp_path)
    assert factory.run_cli("run", first).exit_code == 0
    second = tmp_path / "second.yaml"
    second.write_text(first.read_text().replace("name: small", "name: second"))
    assert factory.run_cli("run", second).exit_code == 0
    files = {job: set(factory.run_cli("files", job).stdout.split()) for job in (first, second)}
    assert not files[first] & files[second]
    everything = set(factory.run_cli("files", tmp_path / "out").stdout.split())
    assert everything == files[first] | files[second]
    assert len(everything) == 2


@pytest.mark.parametrize("command", [("check",), ("run",), ("show",), ("run", "--json")])
def test_a_deleted_working_directory_is_reported(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frameworks end the process where there is none, and relative paths start nowhere."""
    job = factory.write_job(tmp_path) if command[0] != "show" else "out"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = factory.run_cli(*command, job)
    assert done.exit_code == 2
    assert "working directory of this process was deleted; change to one" in done.output


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_schema_prints_the_job_files_schema(options: tuple[str, ...]) -> None:
    """`schema` prints one JSON Schema that requires just the four keys a job needs."""
    schema = json.loads(factory.run_cli("schema", *options).stdout)
    assert set(schema["required"]) == {"name", "input", "model", "output"}
    assert schema["properties"]["batchscore"]


def test_a_run_prints_a_summary(tmp_path: Path) -> None:
    """A run ends with what it did, where the rows went, and where to look, on stdout alone."""
    job = factory.write_job(tmp_path)
    done = factory.run_cli("run", job)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"PUBLISHED run \d{8}-[0-9a-f]{4}   small   model small 1\.0", lines[0])
    assert lines[1].startswith("read 500 = scored 500 + rejected 0 + filtered 0 ")
    assert any(line.startswith("files: 1 added, 0 replaced") for line in lines)
    run = lines[0].split()[2]
    assert lines[-1] == f"look   batchscore show {job} {run}"
    assert done.stderr == ""
    shown = factory.run_cli("show", job).stdout.splitlines()
    assert shown[-2] == f"report   batchscore report {job} {run} -o report.html"
    assert shown[-1] == f"undo     batchscore rollback {job} --undo {run}"


def test_the_package_can_be_run(tmp_path: Path) -> None:
    """`python -m batchscore` is the command, and leaves with its exit code."""
    args = [sys.executable, "-m", "batchscore", "show", str(tmp_path / "none"), "--json"]
    done = subprocess.run(args, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert json.loads(done.stdout)["status"] == "invalid"


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """A terminal shows a bar with rows and time left; Ctrl-C ends in one message and exit 130."""
    job = write_sleepy_job(tmp_path, workers=1)
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, "run", str(job)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "SECONDS_A_BATCH": SECONDS_A_BATCH, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    text = read_terminal(terminal, lambda text: bool(re.search(r"[1-9]\d*/500", text)))
    assert "rows" in text
    assert "ETA" in text
    os.write(terminal, b"\x03")
    text = read_terminal(terminal, lambda _: False)
    os.close(terminal)
    assert process.wait(30) == 130
    assert text.count("nothing was published") == 1
    assert "stopping at the next batch" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out/data").exists()
    assert factory.run_json("run", job)["status"] == "published"
    assert len(factory.published(tmp_path / "out")) == 500


def start_with_workers(
    job: Path, stderr: int | TextIO = subprocess.PIPE
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a slow run with workers; return it, once rows were scored, and all its processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchscore", "run", str(job)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "SECONDS_A_BATCH": SECONDS_A_BATCH},
    )
    work = job.parent / "out/_batchscore/work"
    wait_until(lambda: any(work.glob("*/progress/*.json")))
    return process, psutil.Process(process.pid).children(recursive=True)


def assert_ended_clean(job: Path, family: list[psutil.Process], message: str, words: str) -> None:
    """The run said why once, left no process and published nothing; the next one publishes."""
    output = job.parent / "out"
    assert message.count(words) == 1, message
    assert "Traceback" not in message
    assert psutil.wait_procs(family, 15)[1] == []
    assert not (output / "data").exists()
    assert not (output / "_batchscore/staging").exists()
    assert not (output / "_batchscore/work").exists()
    assert factory.run_json("run", job)["status"] == "published"
    assert len(factory.published(output)) == 500


def test_sigterm_with_workers(tmp_path: Path) -> None:
    """SIGTERM ends a run and all its worker processes with exit 143; the next run publishes."""
    job = write_sleepy_job(tmp_path, workers=2)
    process, family = start_with_workers(job)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (143, "")
    assert len(family) >= 2
    assert_ended_clean(job, family, stderr, "nothing was published")


def test_a_killed_worker_fails_the_run(tmp_path: Path) -> None:
    """A worker that is killed, as for want of memory, ends the run with exit 1 and a remedy."""
    job = write_sleepy_job(tmp_path, workers=2)
    process, family = start_with_workers(job)
    counted = next((tmp_path / "out").rglob("progress/*.json"))
    os.kill(int(counted.name.partition("-")[0]), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "lower runtime.workers or runtime.batch_rows" in stderr
    assert_ended_clean(job, family, stderr, "ended with exit code -9")


def test_a_second_ctrl_c_ends_workers_without_a_traceback(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to every process; the second ends all, with a line and no trace."""
    job = write_sleepy_job(tmp_path, workers=2)
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        process, family = start_with_workers(job, file)
    for member in (*family, psutil.Process(process.pid)):
        member.send_signal(signal.SIGINT)
    wait_until(lambda: "interrupt again to stop immediately" in said.read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    stderr = said.read_text()
    assert process.returncode == 130
    assert psutil.wait_procs(family, 15)[1] == []
    assert stderr.count("INTERRUPTED  stopped immediately") == 1
    assert "Traceback" not in stderr
    assert factory.run_json("run", job)["status"] == "published"


def test_a_shell_can_complete_commands() -> None:
    """The program prints what bash needs to complete its words."""
    program = Path(sys.executable).with_name("batchscore")
    environment = {**os.environ, "_BATCHSCORE_COMPLETE": "bash_source"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60)
    assert "complete -o nosort -F _batchscore_completion batchscore" in done.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["release", "out", "1"], "the next command that writes finishes what was started"),
        (["init", "rows", "model"], "what was to be written is there as a whole, or not at all"),
        (["model", "save", "run"], "what was to be written is there as a whole, or not at all"),
        (["check", "job.yaml"], "nothing was changed"),
        (["--nonsense"], "nothing was changed"),
    ],
)
def test_a_command_that_is_interrupted_says_what_it_left(
    words: list[str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C in a command without a stop of its own claims no more than is true of it."""

    def abort(**_: object) -> None:
        raise click.Abort

    monkeypatch.setattr(cli, "main", abort)
    monkeypatch.setattr("sys.argv", ["batchscore", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"INTERRUPTED  stopped; {what}\n"


@pytest.mark.parametrize("count", [0, 2, 30_000])
def test_long_results_are_json_too(count: int) -> None:
    """However long a result is, it is read back as it was, and its keys begin lines."""
    result = {
        "run": "r",
        "shards": [{"path": "Zürich", "rows": n} for n in range(count)],
        "n": None,
    }
    text = json_text(result)
    assert json.loads(text) == result
    assert [line.split(":")[0].strip(' "') for line in text.splitlines() if line[1:2] == '"'] == [
        *result
    ]


_LOGGED = """
import logging

from batchscore.cli.app import _set_up_logging

_set_up_logging(False)
logging.getLogger("batchscore.run").warning("of this run")
logging.getLogger("library").warning("of a library")
exec(compile("logging.error('Traceback of a worker')", "beam/portable_runner.py", "exec"))
logging.error("of this machine")
"""


def test_warnings_of_batchscore_are_shown_and_traces_of_an_engine_are_not() -> None:
    """What goes wrong on a cluster comes as the command's one message."""
    done = subprocess.run([sys.executable, "-c", _LOGGED], capture_output=True, text=True)
    shown = [line.partition(": ")[2] for line in done.stderr.splitlines()]
    assert shown == ["of this run", "of this machine"]
