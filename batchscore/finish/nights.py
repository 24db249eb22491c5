"""The profiles of the nights before a run's, by whose differences its own is judged."""

from __future__ import annotations

from contextlib import suppress

from batchscore.drift.between_nights import LOOKED_AT
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.runs.history import read_manifest, runs_before, slice_date
from batchscore.runs.profiles import read_run_profile
from batchscore.worker.spec import RunSpec


def read_nights(spec: RunSpec) -> list[TableProfile]:
    """Returns the profiles of the last published nights of a job by date, the oldest first.

    A job without a date has none. What is gone or damaged is left out.
    """
    if slice_date(spec.slice) is None:
        return []
    found = []
    for run in runs_before(spec.output, spec.slice, spec.job, LOOKED_AT, same_weekday=False):
        with suppress(RecordError):
            found.append(read_run_profile(spec.output, read_manifest(spec.output, run)))
    return found[::-1]
