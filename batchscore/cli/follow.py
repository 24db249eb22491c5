"""Commands for runs under way, from any machine: `status`, `wait` and `cancel`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from batchscore.cli.app import (
    common_options,
    job_options,
    open_output,
    outcome,
    print_json,
    print_lines,
    printable,
    program,
    reporting,
    typed,
)
from batchscore.cli.watch import show_progress
from batchscore.errors import StoppedError

if TYPE_CHECKING:
    from batchscore.commands.follow import Followed, Watch
    from batchscore.runs.manifest_model import Manifest
    from batchscore.runs.progress import Progress
    from batchscore.storage.store import Store


@click.command()
@click.argument("where")
@job_options
@common_options
def status(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """Show what is under way, and which slices wait for a person.

    WHERE is a job file (with --param) or an output. Writes nothing.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import status as render
        from batchscore.runs.underway import Activity, find_activities, find_undecided

        store, slice_ = open_output(where, params, overrides)
        found = find_activities(store, slice_)
        activities = [each for each in found if isinstance(each, Activity)]
        damaged = [each for each in found if not isinstance(each, Activity)]
        undecided = [*damaged, *find_undecided(store, slice_)]
        if as_json:
            documents = ([*map(asdict, activities)], [*map(asdict, undecided)])
            print_json(
                {"output": store.address, "under_way": documents[0], "undecided": documents[1]}
            )
        else:
            print_lines(render.status(activities, undecided))


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
    """Wait until a run has ended, by default the one under way, and end with its exit code.

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
