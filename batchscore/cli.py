"""The command line: arguments to a job, a job to a command, results to lines and exit codes."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchscore import __version__
from batchscore.errors import BatchscoreError

if TYPE_CHECKING:
    from batchscore.commands.run import Progress, Stop
    from batchscore.storage import Store

F = TypeVar("F", bound=Callable[..., Any])

_LINE_SECONDS = 10.0


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        code = error.exit_code
        if "--json" in sys.argv:
            _print_json(_failure("invalid", code, error.format_message()))
        else:
            error.show()
    except click.Abort:
        code, message = 130, "stopped before anything was begun"
        if "--json" in sys.argv:
            _print_json(_failure("interrupted", code, message))
        click.echo(f"INTERRUPTED  {message}", err=True)
    sys.stdout.flush()
    sys.exit(code)


def _options(function: F) -> F:
    """Adds what all commands take, and turns every error into one message and an exit code."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("--debug", is_flag=True, help="Show tracebacks and Beam's own log."),
    ):
        function = option(function)
    return function


def _job_options(function: F) -> F:
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
def _told(as_json: bool, debug: bool) -> Iterator[None]:
    """Ends in one message and the error's exit code, whatever goes wrong inside."""
    _set_up_logging(debug)
    try:
        yield
    except BatchscoreError as error:
        _tell(error, str(error), error.status, error.exit_code, as_json, debug)
    except (click.ClickException, click.exceptions.Exit):
        raise
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {error}"
        if not debug:
            message += "\nThis is a defect of batchscore; --debug shows where."
        _tell(error, message, "failed", 1, as_json, debug)


def _tell(
    error: Exception, message: str, status: str, code: int, as_json: bool, debug: bool
) -> None:
    if debug:
        traceback.print_exception(type(error), error, error.__traceback__)
    if as_json:
        _print_json(_failure(status, code, message))
    else:
        click.echo(f"{status.upper()}  {message}", err=True)
    raise click.exceptions.Exit(code)


def _failure(status: str, code: int, message: str) -> dict[str, Any]:
    return {"status": status, "exit_code": code, "error": message}


