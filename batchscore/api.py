"""Jobs from Python: `check`, `run` and `backfill` do what their commands do, in a child process.

The host's environment, signal handlers and garbage collector stay as they are, and torch and Beam
are imported in the child alone, so that both work in a notebook and in a web server's worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from numbers import Integral, Real
from typing import IO, Any, Literal

from batchscore.arguments import checks_arguments
from batchscore.errors import (
    ArgumentError,
    BatchscoreError,
    FailedError,
    HeldError,
    InvalidError,
    RetryError,
    StoppedError,
)
from batchscore.messages.wording import type_of

Values = Mapping[str, Any]
_RAISED: dict[int, type[BatchscoreError]] = {
    cls.exit_code: cls for cls in (FailedError, InvalidError, HeldError, RetryError)
}
_STOPPED = (130, 143)
_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from batchscore.api import child; child()"
_PATIENCE_SECONDS = 30.0
_LAST_SECONDS = 2.0


@dataclass(frozen=True)
class RowCounts:
    """Where every row of the input went; `input` is the sum of the next three.

    Args:
        input: Rows of the shards.
        scored: Rows in the published files.
        filtered: Rows that the job's own filter left out.
        rejected: Rows that could not be scored, in files of their own, each with a reason.
        quarantined: Rows of shards that could not be read, where the job lets them be left out.
        reused: Of these, rows that were scored before.
    """

    input: int
    scored: int
    filtered: int
    rejected: int
    quarantined: int
    reused: int


@dataclass(frozen=True)
class CheckOutcome:
    """What became of one check of a run: its name, whether it passed, and what it found."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Args:
        status: `published`; `empty`, if no row was scored and the job allows it; `unchanged`, if
            there was nothing to do; `held`, if a check did not pass and a person decides.
        run: The run's name, which `batchscore show`, `release` and `rollback` take.
        slice: Which part of the output it is of.
        output: The address of the output.
        rows: Where every row went.
        files: Addresses of the slice's published files; empty for a held run.
        checks: What was checked.
        drift: The verdict of all comparisons: `ok`, `warn` or `fail`; None where none was made.
        reason: Why the run was held; None if it was not.
        seconds: Seconds from the command's start to its end.
        manifest: The whole document, as `batchscore run --json` prints it.
    """

    status: Literal["published", "empty", "unchanged", "held"]
    run: str
    slice: str
    output: str
    rows: RowCounts
    files: tuple[str, ...]
    checks: tuple[CheckOutcome, ...]
    drift: str | None
    reason: str | None
    seconds: float
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def held(self) -> bool:
        """Whether a check did not pass: nothing was published, and a person decides."""
        return self.status == "held"


@dataclass(frozen=True)
class CheckResult:
    """What a check found; nothing was written.

    Args:
        status: `ok`, or `held` where a run would be held.
        slice: Which part of the output a run would publish.
        output: The address of the output.
        rows: Rows of the shards that the job reads.
        unit_rows: Rows that a run would score; fewer than `rows` where some were scored before.
        checks: Those of a run that the plan and one batch can judge.
        warnings: What a run would do and may not be meant.
        estimated_seconds: What a run is expected to take; None if it would score nothing.
        document: The whole document, as `batchscore check --json` prints it.
    """

    status: Literal["ok", "held"]
    slice: str
    output: str
    rows: int
    unit_rows: int
    checks: tuple[CheckOutcome, ...]
    warnings: tuple[str, ...]
    estimated_seconds: float | None
    document: Mapping[str, Any] = field(repr=False)


@checks_arguments
def check(
    job: str | os.PathLike[str],
    params: Values | None = None,
    *,
    overrides: Values | None = None,
) -> CheckResult:
    """Validates all of a job that can fail, and scores one batch; writes nothing.

    Args:
        job: Path or address of the job file.
        params: A value for each parameter that the job file declares.
        overrides: Other values for keys of the job file, by dotted key: `{"output.path": "/tmp"}`.

    Raises:
        InvalidError: What a run would refuse before any work, or an argument's type.
        FailedError: A run would fail: a stage fails on the batch, or a check fails the run.
        RetryError: The input is not ready yet.

    Examples:
        >>> import batchscore as bs
        >>> found = bs.check("jobs/flight_delays/job.yaml", overrides={"output.path": "out/doc"})
        >>> found.status, found.rows
        ('ok', 336776)
    """
    return _checked(_command("check", job, params, overrides, ()))


@checks_arguments
def run(
    job: str | os.PathLike[str],
    params: Values | None = None,
    *,
    overrides: Values | None = None,
    rescore: bool = False,
    wait: str | None = None,
) -> RunResult:
    """Scores a job's input and publishes the result, or returns why a person has to decide.

    Progress and warnings are written to `sys.stderr`. Ctrl-C stops the run as it stops the
    command: what is finished is kept, and the next run goes on from there.

    Args:
        job: Path or address of the job file.
        params: A value for each parameter that the job file declares.
        overrides: Other values for keys of the job file, by dotted key: `{"runtime.workers": 2}`.
        rescore: Scores all rows again, even if nothing changed.
        wait: For how long to try while the input is not ready or another run holds the slice: `2h`.

    Returns:
        The run that published, that had nothing to do, or that is held.

    Raises:
        InvalidError: Something is wrong that was found before any work, or an argument's type.
        FailedError: The run failed; nothing was published.
        RetryError: The input is not ready, or another run has the slice; try again later.
        StoppedError: Somebody else stopped the run.
    """
    more = [*(["--rescore"] if rescore else []), *([f"--wait={wait}"] if wait is not None else [])]
    return _ran(_command("run", job, params, overrides, more))


@dataclass(frozen=True)
class DateOutcome:
    """What became of one date of a backfill.

    Args:
        date: The date.
        status: `published` or `empty`; `unchanged` or `kept`, if it was published before; `held`;
            `retry`, if its input is not ready or another run has its slice; `left`, if the
            backfill was stopped before; else how it went wrong.
        run: The date's run; None if it has none.
        reason: Why it was not published; None if it was.
    """

    date: str
    status: str
    run: str | None
    reason: str | None


@dataclass(frozen=True)
class BackfillResult:
    """What a backfill came to.

    Args:
        status: `published`, if all dates are; else `failed`, `held` or `retry`, by the worst.
        dates: What became of each date, in their order.
        output: The address of the output; if its path has the date, of the folder of all outputs.
        seconds: Seconds that it took.
        document: The whole document, as `batchscore backfill --json` prints it.
    """

    status: Literal["published", "failed", "held", "retry"]
    dates: tuple[DateOutcome, ...]
    output: str
    seconds: float
    document: Mapping[str, Any] = field(repr=False)


@checks_arguments
def backfill(
    job: str | os.PathLike[str],
    first: str | date,
    last: str | date,
    params: Values | None = None,
    *,
    over: str | None = None,
    overrides: Values | None = None,
    side_by_side: int | None = None,
    rescore: bool = False,
) -> BackfillResult:
    """Scores many dates of a job side by side, and judges and publishes them in their order.

    Dates that are held or fail raise nothing: the result names them.

    Args:
        job: Path or address of the job file.
        first: The first date.
        last: The last date.
        params: A value for each other parameter that the job file declares.
        over: The parameter that has the date, if the job has several of type date.
        overrides: Other values for keys of the job file, by dotted key.
        side_by_side: Dates that are scored at the same time; by default as many as cores, at most
            four.
        rescore: Also scores published dates again.

    Raises:
        InvalidError: Each date would be refused, or an argument is wrong.
        StoppedError: Somebody else stopped the backfill.
    """
    more = [f"--from={first}", f"--to={last}", *(["--rescore", "--yes"] if rescore else [])]
    more += [] if over is None else [f"--over={over}"]
    more += [] if side_by_side is None else [f"--side-by-side={side_by_side}"]
    code, text = _run_child(_arguments("backfill", job, params, overrides, more))
    found = _parsed(code, text)
    if code in (*_STOPPED, InvalidError.exit_code) or "dates" not in found:
        message = found.get("error") or "stopped; the same command goes on with what is left"
        raise (StoppedError if code in _STOPPED else _RAISED.get(code, FailedError))(message)
    keys = ("date", "status", "run", "reason")
    dates = tuple(DateOutcome(*(each[key] for key in keys)) for each in found["dates"])
    return BackfillResult(found["status"], dates, found["output"], found["seconds"], found)


def _command(
    name: str,
    job: str | os.PathLike[str],
    params: Values | None,
    overrides: Values | None,
    more: Sequence[str],
) -> dict[str, Any]:
    """Returns the document that a command prints; raises the error that it ends with."""
    return _document(*_run_child(_arguments(name, job, params, overrides, more)))


def _arguments(
    name: str,
    job: str | os.PathLike[str],
    params: Values | None,
    overrides: Values | None,
    more: Sequence[str],
) -> list[str]:
    arguments = [name, "--json", *more]
    arguments += [f"--param={each}" for each in parameter_texts(params)]
    arguments += [f"--set={each}" for each in override_texts(overrides)]
    return [*arguments, "--", os.fspath(job)]


def parameter_texts(params: Values | None) -> list[str]:
    """Returns parameters as the command line takes them; ArgumentError for another type."""
    return [f"{key}={_plain(key, value)}" for key, value in (params or {}).items()]


def override_texts(overrides: Values | None) -> list[str]:
    """Returns overrides as the command line takes them; ArgumentError for another type."""
    return [f"{key}={_yaml(key, value)}" for key, value in (overrides or {}).items()]


def _plain(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Real | date):
        return value.isoformat() if isinstance(value, date) else str(value)
    raise ArgumentError(
        f"parameter {key}: expected a text, number, boolean or date, found {type_of(value)}; "
        "convert it"
    )


def _yaml(key: str, value: Any) -> str:
    """Returns a value as JSON, which is YAML; a date as YAML has it."""
    if isinstance(value, date):
        return value.isoformat()
    try:
        return json.dumps(value, default=_builtin)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"override {key}: {error}; give texts, numbers, lists or dicts"
        ) from error


def _builtin(value: Any) -> str | int | float:
    """Returns a path as a text, and a number of another library as Python's."""
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(f"found {type_of(value)}")


