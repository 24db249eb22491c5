"""The command that scores many dates of a job."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.app import (
    common_options,
    job_options,
    json_text,
    print_json,
    print_lines,
    printable,
    program,
    reporting,
    require_folder,
)
from batchscore.cli.interrupts import is_attended, signals_as_usual, stop_on_signals
from batchscore.cli.watch import show_dates
from batchscore.errors import StoppedError
from batchscore.system.allocators import keep_memory_of_arrow, share_arenas
from batchscore.system.imports import uncollected

if TYPE_CHECKING:
    from batchscore.job import LoadedJob


@click.command()
@click.argument("job")
@click.option("--from", "first", required=True, metavar="DATE", help="The first date.")
@click.option("--to", "last", required=True, metavar="DATE", help="The last date.")
@click.option(
    "--over", metavar="NAME", help="The parameter that has the date, if the job has several."
)
@click.option(
    "--side-by-side",
    type=click.IntRange(1),
    metavar="N",
    help="Dates that are scored at the same time; by default as many as cores, at most 4.",
)
@click.option("--rescore", is_flag=True, help="Also score published dates again; lists them first.")
@click.option("--yes", is_flag=True, help="Rescore without asking; only a terminal is asked.")
@job_options
@common_options
def backfill(
    job: str,
    first: str,
    last: str,
    over: str | None,
    side_by_side: int | None,
    rescore: bool,
    yes: bool,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Score many dates side by side, and publish them in their order.

    Published dates are left as they are. One that is held or fails does not stop the others. The
    same command resumes a backfill that was stopped.
    """
    share_arenas()
    keep_memory_of_arrow()
    ending = _Notifier()
    with reporting(as_json, debug, ending.tell), stop_on_signals() as (stop, _):
        require_folder()
        with uncollected():
            from batchscore.cli.render import backfill as render
            from batchscore.commands import backfill as command
            from batchscore.commands.dates import Request, find_dates, find_replaced

        asked = Request(job, first, last, over, params, overrides, side_by_side, rescore)
        over, dates = find_dates(asked)
        replaced = find_replaced(dates) if rescore else []
        for line in render.replaced(replaced):
            click.echo(printable(line), err=True)
        if replaced and not yes and stop.signal is None and is_attended():
            _require_yes()
        ending.job = dates[0].loaded
        with show_dates(as_json) as tell, redirect_stdout(sys.stderr):
            done = command.backfill(asked, over, dates, replaced, tell, stop)
        if as_json:
            print_json(done.to_json(), kept=True)
        else:
            print_lines(render.table(done, program()), kept=True)
    ending.tell(done.to_json())
    raise click.exceptions.Exit(done.exit_code)


def _require_yes() -> None:
    """Asks whether to replace what was listed; raises StoppedError if not."""
    agreed = False
    with signals_as_usual(), suppress(click.Abort):  # Ctrl-C, or no more input
        agreed = click.confirm("replace these?", err=True)
    if not agreed:
        raise StoppedError("nothing was replaced, and no date was scored")


class _Notifier:
    """Runs the program of a job's `notify` with how the backfill ended, once the job is known."""

    job: LoadedJob | None = None

    def tell(self, result: dict[str, Any]) -> None:
        """Runs the program where the job wants it for this status; a failure is a warning."""
        notify = None if self.job is None else self.job.job.notify
        if self.job is None or notify is None or result["status"] not in notify.on:
            return
        from batchscore.commands.notify import Program, tell

        problem = tell(Program(notify, self.job.base), json_text(result))
        if problem is not None:
            click.echo(printable(f"WARNING  {problem}"), err=True)
