"""Whether a night's rows are those of an earlier night again, as of a file that came twice."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.runs.checks import Check
from batchscore.runs.history import read_manifest, runs_before, slice_date
from batchscore.runs.profiles import profile_bytes
from batchscore.worker.spec import RunSpec

LOOKED_AT = 3
"""Earlier nights whose profiles are compared."""
_LEAST = 100  # rows, and values of all columns together: fewer may be the same by chance


@dataclass(frozen=True)
class Repeated:
    """The night whose rows came again.

    Args:
        slice: Its slice.
        run: The run that published it.
    """

    slice: str
    run: str

    @property
    def sentence(self) -> str:
        """What a person should know."""
        return (
            f"the rows are those of {self.slice} again: the profile equals that of run {self.run} "
            "bit for bit. Was a file delivered again? If nights may be the same, set "
            "drift.repeated to off"
        )


def find_repeated(spec: RunSpec, profile: TableProfile) -> Repeated | None:
    """Returns the last night with the same profile; None without any, or if the job does not ask.

    Only nights of a job by date are compared, and tables with enough rows and values to tell.
    """
    if spec.scoring.drift.repeated == "off" or slice_date(spec.slice) is None:
        return None
    if profile.rows < _LEAST or _values(profile) < _LEAST:
        return None
    runs = runs_before(spec.output, spec.slice, spec.job, LOOKED_AT, same_weekday=False)
    digest = hashlib.sha256(profile_bytes(profile)).hexdigest() if runs else ""
    for run in runs:
        with suppress(RecordError):
            earlier = read_manifest(spec.output, run)
            if earlier.profile_sha256 == digest:
                return Repeated(earlier.slice, run)
    return None


def repeated_checks(spec: RunSpec, found: Repeated | None) -> list[Check]:
    """Returns the check that holds a repeated night, if the job wants it held."""
    if found is None or spec.scoring.drift.repeated != "hold":
        return []
    return [Check("repeated", False, found.sentence, "held")]


def _values(profile: TableProfile) -> int:
    """Returns how many different values the columns have together, as far as they are counted."""
    aspects = [aspect for column in profile.columns.values() for aspect in column.aspects.values()]
    return sum(part.key_r.size for aspect in aspects for part in aspect.parts().values())
