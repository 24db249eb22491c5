"""While a run is under way: a bar or lines on stderr, and a question if somebody asks for one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from batchscore.cli.app import printable
from batchscore.messages.wording import counted, one_line

if TYPE_CHECKING:
    from batchscore.cli.interrupts import Question
    from batchscore.commands.backfill import SoFar
    from batchscore.commands.date_worker import DateEnd
    from batchscore.runs.progress import Progress

_LINE_SECONDS = 10.0


@contextmanager
def show_progress(
    as_json: bool, question: Question | None = None
) -> Iterator[Callable[[Progress], None]]:
    """Shows how far a run is: a bar in a terminal, else lines; nothing where JSON is asked for.

    Args:
        as_json: Whether the command prints JSON.
        question: Is asked in place of the bar as long as it is open.
    """
    if as_json:
        yield _asking(question)
    elif sys.stderr.isatty():
        with _bar(question) as watch:
            yield watch
    else:
        yield _log_lines()


def _asking(question: Question | None) -> Callable[[Progress], None]:
    def watch(_: Progress) -> None:
        if question is not None:
            question.tick()

    return watch


@contextmanager
def _bar(question: Question | None) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[speed]}, ETA"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=None, speed="starting")

        def watch(progress: Progress) -> None:
            if question is not None and question.is_open:
                bar.stop()
                if not question.tick():
                    bar.start()
            bar.update(
                task,
                description=progress.state,
                completed=progress.rows,
                total=progress.total,
                speed=_speed(progress),
            )

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
        state = eta if progress.state == "scoring" else progress.state
        total = counted(progress.total, "row")
        click.echo(
            f"{time.strftime('%H:%M:%S')} scored {progress.rows:,} of {total} "
            f"({share:.0%}), {_speed(progress)}, {state}",
            err=True,
        )

    return watch


@contextmanager
def show_dates(as_json: bool) -> Iterator[Callable[[SoFar, DateEnd | None], None]]:
    """Shows how far a backfill is: a line for each date that went wrong, and one now and then."""
    last = [time.monotonic()]

    def tell(tally: SoFar, outcome: DateEnd | None) -> None:
        if outcome is not None and not as_json and outcome.reason:
            what = f"{outcome.status} date {outcome.date}: {one_line(outcome.reason, 400)}"
            click.echo(printable(f"{time.strftime('%H:%M:%S')} {what}"), err=True)
        if as_json or time.monotonic() - last[0] < _LINE_SECONDS:
            return
        last[0] = time.monotonic()
        click.echo(f"{time.strftime('%H:%M:%S')} {_dates(tally)}", err=True)

    yield tell


def _dates(tally: SoFar) -> str:
    done = tally.published + tally.held + tally.failed - tally.before
    left = tally.all - tally.before - done
    eta = f"about {tally.seconds / done * left:,.0f} s left" if done else "starting"
    return (
        f"{tally.published:,} of {counted(tally.all, 'date')} published, {tally.held:,} held, "
        f"{tally.failed:,} failed; {eta}"
    )


def _speed(progress: Progress) -> str:
    from batchscore.cli.render.results import rate

    return rate(progress.rows, progress.seconds)
