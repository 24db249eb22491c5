"""While a run is under way: a bar or lines on stderr, and the signals that stop it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from batchscore.commands.stop import Stop
from batchscore.messages.wording import counted

if TYPE_CHECKING:
    from batchscore.runs.progress import Progress

_LINE_SECONDS = 10.0
_AT_ONCE = "stopped immediately; the next run of the slice scores what is left"


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; the second ends at once."""
    stop = Stop()

    def handle(number: int, _frame: object) -> None:
        if stop.signal is not None:
            click.echo(f"INTERRUPTED  {_AT_ONCE}", err=True)
            os._exit(128 + number)
        stop.signal = number
        click.echo("stopping at the next batch; interrupt again to stop immediately", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def show_progress(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows how far a run is: a bar in a terminal, else lines; nothing where JSON is asked for."""
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[speed]}, ETA"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=None, speed="starting")

        def watch(progress: Progress) -> None:
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
        total = counted(progress.total, "row")
        state = "" if progress.state == "scoring" else f"{progress.state}: "
        click.echo(
            f"{time.strftime('%H:%M:%S')} {state}scored {progress.rows:,} of {total} "
            f"({share:.0%}), {_speed(progress)}, {eta}",
            err=True,
        )

    return watch


def _speed(progress: Progress) -> str:
    from batchscore.cli.render.results import rate

    return rate(progress.rows, progress.seconds)
