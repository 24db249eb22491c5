"""Facts as commit dc42d60 wrote them, so that what it published and finished is not scored again.

Frozen: it spells what that version spelled, and nothing that came later.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchscore.job import Job
from batchscore.plan.fingerprint import FORMAT, VERSION_OF, sha256_of
from batchscore.stages.preprocess import InputColumns
from batchscore.system.packages import version
from batchscore.worker.spec import Spec

_SCORING = {"scoring": "version 1"}
_NO_INFLUENCE = {"profiles of units": "format 1", f"{VERSION_OF}batchscore": "0.1.0"}
_PACKAGES = ("pyarrow", "numpy", "pandas", "torch", "safetensors")


def is_legacy(facts: Mapping[str, str]) -> bool:
    """Tells whether that version wrote them: later ones name their format."""
    return FORMAT not in facts


def respell(facts: Mapping[str, str], job: Job, spec: Spec) -> dict[str, str]:
    """Returns a job's facts of today in the words of then.

    What is unknown to that version keeps its name, so that it equals nothing of then.
    """
    old = {
        "model inputs": sha256_of([_repr_input(each) for each in spec.scoring.inputs]),
        "input.filters": _repr_filters(job),
        "columns that are read": str(spec.scoring.seen_schema),
    }
    return {name: value for name, value in facts.items() if name != FORMAT} | old


def complete(facts: Mapping[str, str]) -> dict[str, str]:
    """Returns facts of then with what they leave out, and without what changes no score."""
    kept = {name: value for name, value in facts.items() if name not in _NO_INFLUENCE}
    return {**kept, **_SCORING}


def legacy_score(facts: Mapping[str, str], job: Job, spec: Spec) -> str:
    """Returns the hash under which that version, with the packages of today, kept a job's units."""
    old = {k: v for k, v in respell(facts, job, spec).items() if (k, v) not in _SCORING.items()}
    versions = {f"{VERSION_OF}{name}": version(name) for name in _PACKAGES}
    return sha256_of({**old, **_NO_INFLUENCE, **versions})


def _repr_input(each: InputColumns) -> str:
    varying = each.varying and (
        f"Varying(max_length={each.varying.max_length!r}, pad={each.varying.pad!r}, "
        f"truncate={each.varying.truncate!r})"
    )
    return (
        f"InputColumns(name={each.name!r}, dtype={each.dtype!r}, shape={each.shape!r}, "
        f"columns={each.columns!r}, varying={varying})"
    )


def _repr_filters(job: Job) -> str:
    groups = [
        [(name, operator, list(v) if isinstance(v, tuple) else v) for name, operator, v in group]
        for group in job.input.filters
    ]
    return str(groups or None)
