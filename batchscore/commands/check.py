"""What `batchscore check` does: a plan, one batch through all stages, and what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscore.errors import HeldError
from batchscore.job import load_job
from batchscore.plan import Plan, Work, make_plan, settle, share_out
from batchscore.plan.places import probe_output
from batchscore.plan.rehearsal import Rehearsal, estimate_seconds, rehearse
from batchscore.plan.verify import verify
from batchscore.runs.lease import describe_holder, holder
from batchscore.runs.publication import pending


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        plan: what the job comes to.
        work: what of it is done, and what a run would do.
        rehearsal: what became of one batch; None where no row is left to score.
        seconds: that scoring is expected to take.
        held_by: who holds the slice at the moment, or None.
        pending: a run whose publication was begun and not finished, or None.
    """

    plan: Plan
    work: Work
    rehearsal: Rehearsal | None
    seconds: float | None
    held_by: str | None
    pending: str | None

    @property
    def status(self) -> str:
        """`held` where a run would be held, by a change or for want of rows, else `ok`."""
        if self.work.unchanged:
            return "ok"
        empty = self.rehearsal is None and not self.plan.spec.allow_empty
        checks = (*self.work.checks, *(self.rehearsal.golden if self.rehearsal else ()))
        return "held" if empty or not all(check.passed for check in checks) else "ok"

    @property
    def exit_code(self) -> int:
        """The exit code that a run would be held with, or 0."""
        return HeldError.exit_code if self.status == "held" else 0

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        plan, work = self.plan, self.work
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "slice": plan.spec.slice,
            "output": plan.spec.output.address,
            "shards": len(plan.shards),
            "rows": sum(shard.rows for shard in plan.shards),
            "pruned_rows": plan.pruned_rows,
            "bytes": plan.input_bytes,
            "units": len(work.units),
            "unit_rows": work.unit_rows,
            "reused_units": len(work.kept) + len(work.resumed),
            "reused_rows": work.reused_rows,
            "changes": asdict(work.changes),
            "checks": [asdict(check) for check in work.checks],
            "bad_shards": [{"path": b.path, "reason": b.reason} for b in plan.bad_files],
            "held_by": self.held_by,
            "pending": self.pending,
            "references": [each.title for each in plan.references.chosen],
            "reference_notes": list(plan.references.notes),
            "workers": plan.workers,
            "choices": plan.choices,
            "estimated_seconds": self.seconds,
            "published_by": work.base["run"] if work.base and work.unchanged else None,
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
    plan = make_plan(load_job(path, params, overrides))
    work = settle(plan)
    plan = verify(share_out(plan, work.units), work.units)
    store, slice_ = plan.spec.output, plan.spec.slice
    if probe:
        probe_output(store)
    rehearsal = rehearse(plan)
    seconds = estimate_seconds(plan, work, rehearsal)
    by, begun = holder(store, slice_), pending(store, slice_)
    return Checked(
        plan,
        work,
        rehearsal,
        seconds,
        describe_holder(store, slice_, by) if by else None,
        begun.run if begun else None,
    )
