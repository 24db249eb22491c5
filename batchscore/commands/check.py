"""What `batchscore check` does: a plan, one batch through all stages, and what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscore.commands.run import last_same
from batchscore.errors import HeldError
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan
from batchscore.plan.places import probe_output
from batchscore.plan.rehearsal import Rehearsal, estimate_seconds, rehearse
from batchscore.plan.verify import verify


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        plan: what a run would do.
        rehearsal: what became of one batch; None where no row is left to score.
        seconds: that scoring is expected to take.
        same: the manifest of a run that published the same already, or None.
    """

    plan: Plan
    rehearsal: Rehearsal | None
    seconds: float | None
    same: dict[str, Any] | None

    @property
    def status(self) -> str:
        """`held` where a run would be held for want of rows, else `ok`."""
        empty = self.rehearsal is None and not self.plan.spec.allow_empty
        return "held" if empty and self.same is None else "ok"

    @property
    def exit_code(self) -> int:
        """The exit code that a run would be held with, or 0."""
        return HeldError.exit_code if self.status == "held" else 0

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        plan = self.plan
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "slice": plan.spec.slice,
            "output": plan.spec.output.address,
            "shards": len(plan.shards),
            "rows": sum(shard.rows for shard in plan.shards),
            "pruned_rows": plan.pruned_rows,
            "bytes": plan.input_bytes,
            "units": len(plan.units),
            "unit_rows": plan.unit_rows,
            "workers": plan.workers,
            "choices": plan.choices,
            "estimated_seconds": self.seconds,
            "published_by": self.same["run"] if self.same else None,
            "batch": None if self.rehearsal is None else _jsonable(asdict(self.rehearsal)),
        }


def _jsonable(facts: dict[str, Any]) -> dict[str, Any]:
    example = {name: _plain(value) for name, value in facts["example"].items()}
    return {**facts, "example": example}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, list, type(None))) else str(value)


def check_job(path: str, params: Sequence[str], overrides: Sequence[str], probe: bool) -> Checked:
    """Plans a job and rehearses one batch; writes nothing, but for `probe` one object for a moment.

    Raises:
        InvalidError: something is wrong.
        RetryError: the input is not ready.
    """
    plan = verify(make_plan(load_job(path, params, overrides)))
    if probe:
        probe_output(plan.spec.output)
    rehearsal = rehearse(plan)
    return Checked(plan, rehearsal, estimate_seconds(plan, rehearsal), last_same(plan))
