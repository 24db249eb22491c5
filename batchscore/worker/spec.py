"""What the job asks for, how it is executed, which run it is, and what travels to its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from batchscore.drift.column import Hint
from batchscore.job import AnyStep, Checks, Drift, Job, Preprocess, Rejects
from batchscore.models.loadable import Model
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.stages.reasons import Explaining
from batchscore.stages.typeless import Types
from batchscore.stages.write import Target
from batchscore.storage.by_content import Content
from batchscore.storage.store import Store


@dataclass(frozen=True)
class Scoring:
    """What is read, scored, written and required; it decides rows, scores and checks.

    Args:
        base: Folder that user code is relative to.
        code: SHA-256 of each file there that user code may import or read, by path.
        source: How units are read.
        model: Computes the outputs that scores are made of.
        inputs: How model inputs are stacked, where the model has no features of its own.
        preprocess: A user's function before the model, or None.
        postprocess: Steps after the model, in order.
        target: What is written of each block.
        rejects: How many rows may be rejected.
        checks: What the result must satisfy.
        drift: How its profile is judged.
        model_columns: Input columns that the model reads.
        hints: What is known of score columns, for their profiles.
        allow_empty: Whether no rows to score is a result.
        max_bad_shards: Bad shards that may be left out; 0 if a bad shard fails the run.
        reasons: What is explained of each row, or None.
        scores: Types of score columns, as a sample showed them; for batches without a value.
    """

    base: str
    code: Mapping[str, str]
    source: Source
    model: Model
    inputs: tuple[InputColumns, ...]
    preprocess: Preprocess | None
    postprocess: tuple[AnyStep, ...]
    target: Target
    rejects: Rejects
    checks: Checks
    drift: Drift
    model_columns: tuple[str, ...]
    hints: Mapping[str, Hint]
    allow_empty: bool
    max_bad_shards: int
    reasons: Explaining | None = None
    scores: Types = field(default_factory=dict)

    @property
    def seen_schema(self) -> pa.Schema:
        """The source columns without those that are read for checks alone."""
        schema, hidden = self.source.schema, self.target.hidden
        return pa.schema([field for field in schema if field.name not in hidden])


@dataclass(frozen=True)
class Execution:
    """How scores are computed, and when it is given up.

    Args:
        device: `cpu` or `cuda`; `auto` until the plan is verified.
        precision: What the network computes with.
        compile: Whether the network is compiled.
        kernels: The kernels that the network computes with; `fastest` until the plan is verified.
        call_rows: Rows per network call.
        auto_rows: Whether batchscore chose them.
        tile_threads: Tiles that one worker computes at the same time.
        max_rejects: Rejected rows of all that is to be published; one more fails the run.
        fresh: Whether nothing that was scored before is published with what is scored now.
        model_process: Whether the model is in a process of its own.
        model_timeout_s: Seconds after which that process is taken to hang.
    """

    device: str
    precision: str
    compile: bool
    kernels: str
    call_rows: int
    auto_rows: bool
    tile_threads: int
    max_rejects: int
    fresh: bool
    model_process: bool
    model_timeout_s: float


@dataclass(frozen=True)
class RunIdentity:
    """Which run it is, known once the run holds its slice.

    Args:
        run: Name of the run.
        lease: Number of the lease under which the run holds its slice.
        score: Hash of all that decides a row's scores; units scored one way share a ledger.
        submitted: Whether the run goes on without its launcher. Its workers then renew the lease,
            and its last step does what a launcher does at the end.
    """

    run: str
    lease: int
    score: str
    submitted: bool = False


@dataclass(frozen=True)
class Shipment:
    """What the launcher has and workers fetch by content, since they share nothing but the output.

    Args:
        code: Files of the job's folder that user code may import or read, by path.
        model: Files of a model on the launcher's disk, by name; none if the model is elsewhere.
        profiles: Profiles on the launcher's disk that the run's is compared with, by address.
        versions: The launcher's versions, which a worker must have, by package.
        launcher: The launcher's process.
    """

    code: Mapping[str, Content]
    model: Mapping[str, Content]
    profiles: Mapping[str, Content]
    versions: Mapping[str, str]
    launcher: str = ""

    @property
    def names(self) -> list[str]:
        """SHA-256 of each file, sorted."""
        files = (*self.code.values(), *self.model.values(), *self.profiles.values())
        return sorted({content.sha256 for content in files})


@dataclass(frozen=True)
class Spec:
    """What the stages need; a plan has one, and needs no run to try it.

    Args:
        job: Name of the job, which all of its slices share.
        slice: Name of the job with its parameters.
        output: Where the result is published.
        scoring: What is scored.
        execution: How it is scored.
    """

    job: str
    slice: str
    output: Store
    scoring: Scoring
    execution: Execution


@dataclass(frozen=True)
class RunSpec(Spec):
    """One run, as its workers need it; picklable, and small whatever the input's size.

    Args:
        identity: Which run it is.
        shipment: What workers fetch; None for an engine whose workers see what the launcher sees.
        profiles: Copies of profiles on this machine, by the address of what was copied.
    """

    identity: RunIdentity
    shipment: Shipment | None = None
    profiles: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names what a process keeps of it."""
        return self.identity.run


@dataclass(frozen=True)
class ElementSpec(Spec):
    """A job that scores the elements of another pipeline, as its workers need it; picklable.

    It belongs to no run. `output` is where workers fetch its shipment from, and nothing else.

    Args:
        asked: The job, which each batch's columns are compared with.
        declared: Types that columns of the elements are cast to, by name.
        key: Names what a process keeps of it.
        shipment: What workers fetch; None if they see what the launcher sees.
    """

    asked: Job
    declared: pa.Schema
    key: str
    shipment: Shipment | None = None


SentSpec: TypeAlias = RunSpec | ElementSpec
"""What is pickled for workers."""
