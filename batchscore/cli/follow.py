"""Commands for runs under way, from any machine: `status`, `wait` and `cancel`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from batchscore.cli.ages import read_seconds
from batchscore.cli.app import (
    common_options,
    is_job_file,
    job_options,
    open_output,
    outcome,
    output_of_job,
    print_json,
    print_lines,
    printable,
    program,
    reporting,
    require_no_parameters,
    typed,
    warn_of_pending,
)
from batchscore.cli.watch import show_progress
from batchscore.errors import BatchscoreError, StoppedError

if TYPE_CHECKING:
    from batchscore.commands.follow import Followed, Watch
    from batchscore.commands.overview import Outputs
    from batchscore.runs.manifest_model import Manifest
    from batchscore.runs.progress import Progress
    from batchscore.storage.store import Store


@click.command()
@click.argument("where")
@click.option(
    "--max-age",
    callback=read_seconds,
    metavar="26h",
    help="End with 3 if a job's newest published slice is older, or its newest did not come.",
)
@click.option(
    "--html", "page", type=click.Path(), metavar="FILE.html", help="Also write a page about it."
)
@job_options
@common_options
def status(
    where: str,
    max_age: int | None,
    page: str | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Show the last run of each job, and what waits for a person.

    WHERE is a job file (with --param), an output, or a folder of outputs. Changes nothing.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import status as render
        from batchscore.commands.files import check_page, write_page
        from batchscore.commands.overview import look_at
        from batchscore.runs.lateness import find_hidden, find_late

        if page is not None:
            check_page(page)
        found = look_at(_outputs(where, params, overrides, may_be_empty=max_age is not None))
        late = hidden = find_hidden(found.unreadable)
        if max_age is not None:
            late = find_late(found.jobs, max_age, found.outputs, found.unreadable)
        if page is not None:
            from batchscore.report.jobs_page import make_jobs_page

            write_page(make_jobs_page(where, found.jobs, late), page)
        code = (3 if late else 0) if max_age is not None else (1 if hidden else 0)
        if as_json:
            judged = {} if max_age is None else {"max_age_s": max_age, "late": [*map(asdict, late)]}
            print_json({**found.to_json(), **judged, "page": page, "exit_code": code})
        else:
            lines = [f"page {page}"] if page is not None else []
            print_lines([*render.overview(found, () if max_age is None else late), *lines])
    raise click.exceptions.Exit(code)


def _outputs(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], may_be_empty: bool
) -> Outputs:
    """Returns the outputs that are meant.

    Args:
        may_be_empty: Whether a job without any run is no error.
    """
    from batchscore.commands.overview import Outputs, find_outputs

    if is_job_file(where):
        store, slice_ = output_of_job(where, params, overrides)
        if not (may_be_empty and not store.names()):
            open_output(where, params, overrides)
        return Outputs((store,), slice_)
    require_no_parameters(where, params, overrides)
    found = find_outputs(where)
    for each in found.stores:
        # What cannot be read of a folder is said with what else there is.
        with suppress(*((OSError, BatchscoreError) if found.is_folder else ())):
            warn_of_pending(each, None)
    return found


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up then, with exit code 4."
)
@job_options
@common_options
def wait(
    where: str,
    run_id: str | None,
    timeout: float | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Wait for the run under way, or for RUN; end with its exit code.

    WHERE is a job file (with --param) or an output. A run that nobody works on any more is closed
    as failed. Ctrl-C leaves the run alone.
    """
    if timeout is not None and math.isnan(timeout):
        raise click.BadParameter("nan is no number of seconds.", param_hint="'--timeout'")
    with reporting(as_json, debug):
        from batchscore.commands.follow import find_run, wait_for

        store, slice_ = open_output(where, params, overrides)
        found = find_run(store, slice_, run_id)
        with _leaving(found.run), show_progress(as_json) as watch:
            manifest = wait_for(found, _announced(found, watch, as_json), timeout)
        _print_ended(manifest, store, typed(where, params, overrides, store.address), as_json)
    raise click.exceptions.Exit(manifest.exit_code)


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="RUN")
@job_options
@common_options
def cancel(
    where: str,
    run_id: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Stop a run under way, wherever it runs; it publishes nothing.

    WHERE is a job file (with --param) or an output. Finished units are kept: the next run of the
    job resumes them. Waits until the run has stopped.
    """
    with reporting(as_json, debug):
        from batchscore.commands.follow import cancel_run, find_run

        store, slice_ = open_output(where, params, overrides)
        found = find_run(store, slice_, run_id)
        with show_progress(as_json) as watch:
            manifest = cancel_run(found, watch)
        name = typed(where, params, overrides, store.address)
        _print_ended(manifest, store, name, as_json, exit_code=0)


def _announced(found: Followed, watch: Watch, as_json: bool) -> Watch:
    """Returns a watcher that first says which run it watches."""
    said = [as_json]

    def first(progress: Progress) -> None:
        if not said[0]:
            said[0] = True
            name = printable(f"run {found.run} of slice {found.slice}")
            click.echo(f"waiting for {name}; Ctrl-C leaves it alone", err=True)
        watch(progress)

    return first


@contextmanager
def _leaving(run: str) -> Iterator[None]:
    """Ends in a message of its own on Ctrl-C, which stops nothing but this command."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"this command stopped waiting; run {run} goes on") from None


def _print_ended(manifest: Manifest, store: Store, where: str, as_json: bool, **facts: int) -> None:
    """Prints what `run` prints at a run's end."""
    from batchscore.cli.render.summary import summary

    if as_json:
        result = {**manifest.document, "output": store.address, **outcome(manifest), **facts}
        print_json(result, kept=True)
    else:
        print_lines(summary(manifest, store.address, f"{program()} show {where}"), kept=True)