def _document(code: int, text: str) -> dict[str, Any]:
    """Returns a command's document; raises what its exit code says if that is an error's."""
    document = _parsed(code, text)
    if code in _STOPPED:
        raise StoppedError(document["error"])
    if code not in (0, HeldError.exit_code) or "slice" not in document:
        raise _RAISED.get(code, FailedError)(document.get("error") or _failing(document))
    return document


def _parsed(code: int, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        raise _vanished(code) from None


def _vanished(code: int) -> FailedError:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return FailedError(
        f"the process that scored ended with {how}, without a result. Finished units are kept. "
        "Run again; if memory ran out, first lower runtime.workers or runtime.batch_rows"
    )


def _failing(document: Values) -> str:
    return "; ".join(f"{c['name']}: {c['detail']}" for c in document["checks"] if not c["passed"])


def _ran(document: dict[str, Any]) -> RunResult:
    from batchscore.runs.manifest_model import decode_manifest

    output, manifest = str(document["output"]), decode_manifest(document, document["run"])
    paths = () if manifest.status == "held" else manifest.paths
    return RunResult(
        document["status"],
        manifest.run,
        manifest.slice,
        output,
        RowCounts(**asdict(manifest.rows)),
        tuple(f"{output}/{path}" for path in paths),
        _outcomes(document),
        (manifest.drift or {}).get("verdict"),
        manifest.error,
        manifest.seconds,
        document,
    )


def _checked(document: dict[str, Any]) -> CheckResult:
    return CheckResult(
        document["status"],
        document["slice"],
        document["output"],
        document["rows"],
        document["unit_rows"],
        _outcomes(document),
        tuple(document["warnings"]),
        document["estimated_seconds"],
        document,
    )


def _outcomes(document: Values) -> tuple[CheckOutcome, ...]:
    found = document.get("checks") or ()
    return tuple(CheckOutcome(c["name"], c["passed"], c["detail"]) for c in found)


def _run_child(arguments: Sequence[str]) -> tuple[int, str]:
    """Runs the command line in a child process; returns its exit code and standard output.

    The child leads a session of its own, so that Ctrl-C in a terminal reaches it once, from here.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    printed: list[bytes] = []
    with child.stdin, _copied(child.stdout, printed.append), _copied(child.stderr, _show):
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps([*arguments]).encode() + b"\n")
            child.stdin.flush()
        with _interrupting(child):
            code = child.wait()
    return code, b"".join(printed).decode(errors="replace")


def _show(line: bytes) -> None:
    """Writes a line to the `sys.stderr` of this moment, which may be a notebook's cell."""
    with suppress(OSError, ValueError):
        sys.stderr.write(line.decode(errors="replace"))


@contextmanager
def _copied(stream: IO[bytes], use: Callable[[bytes], object]) -> Iterator[None]:
    """Uses each line of a child's stream, for as long as the child lives and a moment longer.

    A process that the child left behind may keep the stream open forever.
    """

    def copy() -> None:
        with stream:
            for line in stream:
                use(line)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    yield
    thread.join(_LAST_SECONDS)


@contextmanager
def _interrupting(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stops the child when this process is interrupted, and waits until it has put all away."""
    try:
        yield
    except BaseException:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_PATIENCE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        raise


def child() -> None:
    """Is the child process: the command line, whose arguments are the first line of its input.

    The end of its input says that the host is gone; then it stops as by SIGTERM.
    """
    with os.fdopen(os.dup(0), "rb", buffering=0) as given:
        sys.argv = ["batchscore", *json.loads(given.readline())]
    threading.Thread(target=_end_with_host, daemon=True).start()
    from batchscore.cli import main

    main()


def _end_with_host() -> None:
    # Not through `sys.stdin`, whose lock a thread that waits would keep at the process's end.
    with suppress(OSError):
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
