"""Commands by which a person decides about a run: `release`, `discard` and `rollback`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from batchscore.cli.app import (
    F,
    common_options,
    job_options,
    open_output,
    print_json,
    print_lines,
    program,
    reporting,
    stopwatch,
    typed,
)

if TYPE_CHECKING:
    from batchscore.runs.manifest_model import Manifest
    from batchscore.storage.store import Store


def _reason_option(required: bool) -> Callable[[F], F]:
    text = "Why; kept in the run's manifest."
    return click.option("--reason", metavar="TEXT", required=required, help=text)


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="RUN")
@_reason_option(required=True)
@job_options
@common_options
def release(
    where: str,
    run_id: str,
    reason: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Publish a held run as it was scored, and record the reason.

    WHERE is a job file (with --param) or an output.
    """
    with reporting(as_json, debug):
        from batchscore.commands.decide import release as decide

        store, slice_ = open_output(where, params, overrides)
        name = typed(where, params, overrides, store.address)
        _print_decided(decide(store, run_id, slice_, reason), store, name, as_json)


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="RUN")
@_reason_option(required=False)
@job_options
@common_options
def discard(
    where: str,
    run_id: str,
    reason: str | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Drop a held run and what it scored.

    WHERE is a job file (with --param) or an output.
    """
    with reporting(as_json, debug):
        from batchscore.commands.decide import discard as decide

        store, slice_ = open_output(where, params, overrides)
        name = typed(where, params, overrides, store.address)
        _print_decided(decide(store, run_id, slice_, reason), store, name, as_json)


@click.command()
@click.argument("where")
@click.option("--undo", "run_id", metavar="RUN", required=True, help="The run to take back.")
@_reason_option(required=False)
@job_options
@common_options
def rollback(
    where: str,
    run_id: str,
    reason: str | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Take back one published run, and restore what it replaced.

    WHERE is a job file (with --param) or an output.
    """
    clock = stopwatch()
    with reporting(as_json, debug):
        from batchscore.cli.render import results as render
        from batchscore.commands.decide import undo

        store, slice_ = open_output(where, params, overrides)
        made = undo(store, run_id, slice_, reason, clock)
        name = typed(where, params, overrides, store.address)
        _print_decided(made.updated(status=render.ROLLED_BACK), store, name, as_json)


def _print_decided(manifest: Manifest, store: Store, where: str, as_json: bool) -> None:
    from batchscore.cli.render.summary import summary

    if as_json:
        print_json({**manifest.document, "output": store.address, "exit_code": 0}, kept=True)
    else:
        print_lines(summary(manifest, store.address, f"{program()} show {where}"), kept=True)
