"""A job that Dataflow's launcher of flex templates starts: Dataflow has it before it is described.

The launcher runs in a container of its own. It names the job, and a file in whose folder's name
is the id of the job. Dataflow starts what is described in the file once the launcher has ended.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from batchscore.errors import FailedError, InvalidError

_OPTION = "template_location"
_FORM = re.compile(r"(gs://.+/template_launches/([A-Za-z0-9_-]{1,128}))/job_object")
DESCRIPTION = "job_object"
"""Dataflow's name of the file that describes a job."""


@dataclass(frozen=True)
class TemplateLaunch:
    """What Dataflow's launcher says of the job that it starts.

    Args:
        folder: Where the job is to be described.
        job: Dataflow's id of it.
        name: What the caller of the template calls it.
    """

    folder: str
    job: str
    name: str


def is_launched(flags: Sequence[str]) -> bool:
    """Tells whether Beam options come from Dataflow's launcher of flex templates."""
    return any(flag.partition("=")[0] == f"--{_OPTION}" for flag in flags)


def launch_of(found: argparse.Namespace) -> TemplateLaunch | None:
    """Returns what Dataflow's launcher says; None if no template is launched.

    Args:
        found: The values of Beam's options.

    Raises:
        InvalidError: The options are not of a flex template.
    """
    if not found.template_location:
        return None
    form = _FORM.fullmatch(found.template_location)
    if form is None:
        raise InvalidError(
            f"Beam option '--{_OPTION}': expected gs://BUCKET/FOLDER/template_launches/JOB/"
            f"{DESCRIPTION}, as Dataflow's launcher of flex templates gives it, found "
            f"{found.template_location!r}; take it out, since classic templates are not supported"
        )
    if not found.job_name:
        raise InvalidError(
            f"Beam option '--{_OPTION}': '--job_name' is not set; set it to the job's name"
        )
    return TemplateLaunch(form[1], form[2], found.job_name)


def unleft(launch: TemplateLaunch) -> FailedError:
    """Returns the error of a run whose launcher stays, so that Dataflow never starts the job."""
    return FailedError(
        f"engine dataflow: job {launch.job} of a flex template starts once its launcher has ended; "
        "run with --detach"
    )
