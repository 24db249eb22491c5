"""Beam's side of the stages: DoFns, the model handler and the coder, without logic of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from batchscore.errors import ShardError
from batchscore.finish.closing import close_run
from batchscore.finish.finish import finish_run
from batchscore.models.process.current import dismiss
from batchscore.runs import layout
from batchscore.runs.ledger import is_finished
from batchscore.runs.manifest_model import FOUND_FINISHED
from batchscore.runs.progress import working_on
from batchscore.stages.block import Block, decode_block, encode_block, settled
from batchscore.stages.read import done_block, read_unit_ahead
from batchscore.storage.retries import persistently
from batchscore.system.beam_import import (
    Coder,
    GlobalWindows,
    Metrics,
    ModelHandler,
    WindowedValue,
    beam,
    registry,
)
from batchscore.units.unit import Unit
from batchscore.worker.arrival import arrived
from batchscore.worker.attempts import Attempts
from batchscore.worker.explaining import after_steps, infer_steps
from batchscore.worker.golden import ensure_golden, record_golden
from batchscore.worker.inspection import FOUND, Try, unseen_shard
from batchscore.worker.log import save_log
from batchscore.worker.presence import attend
from batchscore.worker.scoring import (
    Scorer,
    load,
    preprocess_step,
)
from batchscore.worker.spec import RunSpec
from batchscore.worker.unattended import (
    is_over,
    must_fail,
    recording,
    start_beating,
    stop_beating,
)
from batchscore.worker.versions import Sealed


class BlockCoder(Coder):
    """Arrow IPC for blocks, should an engine ever cut the fused stage apart."""

    def encode(self, value: Block) -> bytes:
        """Packs a block."""
        return encode_block(settled(value))

    def decode(self, encoded: bytes) -> Block:
        """Unpacks a block."""
        return decode_block(encoded)

    def estimate_size(self, value: Block) -> int:
        """Bytes of the block; Beam samples sizes between fused steps too, and would pack it."""
        return value.nbytes

    def is_deterministic(self) -> bool:
        """Blocks are never keys."""
        return False


registry.register_coder(Block, BlockCoder)


class SpecDoFn(Sealed, beam.DoFn):
    """A DoFn of one run; an error that leaves it is written down for the launcher."""

    _spec: RunSpec
    _is_over = False

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec

    def setup(self) -> None:
        """Fetches what the run's workers need of the job, unless another step did."""
        with recording(self._spec):
            attend(self._spec)
            start_beating(self._spec)
            self._is_over = is_over(self._spec)
            if not self._is_over:
                self._spec = arrived(self._spec)

    def teardown(self) -> None:
        """Ends what the process does for the run, with the last step of it."""
        stop_beating(self._spec)


def _nothing(block: Block) -> Block:
    """The step of a run that is over, which gets no blocks."""
    return block


class ReadUnits(SpecDoFn):
    """A unit to its blocks, decoded ahead on a thread."""

    def setup(self) -> None:
        """Gives Arrow this worker's share of the cores; it would take all of the machine's."""
        self._is_elsewhere = self._spec.shipment is not None
        super().setup()
        pa.set_cpu_count(self._spec.scoring.source.threads)

    def process(self, unit: Unit) -> Iterator[Block]:
        """Yields the unit's blocks in order, started again after a bad shard, then its end."""
        spec = self._spec
        with recording(spec):
            if is_over(spec):
                return
            address = layout.record(spec.slice, spec.identity.score, unit.id)
            if is_finished(spec.output, address, spec.identity.run):
                # The engine does its work again: a finished unit is not scored twice.
                Metrics.counter("batchscore", FOUND_FINISHED).inc()
                yield done_block(unit, spec.scoring.source)
                return
            blocks = read_unit_ahead(unit, spec.scoring.source, spec.scoring.max_bad_shards)
            # All steps take a block before the next one is read.
            with working_on(spec.identity.run, unit), closing(blocks), self._telling_of_unseen():
                yield from blocks

    @contextmanager
    def _telling_of_unseen(self) -> Iterator[None]:
        """Says of a shard that cannot be seen here that another machine may see it."""
        try:
            yield
        except ShardError as error:
            unseen = isinstance(error.__cause__, (FileNotFoundError, PermissionError))
            if not self._is_elsewhere or not unseen:
                raise
            raise unseen_shard(error) from error


