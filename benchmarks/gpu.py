"""The stage that infers, against a careful loop over a DataLoader, on one GPU.

    python -m benchmarks.gpu                        needs a GPU, torch and pyarrow, no Beam
    python -m benchmarks.gpu --device cpu --small   the whole of it, to see that it works

Both read the same Arrow files, mapped into memory, and score them with the same network in the same
precision, in turns; figures are the medians. What Parquet, Beam, statistics and writing cost is no
part of it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from batchscore.columnar.arrays import Array, ragged_from_arrow, ragged_to_arrow, to_arrow, to_numpy
from batchscore.columnar.ragged import Varying, make_ragged, take_steps
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.measure import find_rows, first_rows
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.precision import computing
from batchscore.models.backends.torch.staging import Staging
from batchscore.stages.ahead import read_ahead
from batchscore.stages.block import Block, settled
from batchscore.stages.infer import DeviceThread, infer_late
from batchscore.stages.infer.step import inputs_of
from batchscore.units.unit import Piece, Shard, Unit
from benchmarks.gpu_networks import FEATURES, SMALL, VOCABULARY, WHOLE, MiniLm, Mlp, ResNet, Size

_AHEAD = 2
_LATE = 2
_MOST_GAP = 0.05


@dataclass(frozen=True)
class Work:
    """What is scored.

    Args:
        name: Name of the row in the table.
        build: Makes the network.
        fill: Makes the column `x` of so many rows.
        rows: Rows of all batches.
        batch_rows: Rows of one batch.
        loop_rows: Batch sizes of the loop, of which the fastest counts.
        varying: How rows of varying length are declared.
    """

    name: str
    build: Callable[[Size], torch.nn.Module]
    fill: Callable[[np.random.Generator, Size, int], pa.Array]
    rows: int
    batch_rows: int
    loop_rows: tuple[int, ...]
    varying: Mapping[str, Varying] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """One pass over all rows: its seconds, the share of them that the device computed, scores."""

    seconds: float
    busy: float
    scores: Array


def _numbers(rng: np.random.Generator, _: Size, rows: int) -> pa.Array:
    return to_arrow(rng.standard_normal((rows, FEATURES), dtype=np.float32))


def _images(rng: np.random.Generator, size: Size, rows: int) -> pa.Array:
    return to_arrow(rng.integers(0, 256, (rows, 3 * size.image**2), dtype=np.uint8))


def _texts(rng: np.random.Generator, size: Size, rows: int) -> pa.Array:
    lengths_b = np.clip(rng.lognormal(3.2, 0.8, rows), 4, size.tokens).astype(np.int64)
    return ragged_to_arrow(make_ragged(rng.integers(1, VOCABULARY, lengths_b.sum()), lengths_b))


def works(size: Size) -> tuple[Work, ...]:
    """Returns what is scored at a size."""
    varying = {"x": Varying(max_length=size.tokens)}
    if size is SMALL:
        return (
            Work("mlp", Mlp, _numbers, 40_000, 8192, (4096,)),
            Work("resnet", ResNet, _images, 600, 256, (64,)),
            Work("minilm", MiniLm, _texts, 1500, 512, (64,), varying),
        )
    return (
        Work("mlp", Mlp, _numbers, 8_000_000, 65_536, (8192, 65_536)),
        Work("resnet", ResNet, _images, 16_384, 1024, (128, 256)),
        Work("minilm", MiniLm, _texts, 400_000, 16_384, (256, 1024), varying),
    )


def write_rows(work: Work, size: Size, path: Path) -> None:
    """Writes the rows as an Arrow file of some batches."""
    rng = np.random.default_rng(7)
    kind = pa.schema([("x", work.fill(rng, size, 1).type)])
    with pa.ipc.new_file(str(path), kind) as writer:
        for start in range(0, work.rows, work.batch_rows):
            rows = min(work.batch_rows, work.rows - start)
            writer.write_batch(pa.record_batch([work.fill(rng, size, rows)], schema=kind))


def read_batches(path: Path, part: int = 0, parts: int = 1) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields each so many-th batch of a file and its number, mapped into memory."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(part, reader.num_record_batches, parts):
            yield number, reader.get_batch(number)


class Busy:
    """Calls a network and adds up for how long the device computed."""

    def __init__(self, call: Callable[[dict[str, torch.Tensor]], Any], device: str) -> None:
        self._call, self._cuda = call, device.startswith("cuda")
        self._events: list[tuple[Any, Any]] = []
        self._seconds = 0.0

    def __call__(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Returns what the network makes of the tensors."""
        if not self._cuda:
            start = time.perf_counter()
            made = self._call(tensors)
            self._seconds += time.perf_counter() - start
            return made
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        made = self._call(tensors)
        end.record()
        self._events.append((begin, end))
        return made

    def seconds(self) -> float:
        """Returns the seconds of all calls; waits for them."""
        if self._cuda:
            torch.cuda.synchronize()
        return self._seconds + float(sum(a.elapsed_time(b) for a, b in self._events)) / 1000


