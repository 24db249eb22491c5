"""The group of all commands, and what they share: options, finding the output, printing, errors."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import logging
import os
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchscore import __version__
from batchscore.errors import BatchscoreError, FailedError, InvalidError, JobFileError
from batchscore.messages.addresses import (
    RedactingFormatter,
    holds_secret,
    redacted_address,
    redacted_text,
)
from batchscore.phases import Stopwatch
from batchscore.system import json_lines
from batchscore.system.processes import has_working_folder, started_at
from batchscore.system.streams import is_unicode, keep_writing

if TYPE_CHECKING:
    from batchscore.runs.manifest_model import Manifest
    from batchscore.storage.store import Store

F = TypeVar("F", bound=Callable[..., Any])
_SLOWEST_START_S = 10.0
_LONG = 10_000
_PUBLISHING = ("run", "backfill", "cancel", "release", "discard", "rollback")
_MAKING = ("init", "model", "profile", "compare", "report", "tune")
_NO_FOLDER = (
    "the working directory of this process was deleted; change to one that exists, and run again"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchscore")
def cli() -> None:
    """Score Parquet tables with a model; publish only if every row is accounted for.

    Exit codes: 0 published, or nothing to do; 1 failed; 2 invalid before any work; 3 held, a
    person decides; 4 try again later; 130 and 143 interrupted.
    """


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    # Read when NumPy is first imported, here and in workers: profiles are made next to other
    # threads, where a product on all cores takes many times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    clock = Stopwatch(command_start(started_at(), time.time()))
    keep_writing()
    with json_lines.WrappedStderr(log_format(sys.argv[1:])):
        code = _run(clock)
    with suppress(OSError):
        sys.stdout.flush()
    atexit.register(_leave_garbage)
    sys.exit(code)


def log_format(words: Sequence[str]) -> str | None:
    """Returns the value of `--log-format` on a command line; None without.

    It is needed before the command line is parsed, since its errors are messages too.
    """
    option, before = "--log-format", words[: words.index("--")] if "--" in words else words
    for place, word in enumerate(before):
        if word == option:
            return next(iter(before[place + 1 :]), None)
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _run(clock: Stopwatch) -> int:
    """Runs the command line; returns its exit code."""
    code: int
    try:
        code = cli.main(standalone_mode=False, obj=clock)
    except click.ClickException as error:
        code = error.exit_code
        if "--json" in sys.argv:
            print_json(_failure("invalid", code, error.format_message()), kept=True)
        else:
            error.show()
    except click.Abort:
        code = 130
        message = interrupted(sys.argv[1:])
        if "--json" in sys.argv:
            print_json(_failure("interrupted", code, message), kept=True)
        click.echo(f"INTERRUPTED  {message}", err=True)
    except OSError as error:  # of help or version, which click prints
        code = 1
        click.echo(f"FAILED  {_unprinted(error)}", err=True)
    return code


def interrupted(words: Sequence[str]) -> str:
    """Returns what an interrupt left behind, by the words of the command line."""
    command = next((word for word in words if word in cli.commands), "")
    if command in _PUBLISHING:
        return "stopped; the next command that writes finishes what was started"
    if command in _MAKING:
        return "stopped; what was to be written is there as a whole, or not at all"
    return "stopped; nothing was changed"


def command_start(process: float | None, now: float) -> float:
    """Returns when the command started: with its process, if that is not too long ago.

    A shell that waits, and then becomes the command, started long before it.

    Args:
        process: When the process was started, in Unix seconds; None if that is unknown.
        now: When the command line was entered.
    """
    if process is None or not 0 <= now - process <= _SLOWEST_START_S:
        return now
    return process


def stopwatch() -> Stopwatch:
    """Returns what measures the command since its process started; since now if called in one."""
    return click.get_current_context().find_object(Stopwatch) or Stopwatch()


def _leave_garbage() -> None:
    """Spares the process's end the search of all that was imported, which takes a second."""
    # Its bindings complain of what was not found.
    if "triton" not in sys.modules:
        gc.freeze()


