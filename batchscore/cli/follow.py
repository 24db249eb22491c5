"""Commands for runs under way, from any machine that sees the output: `status`."""

from __future__ import annotations

from dataclasses import asdict

import click

from batchscore.cli.app import (
    common_options,
    job_options,
    open_output,
    print_json,
    print_lines,
    reporting,
)


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
