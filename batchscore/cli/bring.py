"""Commands that bring a model in: what it is, a model folder of it, and a first job."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.app import (
    common_options,
    print_json,
    print_lines,
    program,
    reporting,
    require_folder,
)

if TYPE_CHECKING:
    from batchscore.commands.init_job import JobMade


def next_commands(found: JobMade) -> list[str]:
    """Returns the commands that come after a job file was written, for any folder."""
    words = [found.path, *(word for each in found.params for word in ("--param", each))]
    return [f"{program(True)} {name} {shlex.join(words)}" for name in ("check", "run")]


def inputs_option(command: Any) -> Any:
    """Adds `--inputs`, which names the columns of a model that does not."""
    return click.option(
        "--inputs",
        multiple=True,
        metavar="NAME=A,B",
        help="The columns of an input, in the order of training, if the model does not name them.",
    )(command)


@click.command()
@click.argument("data", metavar="PARQUET")
@click.argument("path", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    "folder",
    default=".",
    metavar="DIR",
    help="Folder of the job file; default: this one.",
)
@click.option("--name", metavar="NAME", help="The job's name; default: the model's.")
@inputs_option
@click.option(
    "--allow-code", is_flag=True, help="Let the job load a model that can run code, such as .pt2."
)
@click.option(
    "--max-rejects",
    type=click.FloatRange(0, 1),
    metavar="RATIO",
    help="The share of rows that the job may reject, such as 0.05; default: 0.001.",
)
@common_options
def init(
    data: str,
    path: str,
    folder: str,
    name: str | None,
    inputs: tuple[str, ...],
    allow_code: bool,
    max_rejects: float | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Write a first job file, DIR/job.yaml, for data and a model.

    PARQUET is a file, glob or folder; MODEL is a model folder or file. Both may be at any fsspec
    address. The job passes `check` before it is written; what was assumed is said here and in the
    file.
    """
    with reporting(as_json, debug):
        require_folder()
        with redirect_stdout(sys.stderr):
            from batchscore.cli.render.inspected import created
            from batchscore.commands.init_job import JobToMake, init_job

            found = init_job(JobToMake(data, path, folder, name, inputs, allow_code, max_rejects))
        if as_json:
            print_json({**found.to_json(), "next": next_commands(found)}, kept=True)
        else:
            print_lines(created(found, next_commands(found)), kept=True)


@click.group()
def model() -> None:
    """Look at a model file, or write a model folder of it."""


@model.command("inspect")
@click.argument("path", metavar="MODEL")
@click.option("--all", "every", is_flag=True, help="Show all columns and categories.")
@common_options
def inspect(path: str, every: bool, as_json: bool, debug: bool) -> None:
    """Show what a model is, and what a job needs to score with it.

    MODEL is a model file or folder, on disk or at any fsspec address. Shows inputs, outputs,
    columns with their categories, hashes, versions, and the job file's section. Runs no code of the
    model.
    """
    with reporting(as_json, debug):
        from batchscore.cli.render.inspected import inspected
        from batchscore.commands.inspect_model import inspect_model

        found = inspect_model(path)
        if as_json:
            print_json(found.to_json())
        else:
            print_lines(inspected(found, every))


@model.command("save")
@click.argument("path", metavar="FILE")
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Folder to write.")
@click.option(
    "--sample",
    required=True,
    metavar="PARQUET",
    help="Rows that the model was trained on: a file, glob or folder.",
)
@click.option(
    "--reference",
    metavar="PARQUET",
    help="Rows that drift is measured against; default: the sample.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="The most rows that are read of each, spread over all row groups.",
)
@click.option("--name", metavar="NAME", help="The model's name; default: the folder's.")
@click.option("--version", default="1", show_default=True, metavar="TEXT", help="Its version.")
@inputs_option
@click.option("--outputs", metavar="A,B", help="Names of the outputs.")
@click.option(
    "--call",
    multiple=True,
    metavar="KEY=VALUE",
    help="What of the model is called, as in model.yaml: returns=class.",
)
@click.option(
    "--missing",
    multiple=True,
    metavar="COLUMN=TEXT",
    help="The text that training had in the place of null in a category of CatBoost.",
)
@click.option(
    "--postprocess",
    multiple=True,
    metavar="STEP",
    help="What the job will do to the outputs, such as sigmoid.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="The largest difference of a score to its golden one that a run accepts.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model folder that is there.")
@common_options
def save(
    path: str, folder: str, outputs: str | None, as_json: bool, debug: bool, **asked: Any
) -> None:
    """Write a model folder of a model file and rows of its training.

    The folder holds the file, a card, golden rows with the framework's own scores, and the
    profile that drift is measured against. It appears in one step, or not at all.
    """
    with reporting(as_json, debug):
        require_folder()
        with redirect_stdout(sys.stderr):
            from batchscore.cli.render.inspected import saved
            from batchscore.commands.save_file import FileToSave, save_file

            names = outputs.split(",") if outputs else ()
            wanted = FileToSave(path, folder, outputs=names, **asked)
            found = save_file(wanted)
        if as_json:
            print_json(found.to_json(), kept=True)
        else:
            print_lines(saved(found, wanted, program(True)), kept=True)
