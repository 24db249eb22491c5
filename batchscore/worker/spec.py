"""What every worker of one run is given: where to read, what to score with, where to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from batchscore.drift.column import Hint
from batchscore.job import AnyStep, Checks, Drift, Preprocess, Rejects
from batchscore.models.folder import Model
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.stages.typeless import Types
from batchscore.stages.write import Target
from batchscore.storage.store import Store


@dataclass(frozen=True)
class RunSpec:
    """One run, as its workers need it; picklable, and small whatever the input's size.

    Args:
        run: names the run.
        job: its name, which all of its slices share.
        slice: the job with its parameters.
        score: hash of all that decides a row's scores; units scored one way share a ledger.
        lease: the number under which the run holds its slice.
        base: folder that user code is relative to.
        code: SHA-256 of each file there that user code may import or read, by path.
        output: where it is written.
        source: how units are read.
        model: what scores.
        inputs: how model inputs are stacked, where the model has no features of its own.
        preprocess: a user's function before the model, or None.
        postprocess: steps after the model, in order.
        target: what is written of each block.
        device: cpu or cuda, resolved.
        precision: that the network computes with.
        compile: whether it is compiled.
        call_rows: that it sees at once.
        auto_rows: whether the run chose them itself.
        tile_threads: tiles side by side in one worker.
        rejects: how many rows may be rejected.
        max_rejects: the same in rows, for all that the run is to publish.
        fresh: whether nothing that was scored before is published with what the run scores.
        checks: what the result must pass.
        drift: how its profile is judged.
        model_columns: input columns that the model reads.
        hints: what is known of score columns, for their profiles.
        allow_empty: whether no rows to score is a result.
        max_bad_shards: that may be left out; 0 where a bad shard fails the run.
        scores: types of score columns, as a sample showed them; for batches without a value.
    """

    run: str
    job: str
    slice: str
    score: str
    lease: int
    base: str
    code: Mapping[str, str]
    output: Store
    source: Source
    model: Model
    inputs: tuple[InputColumns, ...]
    preprocess: Preprocess | None
    postprocess: tuple[AnyStep, ...]
    target: Target
    device: str
    precision: str
    compile: bool
    call_rows: int
    auto_rows: bool
    tile_threads: int
    rejects: Rejects
    max_rejects: int
    fresh: bool
    checks: Checks
    drift: Drift
    model_columns: tuple[str, ...]
    hints: Mapping[str, Hint]
    allow_empty: bool
    max_bad_shards: int
    scores: Types = field(default_factory=dict)

    @property
    def seen_schema(self) -> pa.Schema:
        """The source columns without those that are read for checks alone."""
        schema, hidden = self.source.schema, self.target.hidden
        return pa.schema([field for field in schema if field.name not in hidden])