def _set_up_logging(debug: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if debug else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not debug:
        # What Beam warns of here is its own business; what goes wrong comes as an error.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _print_lines(lines: list[str]) -> None:
    click.echo("\n".join(lines))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchscore")
def cli() -> None:
    """Score Parquet tables with a torch model, with every row accounted for.

    Exit codes: 0 published, or nothing to do; 1 failed; 2 found wrong before any work; 3 held back
    by a check; 4 try again later; 130 and 143 interrupted.
    """


@cli.command()
@click.argument("job")
@_job_options
@click.option("--probe", is_flag=True, help="Put one object into the output, and remove it.")
@_options
def check(
    job: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    probe: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Try all that can fail, and one batch through the whole way; writes nothing."""
    with _told(as_json, debug):
        from batchscore import render
        from batchscore.commands.check import check_job

        with redirect_stdout(sys.stderr):
            found = check_job(job, params, overrides, probe)
        if as_json:
            _print_json(found.to_json())
        else:
            _print_lines(render.checked(found, probe))
    raise click.exceptions.Exit(found.exit_code)


@cli.command()
@click.argument("job")
@_job_options
@click.option("--rescore", is_flag=True, help="Score even what would come out the same.")
@click.option("--engine", metavar="ENGINE", help="Short for --set runtime.engine=ENGINE.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM OPTIONS]")
@_options
def run(
    job: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    rescore: bool,
    engine: str | None,
    beam_options: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Score a job's input and publish the result, or say why not."""
    with _told(as_json, debug), _signals() as stop:
        from batchscore import render
        from batchscore.commands.run import run_plan
        from batchscore.job import load_job
        from batchscore.plan import make_plan

        if engine is not None:
            overrides = (*overrides, f"runtime.engine={engine}")
        plan = make_plan(load_job(job, params, overrides))
        with _progress(as_json) as watch, redirect_stdout(sys.stderr):
            manifest = run_plan(plan, beam_options, rescore, watch, stop)
        output = plan.spec.output.address
        where = shlex.join([job, *(word for p in params for word in ("--param", p))])
        where = shlex.quote(output) if overrides else where
        if as_json:
            _print_json({**manifest, "output": output, **_outcome(manifest)})
        elif manifest["status"] == "unchanged":
            _print_lines(render.unchanged(manifest, output, where, _program()))
        else:
            _print_lines(render.summary(manifest, output, where, _program()))
    raise click.exceptions.Exit(_outcome(manifest)["exit_code"])


def _program() -> str:
    """Returns how this program can be started again: by its name where the shell finds it."""
    started = sys.argv[0]
    hidden = os.path.basename(started) == "batchscore" and shutil.which("batchscore") is None
    return shlex.quote(os.path.relpath(started)) if hidden else "batchscore"


def _outcome(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the exit code of a run, and why it is not 0."""
    code = {"failed": 1, "held": 3}.get(manifest["status"], 0)
    failed = [f"{c['name']}: {c['detail']}" for c in manifest.get("checks", ()) if not c["passed"]]
    why = manifest.get("error", "; ".join(failed))
    return {"exit_code": code, "error": why} if code else {"exit_code": code}


@cli.command()
@click.argument("where")
@_job_options
@_options
def runs(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """List the runs of a job, or of a whole output, newest first.

    WHERE is a job file (with --param) or an output.
    """
    with _told(as_json, debug):
        from batchscore import render
        from batchscore.runs.history import read_history

        store, slice_ = _where(where, params, overrides)
        manifests = read_history(store, slice_)
        if as_json:
            _print_json(manifests)
        else:
            _print_lines(render.history(manifests))


@cli.command()
@click.argument("where")
@click.argument("run_id", metavar="[RUN]", required=False)
@_job_options
@_options
def show(
    where: str,
    run_id: str | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Show one run, by default the newest: rows, times, checks, and each column's profile.

    WHERE is a job file (with --param) or an output.
    """
    with _told(as_json, debug):
        from batchscore import render
        from batchscore.runs.history import newest, read_manifest

        store, slice_ = _where(where, params, overrides)
        manifest = read_manifest(store, run_id) if run_id else newest(store, slice_)
        if as_json:
            _print_json(manifest)
        else:
            _print_lines(render.details(manifest, store.address))


@cli.command()
@click.argument("where")
@_job_options
@_options
def files(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """Print the published files, one a line: exactly what a reader should read.

    WHERE is a job file (with --param) or an output.
    """
    with _told(as_json, debug):
        from batchscore.runs.history import published_files

        store, slice_ = _where(where, params, overrides)
        addresses = [store.url(path) for path in published_files(store, slice_)]
        if as_json:
            _print_json(addresses)
        elif addresses:
            _print_lines(addresses)


@cli.command()
@_options
def schema(as_json: bool, debug: bool) -> None:
    """Print the JSON Schema of a job file."""
    with _told(as_json, debug):
        from batchscore.job import job_schema

        _print_json(job_schema())


def _where(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...]
) -> tuple[Store, str | None]:
    """Returns the output that a job file or an address names, and the slice if it is a job's."""
    from batchscore.errors import JobFileError
    from batchscore.job import load_job
    from batchscore.job.parameters import redacted_address
    from batchscore.runs.history import require_output
    from batchscore.runs.layout import slice_id
    from batchscore.storage import Store

    if redacted_address(where) != where:
        raise JobFileError(f"{redacted_address(where)}: credentials belong into the environment")
    slice_ = None
    if where.endswith((".yaml", ".yml", ".json")):
        loaded = load_job(where, params, overrides)
        store, slice_ = Store(loaded.job.output.path), slice_id(loaded.job.name, loaded.params)
    elif params or overrides:
        raise JobFileError(f"{where}: is an output; --param and --set go with a job file")
    else:
        store = Store(where if "://" in where else os.path.abspath(where))
    require_output(store)
    return store, slice_


@contextmanager
def _signals() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; the second ends at once."""
    from batchscore.commands.run import Stop

    stop = Stop()

    def handle(number: int, _frame: object) -> None:
        if stop.signal is not None:
            os._exit(128 + number)
        stop.signal = number
        click.echo("stopping at the next batch; again to end at once", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    if as_json:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield _log_lines()


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[speed]}, ETA"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=None, speed="starting")

        def watch(progress: Progress) -> None:
            bar.update(task, completed=progress.rows, total=progress.total, speed=_speed(progress))

        yield watch


def _log_lines() -> Callable[[Progress], None]:
    last = [time.monotonic()]

    def watch(progress: Progress) -> None:
        if time.monotonic() - last[0] < _LINE_SECONDS:
            return
        last[0] = time.monotonic()
        share = progress.rows / progress.total if progress.total else 1.0
        left = progress.seconds * (1 - share) / share if share else None
        eta = f"about {left:.0f} s left" if left is not None else "starting"
        click.echo(
            f"{time.strftime('%H:%M:%S')} scored {progress.rows:,} of {progress.total:,} rows "
            f"({share:.0%}), {_speed(progress)}, {eta}",
            err=True,
        )

    return watch


def _speed(progress: Progress) -> str:
    from batchscore.render import rate

    return rate(progress.rows, progress.seconds)
