"""The least that a run can cost: CPU-seconds of each piece of its work, one after the other.

    python -m benchmarks.floor JOB

Every piece is done by the functions or with the options that the product uses, on one thread, over
the whole input: decode (Arrow's batches of the rows that the plan chose), stack (columns to model
inputs), forward (the network on tiles, and postprocess), profile (of all columns and the score),
encode (Parquet of all that is written), hash (SHA-256 of the bytes of the file).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.drift.table import TableProfile
from batchscore.job import load_job
from batchscore.models.backends.facts import TILE_ROWS
from batchscore.models.backends.torch.load import Network, load_network
from batchscore.plan import Plan, make_plan
from batchscore.stages.block import Block
from batchscore.stages.encoding import choose_encoding
from batchscore.stages.leaves import LeafLookup
from batchscore.stages.preprocess import stack_columns
from batchscore.stages.read import open_shard
from batchscore.stages.scored_files import ROW_GROUP_ROWS
from batchscore.stages.write import scored_batch
from batchscore.units.unit import pack_units
from batchscore.worker.scoring import postprocess_step

PIECES = ("decode", "stack", "forward", "profile", "encode", "hash")


class Clock:
    """CPU-seconds of this process by piece."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PIECES, 0.0)

    @contextmanager
    def counted(self, piece: str) -> Iterator[None]:
        """Counts what is spent inside under a piece."""
        start = time.process_time()
        yield
        self.seconds[piece] += time.process_time() - start


def measure_pieces(job: Path) -> dict[str, float]:
    """Returns the CPU-seconds of each piece of a job's work."""
    plan = make_plan(load_job(str(job), (), ()))
    clock, profile = Clock(), TableProfile(hints=plan.spec.scoring.hints)
    with tempfile.TemporaryDirectory(dir=job.parent) as home:
        path = Path(home) / "scored.parquet"
        _encode(_scored(plan, profile, clock), path, clock)
        data = path.read_bytes()
        with clock.counted("hash"):
            hashlib.sha256(data)
    return clock.seconds


def _scored(plan: Plan, profile: TableProfile, clock: Clock) -> Iterator[pa.RecordBatch]:
    """Yields what is written of each block, all but written and hashed."""
    spec, post = plan.spec, postprocess_step(plan.spec)
    network = load_network(spec.scoring.model, "cpu")
    torch.set_num_threads(1)
    for block in _blocks(plan, clock):
        with clock.counted("stack"):
            stacked = stack_columns(block, spec.scoring.inputs)
        with clock.counted("forward"):
            scored = post(_forward(stacked, network))
        assert scored.values is not None
        fields = [*scored.batch.schema, *scored.values.schema]
        columns = [*scored.batch.columns, *scored.values.columns]
        with clock.counted("profile"):
            profile.update(pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)))
        yield scored_batch(scored, spec.scoring.target)


def _blocks(plan: Plan, clock: Clock) -> Iterator[Block]:
    source, unit = plan.spec.scoring.source, pack_units(list(plan.pieces), 1 << 40)[0]
    lookup = LeafLookup(source.schema)
    for piece in plan.pieces:
        with open_shard(piece.shard.path) as file:
            groups, leaves = list(piece.row_groups), lookup.leaves(file, source.schema.names)
            batches = file.iter_batches(source.batch_rows, groups, leaves.read, use_threads=False)
            while True:
                with clock.counted("decode"):
                    batch = next(batches, None)
                if batch is None:
                    break
                rows_b = to_arrow(np.arange(batch.num_rows, dtype=np.int64))
                yield Block(unit, 0, rows_b, batch)


def _forward(block: Block, network: Network) -> Block:
    """Returns a block with the network's output, of tiles of at most 1,024 rows."""
    assert block.values is not None
    names, columns = block.values.schema.names, block.values.columns
    inputs = {name: torch.from_numpy(to_numpy(c)) for name, c in zip(names, columns, strict=True)}
    logits_b = np.empty(len(block), np.float32)
    with torch.inference_mode():
        for start in range(0, len(block), TILE_ROWS):
            tile = slice(start, start + TILE_ROWS)
            logits_b[tile] = network({name: each[tile] for name, each in inputs.items()}).numpy()
    return replace(block, values=pa.record_batch([to_arrow(logits_b)], names=["logit"]))


def _encode(batches: Iterator[pa.RecordBatch], path: Path, clock: Clock) -> None:
    """Writes batches to one file, in row groups as the product's and encoded as it would."""
    groups = _row_groups(batches)
    first = next(groups)
    with clock.counted("encode"):
        options = choose_encoding(first)
    with pq.ParquetWriter(path, first.schema, **options) as writer:
        for group in chain([first], groups):
            with clock.counted("encode"):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending = list[pa.RecordBatch]()
    for batch in batches:
        pending.append(batch)
        if sum(each.num_rows for each in pending) >= ROW_GROUP_ROWS:
            yield pa.Table.from_batches(pending)
            pending = []
    if pending:
        yield pa.Table.from_batches(pending)


def main() -> None:
    """Prints the pieces of a job as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    print(json.dumps(measure_pieces(parser.parse_args().job)))


if __name__ == "__main__":
    main()
