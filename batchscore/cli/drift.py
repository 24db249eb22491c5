"""Commands that profile and compare tables, with or without a run, and report what they find."""

from __future__ import annotations

import math
from typing import Any

import click

from batchscore.cli.app import (
    common_options,
    job_options,
    open_output,
    print_json,
    print_lines,
    reporting,
)

_OUTPUT = click.Path(path_type=str)


def _split(_context: Any, _option: Any, given: tuple[str, ...]) -> tuple[str, ...] | None:
    return tuple(name for each in given for name in each.split(",")) or None


def _effects(
    _context: Any, _option: Any, given: tuple[str, ...]
) -> dict[str, tuple[float | None, float | None]]:
    """Reads `MEASURE=WARN,FAIL`; a word `null` in place of a number: never."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for text in given:
        measure, _, effects = text.partition("=")
        numbers = [None if each == "null" else _number(each, text) for each in effects.split(",")]
        if len(numbers) != 2:
            raise _misspelt(text)
        found[measure] = (numbers[0], numbers[1])
    return found


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _misspelt(whole)
    return number


def _misspelt(text: str) -> click.BadParameter:
    return click.BadParameter(
        f"{text!r}: expected MEASURE=WARN,FAIL such as psi=0.1,0.25; null instead of a number "
        "means never"
    )


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("-o", "--output", type=_OUTPUT, metavar="FILE", help="Store the profile here.")
@click.option(
    "--columns", multiple=True, callback=_split, metavar="A,B", help="Profile these; default all."
)
@click.option(
    "--probability",
    "probabilities",
    multiple=True,
    metavar="COLUMN",
    help="A column of floats from 0 to 1, with the same resolution near 1 as near 0.",
)
@click.option(
    "--classes",
    multiple=True,
    metavar="COLUMN",
    help="A column of lists of class scores that sum to 1.",
)
@common_options
def profile(
    data: tuple[str, ...],
    output: str | None,
    columns: tuple[str, ...] | None,
    probabilities: tuple[str, ...],
    classes: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Profile Parquet data without a model, for later comparisons.

    DATA is one or more files, globs or folders, on disk or at any fsspec address.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import drift as render_drift
        from batchscore.commands.files import check_replaceable, write_profile
        from batchscore.commands.profile import profile_data

        if output is not None:
            check_replaceable(output, data)
        found = profile_data(data, columns, probabilities, classes)
        written = 0 if output is None else write_profile(found.profile, output)
        if as_json:
            facts = {**found.to_json(), "output": output, "exit_code": 0}
            print_json(facts, kept=output is not None)
        else:
            print_lines(render_drift.profiled(found, output, written), kept=output is not None)


@click.command()
@click.argument("reference")
@click.argument("current")
@click.option(
    "--alpha",
    type=float,
    default=0.001,
    show_default=True,
    help="The largest probability that noise alone warns or fails anywhere.",
)
@click.option(
    "--columns", multiple=True, callback=_split, metavar="A,B", help="Judge these; default all."
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    callback=_effects,
    metavar="MEASURE=WARN,FAIL",
    help="Replace default thresholds, such as psi=0.1,0.25; null means never.",
)
@click.option("--all", "every", is_flag=True, help="Show every column, not just the worst.")
@click.option(
    "-o", "--output", type=_OUTPUT, metavar="FILE.html", help="Also write an HTML report."
)
@common_options
def compare(
    reference: str,
    current: str,
    alpha: float,
    columns: tuple[str, ...] | None,
    thresholds: dict[str, tuple[float | None, float | None]],
    every: bool,
    output: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Show which columns of a table drifted from a reference.

    REFERENCE and CURRENT are each a profile, Parquet data, or an output, which means its newest
    published run. Ends with 3 if the verdict is fail.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render import drift as render_drift
        from batchscore.commands.compare import compare_data
        from batchscore.commands.files import check_page, write_page

        if output is not None:
            check_page(output)
        found = compare_data(reference, current, alpha, columns, thresholds)
        if output is not None:
            from batchscore.commands.report import report_comparison

            write_page(report_comparison(found).html, output)
        if as_json:
            print_json({**found.to_json(), "report": output}, kept=True)
        else:
            lines = [f"report {output}"] if output is not None else []
            print_lines([*render_drift.compared(found, every), *lines], kept=True)
    raise click.exceptions.Exit(found.exit_code)


@click.command()
@click.argument("where")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "-o", "--output", type=_OUTPUT, metavar="FILE.html", required=True, help="Write the page here."
)
@job_options
@common_options
def report(
    where: str,
    run_id: str | None,
    output: str,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Write an HTML page about one run, by default the newest.

    WHERE is a job file (with --param) or an output. The page shows drift, rejected rows,
    checks and history, and needs no network.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render.results import size
        from batchscore.commands.files import check_page, write_page
        from batchscore.commands.report import report_run
        from batchscore.runs.history import newest, read_manifest, reading

        check_page(output)
        store, slice_ = open_output(where, params, overrides)
        manifest = read_manifest(store, run_id) if run_id else newest(store, slice_)
        with reading(store, manifest.run):
            page = report_run(store, manifest)
        written = write_page(page.html, output)
        for message in page.missing:
            click.echo(f"WARNING  left out: {message}", err=True)
        if as_json:
            facts = {"run": manifest.run, "report": output, "bytes": written}
            facts |= {"missing": page.missing, "earlier": page.runs, "exit_code": 0}
            print_json(facts, kept=True)
        else:
            run = f"run {manifest.run} and {page.runs} before it"
            print_lines([f"report {output}   {run}, {size(written)}"], kept=True)


def _share(_context: Any, _option: Any, given: str) -> float:
    """Reads a share of nights, as `1/30` or `0.03`."""
    above, _, below = given.partition("/")
    try:
        share = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        share = math.nan
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{given!r}: expected a share of nights such as 1/30 or 0.03")
    return share


@click.command()
@click.argument("where")
@click.option(
    "--pages",
    default="1/30",
    show_default=True,
    callback=_share,
    metavar="SHARE",
    help="The share of nights that may alarm.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    callback=_effects,
    metavar="MEASURE=WARN,FAIL",
    help="Try these thresholds in place of the job's, such as psi=0.1,0.25.",
)
@click.option(
    "-o", "--output", type=_OUTPUT, metavar="FILE.yaml", help="Write the tuned thresholds here."
)
@job_options
@common_options
def tune(
    where: str,
    pages: float,
    thresholds: dict[str, tuple[float | None, float | None]],
    output: str | None,
    params: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Replay stored nights, and propose thresholds for drift.

    WHERE is a job file (with --param) or an output. The thresholds alarm on a share of its nights
    at most. Each night's profile is compared again with its references. No data are read, and
    nothing is changed.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render.tuned import section_text, tuned_lines
        from batchscore.commands.files import check_new, write_new
        from batchscore.commands.tune import replay

        if output is not None:
            check_new(output)
        store, slice_ = open_output(where, params, overrides)
        found = replay(store, slice_, pages, thresholds)
        if output is not None:
            write_new(section_text(found), output)
        if as_json:
            print_json({**found.to_json(), "output": output, "exit_code": 0}, kept=True)
        else:
            lines = [f"wrote   {output}"] if output is not None else []
            print_lines([*tuned_lines(found), *lines], kept=True)
