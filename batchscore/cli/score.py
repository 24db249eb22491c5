"""Commands that score: `check` tries a job, `run` does it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from batchscore.addresses import redacted_address
from batchscore.cli.app import common_options, job_options, print_json, print_lines, told
from batchscore.cli.progress import show_progress, stop_on_signals
from batchscore.processes import share_arenas, uncollected


@click.command()
@click.argument("job")
@job_options
@click.option("--probe", is_flag=True, help="Put one object into the output, and remove it.")
@common_options
def check(
    job: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    probe: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Try all that can fail, and one batch through the whole way; writes nothing."""
    with told(as_json, debug):
        from batchscore import render
        from batchscore.commands.check import check_job

        with redirect_stdout(sys.stderr):
            found = check_job(job, params, overrides, probe)
        if as_json:
            print_json(found.to_json())
        else:
            print_lines(render.checked(found, probe))
    raise click.exceptions.Exit(found.exit_code)


@click.command()
@click.argument("job")
@job_options
@click.option("--rescore", is_flag=True, help="Score even what would come out the same.")
@click.option("--engine", metavar="ENGINE", help="Short for --set runtime.engine=ENGINE.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM OPTIONS]")
@common_options
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
    share_arenas()
    with told(as_json, debug), stop_on_signals() as stop:
        with uncollected():
            from batchscore import render
            from batchscore.commands.run import run_plan
            from batchscore.job import load_job
            from batchscore.plan import make_plan

        if engine is not None:
            overrides = (*overrides, f"runtime.engine={engine}")
        plan = make_plan(load_job(job, params, overrides))
        with show_progress(as_json) as watch, redirect_stdout(sys.stderr):
            manifest = run_plan(plan, beam_options, rescore, watch, stop)
        output = plan.spec.output.address
        where = shlex.join(
            [redacted_address(job), *(word for p in params for word in ("--param", p))]
        )
        where = shlex.quote(output) if overrides else where
        if as_json:
            print_json({**manifest, "output": output, **_outcome(manifest)})
        elif manifest["status"] == "unchanged":
            print_lines(render.unchanged(manifest, output, where, _program()))
        else:
            print_lines(render.summary(manifest, output, where, _program()))
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
