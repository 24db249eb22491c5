"""What one worker process has and sees of a job, tried on a few rows as `check` does."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from batchscore.errors import FailedError, ShardError
from batchscore.messages.wording import reason
from batchscore.stages.block import Block
from batchscore.stages.read import read_unit
from batchscore.units.unit import Unit
from batchscore.worker.scoring import infer_step, load, postprocess_step, preprocess_step
from batchscore.worker.spec import Spec
from batchscore.worker.versions import versions_here

FOUND = "found"
"""Folder of findings in the store of an inspection."""


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
    """

    host: str
    pid: int
    versions: dict[str, str]
    device: str
    rows: int
    scored: int
    scores_sha256: str
    seconds: dict[str, float]


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
    steps = (preprocess_step(spec), infer_step(spec, predictor), postprocess_step(spec))
    clock.lap("load")
    scored = block
    for step in steps:
        scored = step(scored)
    digest = _digest(scored)
    clock.lap("score")
    _probe(spec)
    clock.lap("write")
    kept = 0 if scored.values is None else scored.values.num_rows
    device = spec.execution.device
    versions = versions_here(packages)
    return Findings(
        platform.node(), os.getpid(), versions, device, len(block), kept, digest, clock.seconds
    )


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
    """Returns how a worker's scores differ from the launcher's; None if they are the same."""
    if (own.rows, own.scored) != (found.rows, found.scored):
        return f"{found.scored} of {found.rows} rows scored, and {own.scored} of {own.rows} here"
    if own.scores_sha256 != found.scores_sha256:
        return "other bits, as between kinds of processor or device"
    return None
