"""The group of all commands, and what they share: options, the output meant, printing, errors."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchscore import __version__
from batchscore.addresses import (
    RedactingFormatter,
    holds_secret,
    redacted_address,
    redacted_text,
)
from batchscore.errors import BatchscoreError, JobFileError

if TYPE_CHECKING:
    from batchscore.storage import Store

F = TypeVar("F", bound=Callable[..., Any])
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchscore")
def cli() -> None:
    """Score Parquet tables with a torch model, with every row accounted for.

    Exit codes: 0 published, or nothing to do; 1 failed; 2 found wrong before any work; 3 held back
    by a check; 4 try again later; 130 and 143 interrupted.
    """


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    # Read when NumPy is first imported, here and in workers: profiles are made beside other
    # threads, where a product on all cores takes many times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        code = error.exit_code
        if "--json" in sys.argv:
            print_json(_failure("invalid", code, error.format_message()))
        else:
            error.show()
    except click.Abort:
        code = 130
        message = "stopped; what was begun is finished by the next command that writes"
        if "--json" in sys.argv:
            print_json(_failure("interrupted", code, message))
        click.echo(f"INTERRUPTED  {message}", err=True)
    sys.stdout.flush()
    atexit.register(_leave_garbage)
    sys.exit(code)


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
            help="A parameter that the job file declares.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Another value for a key of the job file, such as output.path=/tmp/out.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def told(as_json: bool, debug: bool) -> Iterator[None]:
    """Ends in one message and the error's exit code, whatever goes wrong inside."""
    _set_up_logging(debug)
    try:
        yield
    except BatchscoreError as error:
        _tell(error, str(error), error.status, error.exit_code, as_json, debug)
    except (click.ClickException, click.exceptions.Exit):
        raise
    except OSError as error:
        from batchscore.runs.failures import describe

        _tell(error, describe(error)["message"], "failed", 1, as_json, debug)
    except Exception as error:
        message = redacted_text(f"unexpected {type(error).__name__}: {error}")
        if not debug:
            message += "\nThis is a defect of batchscore; --debug shows where."
        _tell(error, message, "failed", 1, as_json, debug)


def _tell(
    error: Exception, message: str, status: str, code: int, as_json: bool, debug: bool
) -> None:
    if debug:
        trace = traceback.format_exception(type(error), error, error.__traceback__)
        click.echo(redacted_text("".join(trace)), err=True, nl=False)
    if as_json:
        print_json(_failure(status, code, message))
    else:
        click.echo(printable(f"{status.upper()}  {message}"), err=True)
    raise click.exceptions.Exit(code)


def _failure(status: str, code: int, message: str) -> dict[str, Any]:
    return {"status": status, "exit_code": code, "error": message}


def _set_up_logging(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if debug else logging.ERROR)
    if not debug:
        # What Beam warns of here is its own business; what goes wrong comes as an error.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def print_json(value: Any) -> None:
    """Prints a result as one JSON document."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # What no encoding has, half of a character, JSON can say by its number.
    click.echo(text.encode(errors="backslashreplace").decode())


def print_lines(lines: list[str]) -> None:
    """Prints a result as lines of text."""
    click.echo(printable("\n".join(lines)))


def printable(text: str) -> str:
    """Returns a text without what commands a terminal or has no encoding; line breaks stay."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def open_output(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...]
) -> tuple[Store, str | None]:
    """Returns the output that a job file or an address names, and the slice if it is a job's.

    Warns of publications that were begun and not finished.

    Raises:
        JobFileError: the job file is wrong, the address holds credentials, or parameters are given
            with an output.
        OutputError: the folder is not an output of batchscore.
    """
    from batchscore.job import load_job
    from batchscore.runs.history import require_output
    from batchscore.runs.layout import slice_id
    from batchscore.storage import Store

    if holds_secret(where):
        raise JobFileError(
            f"{redacted_address(where)}: holds what may be a credential; give it by the "
            "environment, or by fsspec's own configuration files"
        )
    slice_ = None
    if where.endswith((".yaml", ".yml", ".json")):
        loaded = load_job(where, params, overrides)
        store, slice_ = Store(loaded.job.output.path), slice_id(loaded.job.name, loaded.params)
    elif params or overrides:
        raise JobFileError(f"{where}: is an output; --param and --set go with a job file")
    else:
        store = Store(where if "://" in where else os.path.abspath(where))
    require_output(store)
    _warn_of_pending(store, slice_)
    return store, slice_


def _warn_of_pending(store: Store, slice_: str | None) -> None:
    """Says what those that only read find in the middle of a publication."""
    from batchscore.render import interrupted
    from batchscore.runs.history import pending_runs

    for found in pending_runs(store, slice_):
        words = interrupted(found) if isinstance(found, str) else str(found)
        click.echo(printable(f"WARNING  {words}"), err=True)
