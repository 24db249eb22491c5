"""What one worker process has and sees of a job, tried on a few rows as `check` does."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchscore.errors import FailedError, ShardError
from batchscore.messages.wording import reason
from batchscore.stages.block import Block
from batchscore.stages.read import read_unit
from batchscore.units.unit import Unit
from batchscore.worker.explaining import after_steps, infer_steps
from batchscore.worker.golden import measure_golden
from batchscore.worker.scoring import (
    describe_device,
    load,
    preprocess_step,
)
from batchscore.worker.spec import RunSpec, Spec
from batchscore.worker.versions import versions_here

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOUND = "found"
"""Folder of findings in the store of an inspection."""

Try = Callable[[RunSpec], "DataclassInstance"]
"""What a worker tries, with code and model in folders of its machine; what it found."""


@dataclass(frozen=True)
class Findings:
    """What a process found.

    Args:
        host: Name of its machine.
        pid: Its process id there.
        versions: Its versions, by package.
        device: The device that it computes on.
        rows: Rows that it read and tried.
        scored: Those of them that got scores.
        scores_sha256: SHA-256 of the scores, in the order of the rows.
        seconds: Seconds by step: `read`, `load`, `score`, `write`.
        golden: What its model made of the golden rows; empty if it has none.
    """

    host: str
    pid: int
    versions: dict[str, str]
    device: str
    rows: int
    scored: int
    scores_sha256: str
    seconds: dict[str, float]
    golden: dict[str, Any] = field(default_factory=dict)


def inspect_worker(spec: Spec, unit: Unit, packages: Iterable[str]) -> Findings:
    """Reads a few rows of the input, loads the model, scores them, and tries to write.

    Args:
        spec: With code and model in folders of this machine.
        unit: Of which the first batch is scored.
        packages: Whose versions it returns.

    Raises:
        BatchscoreError: Something of that cannot be done here.
    """
    clock = _Clock()
    block = _first(spec, unit)
    clock.lap("read")
    predictor = load(spec)
    steps = (preprocess_step(spec), infer_steps(spec, predictor), after_steps(spec))
    clock.lap("load")
    scored = block
    for step in steps:
        scored = step(scored)
    digest = _digest(scored)
    clock.lap("score")
    _probe(spec)
    clock.lap("write")
    kept = 0 if scored.values is None else scored.values.num_rows
    device, versions = describe_device(spec), versions_here(packages)
    golden = measure_golden(spec, predictor) or {}
    found = Findings(platform.node(), os.getpid(), versions, device, len(block), kept, digest, {})
    return replace(found, seconds=clock.seconds, golden=golden)


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """Notes the seconds since the lap before."""
        now = time.perf_counter()
        self.seconds[step], self._last = now - self._last, now


def _first(spec: Spec, unit: Unit) -> Block:
    try:
        block = next(read_unit(unit, spec.scoring.source), None)
    except ShardError as error:
        # A shard that the launcher has just read was not removed.
        if isinstance(error.__cause__, (FileNotFoundError, PermissionError)):
            raise FailedError(
                f"the worker on {platform.node()} does not see shard {error.path} "
                f"({reason(error.__cause__)}); name a folder that launcher and workers share "
                "under one path, and may read, or an object store"
            ) from error
        raise
    if block is None or block.end is not None:
        raise FailedError("the rows to try are not there any more; run check again")
    return replace(block, unit=replace(block.unit, id="check"))


def unseen_shard(error: ShardError) -> FailedError:
    """Returns what a worker on another machine says of a planned shard that is not there."""
    return FailedError(
        f"the worker on {platform.node()} does not see shard {error.path}: {error.problem}, if it "
        "was removed or changed after planning; else name a folder that launcher and workers share "
        "under one path, and may read, or an object store"
    )


def _digest(block: Block) -> str:
    if block.values is None:
        return hashlib.sha256(b"").hexdigest()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.values.schema) as writer:
        writer.write_batch(block.values)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _probe(spec: Spec) -> None:
    path = f"probe-{secrets.token_hex(4)}"
    spec.output.write(path, b"", flush=False)
    spec.output.remove(path)


def difference(own: Findings, found: Findings) -> str | None:
    """Returns how a worker's scores differ from the launcher's; None if they are the same.

    Bits are compared on devices of one kind only.
    """
    if (own.rows, own.scored) != (found.rows, found.scored):
        return f"{found.scored} of {found.rows} rows scored, and {own.scored} of {own.rows} here"
    if own.device == found.device and own.scores_sha256 != found.scores_sha256:
        return "other bits, as between kinds of processor or device"
    return None