class TryWorker(SpecDoFn):
    """Tries a few rows on whichever worker gets the element, and writes down what was found."""

    def process(self, element: tuple[int, Try]) -> Sequence[str]:
        """Returns nothing; the launcher reads the findings in the output."""
        number, attempt = element
        with recording(self._spec):
            found = attempt(self._spec)
            self._spec.output.write_json(f"{FOUND}/{number}.json", asdict(found), flush=False)
            return []


class PreprocessBlocks(SpecDoFn):
    """A block's columns to model inputs."""

    def setup(self) -> None:
        """Loads the user's function."""
        super().setup()
        with recording(self._spec):
            self._step = _nothing if self._is_over else preprocess_step(self._spec)

    def process(self, block: Block) -> Sequence[Block]:
        """Returns the block with its model inputs."""
        with recording(self._spec):
            return [self._step(block)]


class NetworkHandler(Sealed, ModelHandler[Block, Block, Scorer]):
    """Calls the network on whole blocks; Beam's batching is left out, its metrics count rows."""

    _spec: RunSpec

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        self._spec = spec

    def load_model(self) -> Scorer:
        """Loads the weights, once a process, and scores the golden rows with them."""
        with recording(self._spec):
            if is_over(self._spec):
                return Scorer(None, _nothing)
            spec = arrived(self._spec)
            predictor = load(spec)
            record_golden(spec, predictor)
            return Scorer(predictor, infer_steps(spec, predictor, late=True))

    def run_inference(
        self,
        batch: Block,  # type: ignore[override]
        model: Scorer,
        inference_args: dict[str, Any] | None = None,
    ) -> list[Block]:
        """Returns the block with model outputs in place of inputs; from a GPU they come late."""
        with recording(self._spec):
            return [model.step(batch)]

    def should_skip_batching(self) -> bool:
        """A block is a batch already."""
        return True

    def get_num_bytes(self, batch: Block) -> int:  # type: ignore[override]
        """Bytes of the block, without pickling it."""
        return batch.nbytes

    def get_metrics_namespace(self) -> str:
        """Under which Beam counts inferences, latencies and bytes."""
        return "batchscore"


class PostprocessBlocks(SpecDoFn):
    """A block's model outputs to scores."""

    def setup(self) -> None:
        """Loads the user's functions."""
        super().setup()
        with recording(self._spec):
            self._step = _nothing if self._is_over else after_steps(self._spec)

    def process(self, block: Block) -> Sequence[Block]:
        """Returns the block with its scores."""
        with recording(self._spec):
            return [self._step(block)]


class WriteUnits(SpecDoFn):
    """Blocks to staged files and profiles; when a unit is whole, the address of its record."""

    def setup(self) -> None:
        """Begins to count rows for the launcher."""
        super().setup()
        self._attempts = Attempts(self._spec)

    def process(self, block: Block) -> Sequence[str]:
        """Returns the addresses of records that were completed in the meantime."""
        with recording(self._spec):
            return self._attempts.take(block)

    def finish_bundle(self) -> Sequence[WindowedValue]:
        """Returns the addresses of the other records of the bundle."""
        with recording(self._spec):
            done = [GlobalWindows.windowed_value(a) for a in self._attempts.complete()]
            save_log()
            return done

    def teardown(self) -> None:
        """Closes attempts that a failure left open."""
        self._attempts.close()
        save_log()
        super().teardown()


class Finish(SpecDoFn):
    """All records' addresses to a published run."""

    def process(self, addresses: Sequence[str]) -> Sequence[dict[str, Any]]:
        """Returns the manifest that was written, as JSON."""
        with persistently(), recording(self._spec):
            if not is_over(self._spec):
                ensure_golden(self._spec)
            # All rows are scored: the system takes the memory back while the run is finished.
            dismiss()
            found = finish_run(self._spec, addresses, must_fail(self._spec))
            if self._spec.identity.submitted:
                found = close_run(self._spec, found)
            save_log()
            return [found.document]
