"""Blocks become units' files, profiles and records; a unit ends while the next one starts."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from batchscore.errors import StoppedError
from batchscore.runs import layout
from batchscore.runs.lease import holds
from batchscore.runs.ledger import enter
from batchscore.runs.progress import Counts, Pulse
from batchscore.stages.block import Block, End, settled
from batchscore.units.unit import Unit
from batchscore.worker.presence import is_worker, used_so_far
from batchscore.worker.scoring import UnitOutput, make_attempt, open_unit
from batchscore.worker.spec import RunSpec

_BLOCKS_LATE = 2


class Arrivals:
    """Blocks in their order, once their results are there; the last two may wait for a device."""

    def __init__(self) -> None:
        self._late: deque[Block] = deque()

    def after(self, block: Block) -> Iterator[Block]:
        """Takes the next block; yields those that are awaited now: all of them at a unit's end."""
        self._late.append(block)
        while self._late and (
            block.end is not None or not self._late[0].pending or len(self._late) > _BLOCKS_LATE
        ):
            yield settled(self._late.popleft())

    def rest(self) -> Iterator[Block]:
        """Yields the blocks that are left, where no end comes."""
        while self._late:
            yield settled(self._late.popleft())


class Attempts:
    """Attempts at units, one after another, of one worker of a run."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._pulse = Pulse(spec.output, spec.identity.run)
        self._open: dict[str, UnitOutput] = {}
        self._counts: dict[str, Counts] = {}
        self._arrivals = Arrivals()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="end")
        self._ending: Future[str] | None = None
        self._ended: list[str] = []

    def take(self, block: Block) -> list[str]:
        """Takes the next block; returns the addresses of records that were made in the meantime.

        A unit's last files, profile and record are made while the next unit is scored.

        Raises:
            StepError: A step that a block went through late failed, or writing one did.
            StoppedError: The run does not hold its slice any more, or its launcher stopped it.
        """
        for arrived in self._arrivals.after(block):
            if arrived.end is not None:
                self._end(arrived, arrived.end)
            else:
                self._output(arrived.unit, arrived.sequence).writer.add(arrived)
                self._count(arrived)
        return self._collect(wait=False)

    def complete(self) -> list[str]:
        """Waits for all units that came to their end; returns their records' addresses."""
        ended = self._collect(wait=True)
        if is_worker(self._spec):
            self._pulse.note_used(used_so_far(self._spec))
        return ended

    def close(self) -> None:
        """Closes attempts that a failure left open."""
        self._pool.shutdown()
        for output in self._open.values():
            output.writer.abort()

    def _output(self, unit: Unit, sequence: int) -> UnitOutput:
        if sequence == 0 and unit.id in self._open:
            # The unit is done again from its start: what was started counts for nothing.
            self._open.pop(unit.id).writer.discard()
            counted = self._counts.pop(unit.id)
            self._pulse.add(-counted.rows, -counted.rejected)
        if unit.id not in self._open:
            attempt = make_attempt(self._spec, unit, f"{unit.id}-{secrets.token_hex(4)}")
            self._open[unit.id] = open_unit(self._spec, attempt)
            self._counts[unit.id] = Counts()
        return self._open[unit.id]

    def _count(self, block: Block) -> None:
        rejected = sum(len(reject.rows_r) for reject in block.rejects)
        rows = len(block) + rejected
        before = self._counts[block.unit.id]
        self._counts[block.unit.id] = Counts(before.rows + rows, before.rejected + rejected)
        self._pulse.add(rows, rejected, block.unit.id)

    def _end(self, block: Block, end: End) -> None:
        start = time.perf_counter()
        # One at a time, so that no more than two units are in memory.
        self._note_ended(wait=True)
        waited = time.perf_counter() - start
        unit = block.unit
        address = layout.record(self._spec.slice, self._spec.identity.score, unit.id)
        if end.done:
            self._ended.append(address)
            return
        output = self._output(unit, block.sequence)
        output.writer.note(block.seconds)
        output.writer.note({"wait_write": waited, "passing": waited})
        del self._open[unit.id], self._counts[unit.id]
        self._ending = self._pool.submit(self._finish, output, end, address)

    def _finish(self, output: UnitOutput, end: End, address: str) -> str:
        spec = self._spec
        try:
            record = output.writer.finish(end)
            # A worker that outlived its launcher leaves the ledger to whoever took the slice over.
            if not holds(spec.output, spec.slice, spec.identity.lease, spec.identity.run):
                # The launcher, if it is still there, finds out and reports why.
                output.writer.discard()
                raise StoppedError(f"run {spec.identity.run} does not hold its slice any more")
            if not enter(spec.output, address, record, output.profile):
                output.writer.discard()
        except BaseException:
            output.writer.abort()
            raise
        return address

    def _collect(self, wait: bool) -> list[str]:
        self._note_ended(wait)
        ended, self._ended = self._ended, []
        return ended

    def _note_ended(self, wait: bool) -> None:
        if self._ending is not None and (wait or self._ending.done()):
            ending, self._ending = self._ending, None
            self._ended.append(ending.result())
