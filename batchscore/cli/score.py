"""Commands that score: `check` tries a job, `run` does it."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.ages import read_seconds
from batchscore.cli.app import (
    F,
    common_options,
    job_options,
    json_text,
    outcome,
    print_json,
    print_lines,
    printable,
    program,
    reporting,
    require_folder,
    stopwatch,
    typed,
)
from batchscore.cli.interrupts import ON_INTERRUPT, OnInterrupt, stop_on_signals
from batchscore.cli.watch import show_progress
from batchscore.commands.guess import start_early
from batchscore.commands.lineage_events import DatasetFacts, datasets_of, end, start
from batchscore.commands.lineage_sender import Sender, is_installed, is_wanted
from batchscore.commands.textfile import Textfile, textfile
from batchscore.phases import IMPORTS, INPUT, JOB, Stopwatch, times
from batchscore.system import json_lines
from batchscore.system.allocators import keep_memory_of_arrow, share_arenas
from batchscore.system.imports import uncollected

if TYPE_CHECKING:
    from batchscore.job import LoadedJob
    from batchscore.plan import Plan
    from batchscore.runs.manifest_model import Manifest


def engine_options(function: F) -> F:
    """Adds the engine and its options."""
    option = click.option(
        "--engine", metavar="ENGINE", help="Short for --set runtime.engine=ENGINE."
    )
    metavar = "[-- BEAM OPTIONS]"
    argument = click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar=metavar)
    return option(argument(function))


def _with_engine(overrides: tuple[str, ...], engine: str | None) -> tuple[str, ...]:
    return overrides if engine is None else (*overrides, f"runtime.engine={engine}")


@click.command()
@click.argument("job")
@job_options
@click.option("--probe", is_flag=True, help="Also write one object into the output, and remove it.")
@engine_options
@common_options
def check(
    job: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    probe: bool,
    engine: str | None,
    beam_options: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Validate a job and score one batch, without writing anything.

    Ends with the exit code that a run would end with, as far as the plan and the
    batch show.
    """
    clock = stopwatch()
    clock.enter(IMPORTS)
    with reporting(as_json, debug):
        require_folder()
        overrides = _with_engine(overrides, engine)
        start_early(job, params, overrides, loads=True)
        with uncollected():
            from batchscore.cli.render import check as render_check
            from batchscore.commands.check import check_job

        with redirect_stdout(sys.stderr):
            found = check_job(job, params, overrides, probe, clock, beam_options)
        if as_json:
            print_json(found.to_json(), kept=True)
        else:
            print_lines(render_check.checked(found, probe), kept=True)
    raise click.exceptions.Exit(found.exit_code)


