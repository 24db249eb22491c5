"""Commands that only read an output, or print the job file's schema; they write nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from batchscore.cli.app import (
    common_options,
    job_options,
    open_output,
    print_json,
    print_lines,
    program,
    reporting,
    typed,
)
from batchscore.system.streams import is_unicode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchscore.runs.history import Unreadable
    from batchscore.runs.manifest_model import Manifest
    from batchscore.storage.store import Store


@click.command()
@click.argument("where")
@click.option("--trend", is_flag=True, help="Show rows, times and rejected rows as small plots.")
@job_options
@common_options
def runs(
    where: str,
    trend: bool,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """List the runs of a job, or of a whole output, newest first.

    WHERE is a job file (with --param) or an output.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import results as render
        from batchscore.runs.history import current_runs, read_history

        store, slice_ = open_output(where, params, overrides)
        manifests = read_history(store, slice_, whole=as_json and not trend)
        if trend:
            _print_trend(store, manifests, as_json)
        elif as_json:
            print_json([each.document for each in manifests])
        else:
            print_lines(render.history(manifests, current_runs(store, slice_)))


def _print_trend(store: Store, history: Sequence[Manifest | Unreadable], as_json: bool) -> None:
    from batchscore.cli.render.trend import trend, trend_json
    from batchscore.runs.series import find_series

    jobs = find_series(store, history, {})
    if as_json:
        print_json(trend_json(jobs))
    else:
        print_lines(trend(jobs, is_unicode(sys.stdout)))


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--logs", is_flag=True, help="Show what its worker processes logged instead.")
@click.option("--trend", is_flag=True, help="Show how drift moved up to this run instead.")
@job_options
@common_options
def show(
    where: str,
    run_id: str | None,
    logs: bool,
    trend: bool,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Show one run, by default the newest.

    WHERE is a job file (with --param) or an output. Shows rows, times, checks, profile and drift.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import drift as render_drift
        from batchscore.cli.render import results as render
        from batchscore.runs.history import newest, read_manifest, reading

        store, slice_ = open_output(where, params, overrides)
        if logs:
            return _show_logs(store, slice_, run_id, as_json)
        manifest = read_manifest(store, run_id) if run_id else newest(store, slice_)
        if trend:
            _show_trend(store, manifest, as_json)
        elif as_json:
            print_json(manifest.document)
        else:
            with reading(store, manifest.run):
                tables = render_drift.drift_tables(manifest)
                name = typed(where, params, overrides, store.address)
                steps = render.steps(manifest, name, program())
                lines = [*render.details(manifest, store.address), *tables, *steps]
            print_lines(lines)


def _show_trend(store: Store, manifest: Manifest, as_json: bool) -> None:
    from batchscore.cli.render.drift_trend import drift_trend, drift_trend_json
    from batchscore.commands.earlier_runs import earlier_runs
    from batchscore.report.past import runs_of

    runs = runs_of(manifest, earlier_runs(store, manifest))
    if as_json:
        print_json(drift_trend_json(manifest.job, runs))
    else:
        print_lines(drift_trend(manifest.job, runs, is_unicode(sys.stdout)))


def _show_logs(store: Store, slice_: str | None, run_id: str | None, as_json: bool) -> None:
    from batchscore.cli.render.logs import logged
    from batchscore.commands.logs import logs_of

    found = logs_of(store, slice_, run_id)
    if as_json:
        print_json(found.to_json())
    else:
        print_lines(logged(found))


@click.command()
@click.argument("where")
@job_options
@common_options
def files(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """Print the files that readers should read, one per line.

    WHERE is a job file (with --param) or an output.
    """
    with reporting(as_json, debug):
        from batchscore.runs.history import published_files

        store, slice_ = open_output(where, params, overrides)
        addresses = [store.url(path) for path in published_files(store, slice_)]
        if as_json:
            print_json(addresses)
        elif addresses:
            print_lines(addresses)


@click.command()
@click.argument("where")
@job_options
@common_options
def verify(
    where: str, params: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """Read everything published again, and compare it with its hashes.

    WHERE is a job file (with --param) or an output. Writes nothing. Ends with 1 if something is
    wrong.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import results as render
        from batchscore.commands.verify import verify_output

        found = verify_output(*open_output(where, params, overrides))
        if as_json:
            print_json(found.to_json(), kept=True)
        else:
            print_lines(render.verified(found), kept=True)
    raise click.exceptions.Exit(found.exit_code)


@click.command()
@click.argument("where")
@click.argument("conditions", metavar="COLUMN=VALUE [COLUMN=VALUE ...]", nargs=-1, required=True)
@job_options
@common_options
def trace(
    where: str,
    conditions: tuple[str, ...],
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Find published and rejected rows, and where each came from.

    WHERE is a job file (with --param) or an output. Shows the source row, run and model of each row
    that has all given values.
    COLUMN=null finds nulls, COLUMN='"null"' that text. Rows count from 0. Ends with 1 if no row
    has the values.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import results as render
        from batchscore.commands.trace import trace_rows

        found = trace_rows(*open_output(where, params, overrides), conditions)
        if as_json:
            print_json(found.to_json())
        else:
            print_lines(render.traced(found, conditions))
    raise click.exceptions.Exit(found.exit_code)


@click.command()
@click.option("--manifest", is_flag=True, help="Print the schema of a run's manifest instead.")
@common_options
def schema(manifest: bool, as_json: bool, debug: bool) -> None:
    """Print the JSON Schema of a job file, or of a run's manifest."""
    with reporting(as_json, debug):
        if manifest:
            from batchscore.runs.manifest_model import manifest_schema

            print_json(manifest_schema())
        else:
            from batchscore.job import job_schema

            print_json(job_schema())