def common_options(function: F) -> F:
    """Adds the options that all commands take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("--debug", is_flag=True, help="Show tracebacks and Beam's own log."),
    ):
        function = option(function)
    return function


def job_options(function: F) -> F:
    """Adds the options that go with a job file."""
    for option in (
        click.option(
            "--param",
            "params",
            multiple=True,
            metavar="NAME=VALUE",
            help="Value of a parameter that the job file declares.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the job file, such as output.path=/tmp/out.",
        ),
    ):
        function = option(function)
    return function


Noted = Callable[[dict[str, Any]], None]
"""Takes the document of a failure after it was printed."""


def _nothing(_: dict[str, Any]) -> None:
    """Takes a failure's document, and does nothing."""


@contextmanager
def reporting(as_json: bool, debug: bool, noted: Noted = _nothing) -> Iterator[None]:
    """Ends in one message and the error's exit code, whatever goes wrong inside."""
    _set_up_logging(debug)
    try:
        _require_guard()
        yield
    except (click.ClickException, click.exceptions.Exit):
        raise
    except Exception as error:
        failure = _described(error, debug)
        _print_failure(error, failure, as_json, debug)
        noted(failure)
        raise click.exceptions.Exit(failure["exit_code"]) from error


def _require_guard() -> None:
    """Raises InvalidError in a process that was started to work, and imports what started it."""
    processes = sys.modules.get("multiprocessing.process")
    if processes and getattr(processes.current_process(), "_inheriting", False):
        raise InvalidError(
            "this script runs the command again in each worker process, which imports it: call "
            'the command under if __name__ == "__main__":, or call bs.run, which needs no such line'
        )


def require_folder() -> None:
    """Raises InvalidError if the working directory was deleted; frameworks do not load without."""
    if not has_working_folder():
        raise InvalidError(_NO_FOLDER)


def _described(error: Exception, debug: bool) -> dict[str, Any]:
    """Returns the document of a failure: status, exit code and message."""
    if isinstance(error, BatchscoreError):
        return _failure(error.status, error.exit_code, str(error))
    if isinstance(error, OSError):
        if not has_working_folder():
            return _described(InvalidError(_NO_FOLDER), debug)
        from batchscore.runs.failures import describe

        return _failure("failed", 1, describe(error)["message"])
    message = redacted_text(f"unexpected {type(error).__name__}: {error}")
    if not debug:
        message += "\nThis is a defect of batchscore; --debug shows where."
    return _failure("failed", 1, message)


def _print_failure(error: Exception, failure: dict[str, Any], as_json: bool, debug: bool) -> None:
    if debug:
        trace = traceback.format_exception(type(error), error, error.__traceback__)
        click.echo(redacted_text("".join(trace)), err=True, nl=False)
    if as_json:
        print_json(failure, kept=True)
    else:
        click.echo(printable(f"{failure['status'].upper()}  {failure['error']}"), err=True)


def _failure(status: str, code: int, message: str) -> dict[str, Any]:
    return {"status": status, "exit_code": code, "error": message}