@click.command()
@click.argument("job")
@job_options
@click.option("--rescore", is_flag=True, help="Score all rows again, even if nothing changed.")
@click.option(
    "--detach", is_flag=True, help="Leave the run once a cluster has it; `wait` follows it."
)
@click.option(
    "--on-interrupt",
    type=click.Choice(ON_INTERRUPT),
    default="ask",
    help="What Ctrl-C or SIGTERM does to a run on a cluster: ask (on a terminal, else cancel), "
    "cancel, or leave it running.",
)
@click.option(
    "--wait",
    "wait_s",
    callback=read_seconds,
    metavar="2h",
    help="Try for so long while the input is not ready or another run holds the slice.",
)
@click.option(
    "--metrics",
    type=click.Path(),
    metavar="FILE.prom",
    help="At the end, write metrics for Prometheus's node exporter.",
)
@click.option(
    "--log-format",
    type=click.Choice((json_lines.TEXT, json_lines.JSON)),
    help="Write messages on standard error as text, or as one JSON object a line.",
)
@engine_options
@common_options
def run(
    job: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    rescore: bool,
    wait_s: int | None,
    detach: bool,
    on_interrupt: OnInterrupt,
    metrics: str | None,
    log_format: str | None,  # which `main` has seen already
    engine: str | None,
    beam_options: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Score a job's input and publish the result, or say why not."""
    clock = stopwatch()
    clock.enter(IMPORTS)
    share_arenas()
    keep_memory_of_arrow()
    ending = _Ending(clock)
    json_lines.forget()
    with (
        reporting(as_json, debug, ending.tell),
        stop_on_signals(on_interrupt) as (stop, question),
    ):
        require_folder()
        ending.textfile = textfile(metrics)
        overrides = _with_engine(overrides, engine)
        start_early(job, params, overrides, loads=rescore)
        with uncollected():
            from batchscore.cli.render import summary as render_summary
            from batchscore.commands.patience import try_until
            from batchscore.commands.run import run_plan
            from batchscore.job import load_job
            from batchscore.models.process.current import ended
            from batchscore.plan import make_plan
            from batchscore.runs.submission import SUBMITTED

        clock.enter(JOB)
        loaded = load_job(job, params, overrides)
        ending.start(loaded)

        @ended()
        def attempt(clock: Stopwatch) -> tuple[Plan, Manifest]:
            clock.enter(INPUT)
            plan = make_plan(loaded)
            json_lines.note(slice=plan.spec.slice)
            ending.planned(plan, clock)
            with show_progress(as_json, question) as watch, redirect_stdout(sys.stderr):
                return plan, run_plan(plan, beam_options, rescore, watch, stop, clock, detach)

        plan, manifest = try_until(attempt, wait_s or 0, stop, _tell_waiting, clock)
        output = plan.spec.output.address
        where = typed(job, params, overrides, output)
        show = f"{program()} show {where}"
        result = {**manifest.document, "output": output, **outcome(manifest)}
        if manifest.status == SUBMITTED:
            result["follow"] = f"{program()} wait {where} {manifest.run}"
        if as_json:
            print_json(result, kept=True)
        elif manifest.status == SUBMITTED:
            print_lines(render_summary.submitted(manifest, result["follow"]), kept=True)
        elif manifest.status == "unchanged":
            print_lines(render_summary.unchanged(manifest, output, show), kept=True)
        else:
            print_lines(render_summary.summary(manifest, output, show), kept=True)
    ending.tell(result)
    raise click.exceptions.Exit(result["exit_code"])


def _tell_waiting(line: str) -> None:
    click.echo(printable(f"WAITING  {line}"), err=True)


class _Ending:
    """Tells others of a run, once its job is known: by lineage, metrics, and `notify`.

    Args:
        clock: Has measured the command's time.
    """

    def __init__(self, clock: Stopwatch) -> None:
        self._clock = clock
        self.job: LoadedJob | None = None
        self.textfile: Textfile | None = None
        self._sender: Sender | None = None
        self._datasets = DatasetFacts()

    def start(self, job: LoadedJob) -> None:
        """Notes the job, and opens what OpenLineage's own configuration names."""
        self.job = job
        if is_wanted():
            if is_installed():
                self._sender = Sender(job.job.name, {k: str(v) for k, v in job.params.items()})
            else:
                _warn(
                    "OpenLineage is configured, and no event is sent: its library is not "
                    "installed; install it: pip install 'batchscore[openlineage]', or set "
                    "OPENLINEAGE_DISABLED=true"
                )

    def planned(self, plan: Plan, clock: Stopwatch) -> None:
        """Sends the event of the run's start, once also where the run is tried again.

        Args:
            clock: Has measured the time since the run stopped waiting.
        """
        self._clock = clock
        if self._sender is not None:
            has_started, self._datasets = self._datasets != DatasetFacts(), datasets_of(plan)
            if not has_started:
                self._sender.send(self._datasets, start())

    def tell(self, result: dict[str, Any]) -> None:
        """Writes and starts what is wanted for this result; a failure is a warning."""
        if self.job is None:
            return
        if self._sender is not None:
            self._sender.send(self._datasets, end(result))
            _warn(self._sender.close())
        if self.textfile is not None:
            _warn(self._write(self.textfile, self.job, result))
        notify = self.job.job.notify
        if notify is not None and result["status"] in notify.on:
            from batchscore.commands.notify import Program, tell

            _warn(tell(Program(notify, self.job.base), json_text(result)))

    def _write(self, file: Textfile, job: LoadedJob, result: dict[str, Any]) -> str | None:
        from batchscore.runs.layout import slice_id

        # A run that failed has no more than its message.
        spent = times(self._clock.started_at())
        return file.write(job.job.name, slice_id(job.job.name, job.params), {**spent, **result})


def _warn(problem: str | None) -> None:
    if problem is not None:
        click.echo(printable(f"WARNING  {problem}"), err=True)
