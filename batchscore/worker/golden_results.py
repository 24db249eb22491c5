"""What processes made of the golden rows, as they left it in the output for the judge."""

from __future__ import annotations

from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.worker.spec import RunSpec


def golden_prefix(spec: RunSpec) -> str | None:
    """Returns how the paths of golden results begin; None where the model has no golden rows."""
    model = spec.scoring.model
    if model.golden is None:
        return None
    return layout.golden(spec.slice, spec.identity.score, model.sha256[model.golden])


def golden_results(spec: RunSpec) -> list[dict[str, Any]]:
    """Returns what processes that loaded the model made of its golden rows."""
    prefix = golden_prefix(spec)
    if prefix is None:
        return []
    folder, _, start = prefix.rpartition("/")
    names = [name for name in spec.output.names(folder) if name.startswith(start)]
    return [_golden_result(spec, f"{folder}/{name}") for name in names]


def _golden_result(spec: RunSpec, path: str) -> dict[str, Any]:
    try:
        found = spec.output.read_json(path)
        gaps = {str(name): float(gap) for name, gap in found["gaps"].items()}
        return {**found, "rows": int(found["rows"]), "gaps": gaps}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecordError(
            f"golden result {spec.output.url(path)}: damaged ({reason(error)}); remove it, and run "
            "the job again"
        ) from error