def score_stage(
    work: Work, path: Path, network: torch.nn.Module, device: str, precision: str, rows: int
) -> Scored:
    """Scores all rows as a worker of a run does: read ahead, a device's thread, late results."""
    busy = Busy(lambda tensors: network(tensors["x"]), device)
    calls = MicroBatches(Staging(device), work.name, lambda _: None)
    forward = _forward(work, busy, device, precision, rows, calls)
    step = partial(infer_late, thread=DeviceThread(forward), recover=_no_rescue)
    late: deque[Block] = deque()
    parts: list[Array] = []
    start = time.perf_counter()
    for block in read_ahead(_blocks(work, path), _AHEAD):
        late.append(step(block))
        if len(late) > _LATE:
            parts.append(_score_of(settled(late.popleft())))
    parts += [_score_of(settled(block)) for block in late]
    spent = time.perf_counter() - start
    return Scored(spent, busy.seconds() / spent, np.concatenate(parts))


def _forward(
    work: Work, call: Any, device: str, precision: str, rows: int, calls: MicroBatches | None
) -> Forward:
    begin = calls.begin if calls else None
    return Forward(call, (), device, 1, rows, precision, begin, work.varying)


def _blocks(work: Work, path: Path) -> Iterator[Block]:
    unit = Unit("all", (Piece(Shard(str(path), 0, "", work.rows), (0,), (0,), (work.rows,)),))
    for number, batch in read_batches(path):
        rows_b = to_arrow(np.arange(batch.num_rows, dtype=np.int64))
        yield Block(unit, number, rows_b, batch.select([]), values=batch)


def _no_rescue(block: Block) -> Block:
    raise RuntimeError(f"batch {block.sequence} could not be scored")


def _score_of(block: Block) -> Array:
    assert block.values is not None
    return to_numpy(block.values.column(0))


class _Rows(IterableDataset[tuple[Array, torch.Tensor]]):
    """Batches of one size as tensors, with their rows' places in the file.

    Each worker of the loader takes each so many-th part of the file; in one, rows of varying length
    are sorted by it, so that a batch has little padding.
    """

    def __init__(self, work: Work, path: Path, rows: int) -> None:
        self._work, self._path, self._rows = work, path, rows

    def __iter__(self) -> Iterator[tuple[Array, torch.Tensor]]:
        info = get_worker_info()
        part, parts = (info.id, info.num_workers) if info else (0, 1)
        for number, batch in read_batches(self._path, part, parts):
            column, first = batch.column(0), number * self._work.batch_rows
            take = _take_sorted if self._work.varying else _take
            for places, tensor in take(column, self._rows):
                yield first + places, tensor


def _take(column: pa.Array, rows: int) -> Iterator[tuple[Array, torch.Tensor]]:
    numbers = to_numpy(column)
    for start in range(0, len(numbers), rows):
        some = numbers[start : start + rows]
        yield np.arange(start, start + len(some)), torch.from_numpy(some.copy())


def _take_sorted(column: pa.Array, rows: int) -> Iterator[tuple[Array, torch.Tensor]]:
    """Yields rows from the shortest on, each batch padded to its longest."""
    assert isinstance(column, pa.LargeListArray)
    ragged = ragged_from_arrow(column)
    lengths_b = ragged.lengths_b
    order_b = np.argsort(lengths_b, kind="stable")
    for start in range(0, len(order_b), rows):
        places = order_b[start : start + rows]
        lengths_t = lengths_b[places]
        padded = np.zeros((len(places), lengths_t.max()), ragged.dtype)
        own_tl = np.arange(padded.shape[1]) < lengths_t[:, None]
        padded[own_tl] = take_steps(ragged.steps_n, ragged.offsets[places], lengths_t)
        yield places, torch.from_numpy(padded)


def make_loader(work: Work, path: Path, device: str, rows: int) -> DataLoader[Any]:
    """Returns a loader whose workers stay from one pass to the next."""
    cuda = device.startswith("cuda")
    return DataLoader(
        _Rows(work, path, rows),
        batch_size=None,
        num_workers=8 if cuda else 2,
        pin_memory=cuda,
        prefetch_factor=4,
        persistent_workers=True,
    )