def _set_up_logging(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    is_json = json_lines.is_wanted()
    handler.setFormatter(json_lines.JsonFormatter() if is_json else RedactingFormatter(text))
    if is_json and not debug:
        handler.addFilter(json_lines.is_news)
    level = logging.INFO if debug or is_json else logging.ERROR
    logging.basicConfig(handlers=[handler], level=level)
    if is_json:
        logging.captureWarnings(True)
    logging.getLogger("batchscore").setLevel(logging.INFO if debug else logging.WARNING)
    if not debug:
        # What Beam warns of here is its own business; what goes wrong comes as an error.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        handler.addFilter(_is_not_relayed)


def _is_not_relayed(record: logging.LogRecord) -> bool:
    """Tells whether a line is of this machine; Beam logs a job server's traces as root's own."""
    return record.module != "portable_runner"


def print_json(value: Any, kept: bool = False) -> None:
    """Prints a result as one JSON document.

    Args:
        value: The result.
        kept: Whether the command did more than to print, so that a full disk changes no exit code.

    Raises:
        FailedError: It cannot be written. A reader who closed the pipe is no error.
    """
    _print(json_text(value), kept)


def json_text(value: Any) -> str:
    """Returns a result as the text of one JSON document, fully indented unless it is long."""
    write = partial(json.dumps, ensure_ascii=not is_unicode(sys.stdout))
    text = write(value)
    # Python indents without its encoder in C, ten times as slowly.
    if len(text) < _LONG:
        text = write(value, indent=1)
    elif isinstance(value, dict):
        lines = ",\n ".join(f"{write(str(key))}: {write(each)}" for key, each in value.items())
        text = f"{{\n {lines}\n}}"
    # What no encoding has, half of a character, JSON can say by its number.
    return text.encode(errors="backslashreplace").decode()


def print_lines(lines: list[str], kept: bool = False) -> None:
    """Prints a result as lines of text, as `print_json` does."""
    _print(printable("\n".join(lines)), kept)


def _print(text: str, kept: bool) -> None:
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:
            return
        if not kept:
            raise FailedError(_unprinted(error)) from error
        click.echo(f"WARNING  {_unprinted(error)}; the exit code is the command's own", err=True)


def _unprinted(error: OSError) -> str:
    return (
        f"the result could not be printed ({error.strerror or error}); make room, or write it "
        "elsewhere"
    )


def printable(text: str) -> str:
    """Returns a text without what commands a terminal or has no encoding; line breaks stay."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def outcome(manifest: Manifest) -> dict[str, Any]:
    """Returns the exit code of a run, and why it is not 0."""
    code = manifest.exit_code
    return {"exit_code": code, "error": manifest.why} if code else {"exit_code": code}


def program(anywhere: bool = False) -> str:
    """Returns how this program can be started again: by its name if the shell finds it.

    Args:
        anywhere: Whether from any folder, not from this one alone.
    """
    started = sys.argv[0]
    hidden = os.path.basename(started) == "batchscore" and shutil.which("batchscore") is None
    path = os.path.abspath if anywhere else os.path.relpath
    return shlex.quote(path(started)) if hidden else "batchscore"


def typed(where: str, params: tuple[str, ...], overrides: tuple[str, ...], output: str) -> str:
    """Returns how to name a job or its output in another command.

    Args:
        where: The job file or the output, as the user named it.
        params: Parameters as the user gave them.
        overrides: The same; with any the output is named, since they may have moved it.
        output: The output's address.
    """
    if overrides:
        return shlex.quote(output)
    words = [redacted_address(where), *(word for p in params for word in ("--param", p))]
    return shlex.join(words)


def open_output(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...]
) -> tuple[Store, str | None]:
    """Returns the output that a job file or an address names, and the slice if it is a job's.

    Warns of publications that were started and not finished.

    Raises:
        JobFileError: The job file is wrong, the address holds credentials, or parameters are given
            with an output.
        OutputError: The folder is not an output of batchscore.
    """
    from batchscore.runs.history import require_output
    from batchscore.storage.store import Store

    if is_job_file(where):
        store, slice_ = output_of_job(where, params, overrides)
    else:
        require_no_parameters(where, params, overrides)
        store, slice_ = Store(where if "://" in where else os.path.abspath(where)), None
    require_output(store)
    warn_of_pending(store, slice_)
    return store, slice_


def is_job_file(where: str) -> bool:
    """Tells whether an address is a job file's, not an output's."""
    return where.endswith((".yaml", ".yml", ".json"))


def output_of_job(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...]
) -> tuple[Store, str]:
    """Returns the output and the slice of a job file, whether or not there is a run yet.

    Raises:
        JobFileError: The job file is wrong, or its address holds credentials.
    """
    from batchscore.job import load_job
    from batchscore.runs.layout import slice_id
    from batchscore.storage.store import Store

    _require_no_secret(where)
    loaded = load_job(where, params, overrides)
    return Store(loaded.job.output.path), slice_id(loaded.job.name, loaded.params)


def require_no_parameters(where: str, params: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Raises JobFileError if an output is named with parameters, or with credentials."""
    _require_no_secret(where)
    if params or overrides:
        raise JobFileError(f"{where}: is an output; --param and --set need a job file")


def _require_no_secret(where: str) -> None:
    if holds_secret(where):
        raise JobFileError(
            f"{redacted_address(where)}: may hold a credential; give it in the environment, or in "
            "fsspec's own configuration files"
        )


def warn_of_pending(store: Store, slice_: str | None) -> None:
    """Warns, for commands that only read, of publications that are not finished."""
    from batchscore.cli.render.results import interrupted
    from batchscore.runs.history import pending_runs

    for found in pending_runs(store, slice_):
        words = interrupted(found) if isinstance(found, str) else str(found)
        click.echo(printable(f"WARNING  {words}"), err=True)
