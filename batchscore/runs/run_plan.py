"""The plan of a run as a typed document: what its last step, or who closes it, needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.runs.manifest_model import decode_manifest
from batchscore.runs.manifest_parts import BadShardEntry, RowCounts
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import Count, Moment, decode, require_version

_VERSION = "batchscore_plan"
_NEWEST = 1


@dataclass(frozen=True)
class RunPlan:
    """What a run was planned to do: `_batchscore/work/RUN/plan.json` while the run is open.

    Args:
        facts: What its manifest says from the start: job, slice, model, device and so on.
        pruned_rows: Rows of row groups that the filter excludes.
        inputs: The shards of the input, as a manifest lists them.
        references: What the profile is compared with.
        reference_notes: Why references were left out.
        bad_files: Shards that could not be planned, each with path and reason.
        units: Rows of each unit that is to be scored.
        resumed: Units that an earlier run finished and did not publish.
        kept: Units that stay published.
        base: The run that is published, or None.
        before: The files that are published.
        day_end: The end of the job's day, or None.
        revoked: Runs that were taken back and are published all the same.
        damaged: Units whose files were damaged, and what was wrong.
        shipped: SHA-256 of files that its workers fetch from the output.
        spent: Seconds of the steps before the run was opened; of earlier versions, of the phases.
        submitted: Whether the run goes on without its launcher.
        rejected: Rejected rows of units that the run does not score.
        retention_days: For how many days replaced files are kept; None of earlier versions.
    """

    facts: dict[str, Any]
    pruned_rows: Count
    inputs: list[Any]
    references: list[Any]
    reference_notes: list[str]
    bad_files: list[Any]
    units: dict[str, int]
    resumed: list[str]
    kept: list[str]
    base: str | None
    before: list[str]
    # Plans of commit dc42d60 do not have the following.
    day_end: Moment | None = None
    revoked: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    shipped: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    submitted: bool = False
    rejected: Count = 0
    retention_days: int | None = None

    @property
    def slice(self) -> str:
        """The slice of the run."""
        return str(self.facts["slice"])

    @property
    def score(self) -> str:
        """The hash that names how the run scores rows."""
        return str(self.facts["score"])

    @property
    def started(self) -> str:
        """When the command started, ISO 8601 in UTC."""
        return str(self.facts["started"])

    def read_bad_files(self) -> list[BadShardEntry]:
        """Returns the shards that could not be planned; ValueError if one is damaged."""
        return [decode(BadShardEntry, each) for each in self.bad_files]

    @property
    def shard_rows(self) -> int:
        """Rows of all shards, by their footers."""
        return sum(shard["rows"] for shard in self.inputs)


@dataclass(frozen=True)
class _Head:
    """Facts without which a run cannot be closed."""

    slice: str
    score: str
    started: Moment


def encode_plan(plan: RunPlan) -> bytes:
    """Returns a plan as the bytes of its file."""
    return encode_json({_VERSION: _NEWEST, **vars(plan)})


def read_plan(store: Store, run: str) -> RunPlan:
    """Returns the plan of a run that is open.

    Raises:
        FileNotFoundError: The run was closed, or has not started.
        RecordError: The plan is damaged, or a newer batchscore wrote it.
    """
    path = layout.plan_file(run)
    try:
        facts = store.read_json(path)
        require_version(facts, _VERSION, _NEWEST, f"plan {store.url(path)}")
        plan = decode(RunPlan, facts)
        decode(_Head, plan.facts)
        rows = dict.fromkeys((field.name for field in fields(RowCounts)), 0)
        decode_manifest({**plan.facts, "run": run, "status": "unfinished", "rows": rows}, run)
    except ValueError as error:
        raise RecordError(
            f"plan {store.url(path)}: damaged ({reason(error)}); run the job again"
        ) from error
    return plan