def score_loop(
    work: Work, loader: DataLoader[Any], network: torch.nn.Module, device: str, precision: str
) -> Scored:
    """Scores all rows as a careful engineer does: loader workers, pinned memory, autocast.

    Scores stay on the device until the end, so that no batch is waited for.
    """
    busy = Busy(lambda tensors: network(tensors["x"]), device)
    places: list[Array] = []
    made: list[torch.Tensor] = []
    start = time.perf_counter()
    with torch.inference_mode(), computing(device, precision):
        for some, batch in loader:
            places.append(np.asarray(some))
            made.append(busy({"x": batch.to(device, non_blocking=True)}))
        found = torch.cat(made).float().cpu().numpy()
    scores = np.empty_like(found)
    scores[np.concatenate(places)] = found
    spent = time.perf_counter() - start
    return Scored(spent, busy.seconds() / spent, scores)


def compare(work: Work, size: Size, device: str, precision: str, rounds: int, folder: Path) -> str:
    """Returns a line of the table: both in turns, the loop with the faster of its batch sizes.

    The first pass of each is not counted: workers, kernels and memory are there with the second.
    """
    path = folder / f"{work.name}.arrow"
    write_rows(work, size, path)
    torch.manual_seed(7)
    network = work.build(size).eval().requires_grad_(False).to(device)
    found = _find_rows(work, path, network, device, precision)
    ways: dict[str, Callable[[], Scored]] = {
        f"loop {rows}": partial(
            score_loop, work, make_loader(work, path, device, rows), network, device, precision
        )
        for rows in work.loop_rows
    }
    ways["stage"] = partial(score_stage, work, path, network, device, precision, found)
    done: dict[str, list[Scored]] = {name: [] for name in ways}
    for number in range(1 + rounds):
        for name, score in ways.items():
            scored = score()
            if number:
                done[name].append(scored)
    path.unlink()
    return _line(work, precision, found, done)


def _find_rows(
    work: Work, path: Path, network: torch.nn.Module, device: str, precision: str
) -> int:
    inputs = inputs_of(next(_blocks(work, path)))
    rows = min(work.rows, work.batch_rows)
    call = _forward(work, lambda t: network(t["x"]), device, precision, 1, None)
    return find_rows(call, inputs, rows, first_rows(inputs, rows))


def _line(work: Work, precision: str, found: int, done: Mapping[str, Sequence[Scored]]) -> str:
    medians = {name: statistics.median(s.seconds for s in each) for name, each in done.items()}
    loop = min((name for name in done if name != "stage"), key=lambda name: medians[name])
    speeds = [work.rows / s.seconds for s in done["stage"]]
    gap = _gap(work, done["stage"][0].scores, done[loop][0].scores)
    busy = {name: statistics.median(s.busy for s in done[name]) for name in ("stage", loop)}
    return (
        f"{work.name:<8}{precision:<9}{found:>8,}{work.rows / medians['stage']:>14,.0f}"
        f"{min(speeds):>14,.0f}{max(speeds):>14,.0f}{busy['stage']:>7.0%}"
        f"{loop:>12}{work.rows / medians[loop]:>14,.0f}{busy[loop]:>7.0%}"
        f"{medians[loop] / medians['stage']:>8.2f}{gap:>10.1e}"
    )


def _gap(work: Work, ours: Array, theirs: Array) -> float:
    """Returns the largest difference over the largest score; RuntimeError where it is too much."""
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not gap <= _MOST_GAP:
        raise RuntimeError(f"{work.name}: scores differ by {gap:.3g} of the largest of them")
    return gap


_HEAD = (
    f"{'network':<8}{'in':<9}{'a call':>8}{'rows/s':>14}{'least':>14}{'most':>14}{'busy':>7}"
    f"{'best loop':>12}{'rows/s':>14}{'busy':>7}{'ratio':>8}{'gap':>10}"
)


def main() -> int:
    """Prints the table; 2 where there is no such device."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small networks and few rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["bf16"])
    parser.add_argument("--only", nargs="+", help="of mlp, resnet, minilm")
    asked = parser.parse_args()
    cuda = asked.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        print("no GPU here; --device cpu --small tries that all of this works", file=sys.stderr)
        return 2
    size = SMALL if asked.small else WHOLE
    name = torch.cuda.get_device_name(asked.device) if cuda else platform.processor() or "cpu"
    if not cuda:
        torch.set_num_threads(1)
    print(f"{name}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{asked.rounds} rounds in turns, medians; gap: largest, over the largest score\n{_HEAD}")
    with tempfile.TemporaryDirectory() as folder:
        for work in works(size):
            for precision in asked.precision:
                if work.name in (asked.only or [work.name]):
                    rounds, path = asked.rounds, Path(folder)
                    print(compare(work, size, asked.device, precision, rounds, path), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
