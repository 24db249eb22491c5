"""Test that tiles keep a row's bits, and that what a network returns is checked."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.models.backends.facts import TILE_ROWS, OutputSpec
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.staging import Staging
from batchscore.stages.block import Block, decode_block, encode_block
from batchscore.stages.infer import infer
from tests.factory import make_batch, make_block

ROWS = 3 * TILE_ROWS + 331
LOGIT = (OutputSpec("logit", "float32", ()),)
VECTORS = (OutputSpec("vector", "float32", (5,)), OutputSpec("logit", "float32", ()))


@pytest.fixture(autouse=True, scope="module")
def one_thread_within() -> Iterator[None]:
    """What loading a network sets: one thread within an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Wide(nn.Module):
    """An MLP of odd sizes, with a normalisation and two outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(width, 61), nn.LayerNorm(61), nn.GELU(), nn.Linear(61, 23), nn.SiLU()
        )
        self.vector, self.logit = nn.Linear(23, 5), nn.Linear(23, 1)

    def forward(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        body = self.body(tensors["x"])
        return self.vector(body).softmax(1), self.logit(body)


class Linear(nn.Module):
    """A logistic regression: nothing between the block's memory and the narrow product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        logit: torch.Tensor = self.linear(tensors["x"])
        return logit


class Embedded(nn.Module):
    """Embeddings of two codes, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(17, 3), nn.Embedding(29, 7)])
        self.head = nn.Sequential(nn.Linear(10 + 9, 33), nn.ReLU(), nn.Linear(33, 1))

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        codes = tensors["codes"].long() % 17
        parts = [table(codes[:, i]) for i, table in enumerate(self.tables)]
        logit: torch.Tensor = self.head(torch.cat([*parts, tensors["x"]], 1)).squeeze(1)
        return logit


def _network(module: type[nn.Module], *args: int) -> nn.Module:
    torch.manual_seed(7)
    return module(*args).eval().requires_grad_(False)


def _inputs(width: int) -> pa.RecordBatch:
    rng = np.random.default_rng(width)
    numbers = rng.normal(size=(ROWS, width)).astype(np.float32)
    codes = rng.integers(0, 17, (ROWS, 2)).astype(np.int32)
    return make_batch(x=to_arrow(numbers), codes=to_arrow(codes))


CASES = {
    f"mlp {width}": (Forward(_network(Wide, width), VECTORS, "cpu", 1), _inputs(width))
    for width in (1, 3, 7, 32, 37)
}
CASES |= {
    f"linear {width}": (Forward(_network(Linear, width), LOGIT, "cpu", 1), _inputs(width))
    for width in (5, 33, 128)
}
CASES |= {"embeddings": (Forward(_network(Embedded), LOGIT, "cpu", 1), _inputs(9))}


def _block(values: pa.RecordBatch) -> Block:
    return make_block(make_batch(id=np.arange(values.num_rows)), values=values)


def _bytes(values: pa.RecordBatch, forward: Forward) -> list[bytes]:
    done = infer(_block(values), forward).values
    assert done is not None
    return [to_numpy(column).tobytes() for column in done.columns]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6), threads=st.sampled_from([1, 2, 4]))
def test_bits_do_not_depend_on_blocks_slices_or_threads(
    case: str, cuts: list[int], threads: int
) -> None:
    """However rows are split into blocks that are slices, on any threads, bits are the same."""
    forward, values = CASES[case]
    whole = _bytes(values, forward)
    edges = [0, *sorted(set(cuts) - {0, ROWS}), ROWS]
    parts = [
        _bytes(values[start:stop], replace(forward, threads=threads))
        for start, stop in itertools.pairwise(edges)
    ]
    assert [b"".join(column) for column in zip(*parts, strict=True)] == whole


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_bits_do_not_depend_on_a_rows_neighbours(case: str, seed: int) -> None:
    """Shuffled rows keep their bits: neither the place in a tile nor the other rows matter."""
    forward, values = CASES[case]
    places = np.random.default_rng(seed).permutation(ROWS)
    shuffled = infer(_block(values.take(pa.array(places))), forward).values
    expected = infer(_block(values), forward).values
    assert shuffled is not None
    assert expected is not None
    for found, column in zip(shuffled.columns, expected.columns, strict=True):
        assert to_numpy(found).tobytes() == to_numpy(column)[places].tobytes()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", range(1, 5))
def test_bits_survive_a_blocks_packing(case: str, extra: int) -> None:
    """Inputs that a header has pushed to an odd address in memory give the same bits."""
    forward, values = CASES[case]
    block = replace(_block(values), seconds={"s" * extra: 0.0})
    back = decode_block(encode_block(block)).values
    assert back is not None
    assert _bytes(back, forward) == _bytes(values, forward)


def test_tiles_side_by_side_use_the_threads() -> None:
    """With four threads four tiles are in the network at once; with one, never two."""
    gate = threading.Barrier(4)

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        if first:
            first.pop()
        else:
            gate.wait(10)
        return tensors["x"]

    values = make_batch(x=np.arange(5 * TILE_ROWS, dtype=np.float32))
    first = [True]
    done = infer(_block(values), Forward(call, (), "cpu", 4)).values
    assert done is not None
    assert done.column("score").equals(values.column("x"))


@pytest.mark.parametrize("rows", [1, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1, 5000])
def test_the_network_sees_whole_tiles_only(rows: int) -> None:
    """Each call has 1,024 rows, the last filled up with one of its own."""
    seen: list[torch.Tensor] = []

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(tensors["x"].clone())
        return tensors["x"]

    values = make_batch(x=np.arange(1, rows + 1, dtype=np.float32))
    done = infer(_block(values), Forward(call, (), "cpu", 1)).values
    assert done is not None
    assert done.column("score").to_pylist() == list(range(1, rows + 1))
    assert {len(tile) for tile in seen} == {TILE_ROWS}
    padding = torch.cat(seen)[rows:]
    assert (padding == rows).all()


def test_a_network_may_write_to_its_input() -> None:
    """What it does to a tile reaches neither the block nor a second call."""
    values = make_batch(x=np.arange(2 * TILE_ROWS, dtype=np.float32))
    expected = values.column("x").to_numpy().copy()
    forward = Forward(lambda tensors: tensors["x"].add_(1), (), "cpu", 1)
    for _ in range(2):
        done = infer(_block(values), forward).values
        assert done is not None
        assert (done.column("score").to_numpy() == expected + 1).all()
    assert (values.column("x").to_numpy() == expected).all()


def _forward(result: Any, *outputs: OutputSpec) -> Forward:
    return Forward(lambda tensors: result(tensors["x"]), outputs, "cpu", 1)


def _columns(result: Any, *outputs: OutputSpec) -> dict[str, list[Any]]:
    values = make_batch(x=np.array([1, 2], np.float32))
    done = infer(_block(values), _forward(result, *outputs)).values
    assert done is not None
    columns: dict[str, list[Any]] = done.to_pydict()
    return columns


A, B = OutputSpec("a", "float32", ()), OutputSpec("b", "float64", (2,))


@pytest.mark.parametrize(
    ("result", "outputs", "expected"),
    [
        (lambda x: x, (), {"score": [1, 2]}),
        (lambda x: x[:, None], (A,), {"a": [1, 2]}),
        (lambda x: x.half(), (A,), {"a": [1, 2]}),
        (lambda x: x.bfloat16(), (), {"score": [1, 2]}),
        (lambda x: (x, torch.stack([x, x], 1)), (A, B), {"a": [1, 2], "b": [[1, 1], [2, 2]]}),
        (lambda x: {"b": torch.stack([x, x], 1), "a": x}, (A,), {"a": [1, 2]}),
        (lambda x: {"p": x, "q": x > 1}, (), {"p": [1, 2], "q": [False, True]}),
        (lambda x: x.long(), (), {"score": [1, 2]}),
        (lambda x: torch.complex(x, -x).conj().imag, (A,), {"a": [1, 2]}),
    ],
    ids=[
        "tensor",
        "last 1",
        "half",
        "bfloat16",
        "tuple",
        "dict",
        "undeclared dict",
        "integers",
        "negative bit",
    ],
)
def test_outputs_are_named_as_declared(
    result: Any, outputs: tuple[OutputSpec, ...], expected: dict[str, Any]
) -> None:
    """A tensor, a tuple in the declared order, or a dict become columns with one row each."""
    assert _columns(result, *outputs) == expected


@pytest.mark.parametrize(
    ("result", "outputs", "words"),
    [
        (lambda x: x[:5], (A,), "returned 5 rows for output 'a' but was given 1,024"),
        (lambda x: x.sum(), (), r"shape \[\]"),
        (lambda x: torch.stack([x] * 3, 1), (B,), r"expected \[1024, 2\]"),
        (lambda x: (x, x), (A,), "returned 2 outputs"),
        (lambda x: {"c": x}, (A,), r"expected \['a'\] too, as declared"),
        (lambda x: None, (A,), "returned a NoneType"),
        (lambda x: {"a": 1.0}, (A,), "'a' is a float"),
        (lambda x: x @ torch.ones(3), (A,), "raised RuntimeError"),
        (lambda x: dict[str, int]()["k"], (A,), "raised KeyError"),
        (lambda x: {}, (), "without outputs"),
        (lambda x: {1: x}, (), "output 1; expected a text"),
        (lambda x: {"b": x, 1: x}, (A,), r"outputs \['b', 1\]; expected \['a'\] too, as declared"),
        (lambda x: x.to(torch.complex64), (), "torch.complex64"),
        (lambda x: x.to_sparse(), (A,), "torch.sparse_coo"),
        (lambda x: x.to(torch.float8_e4m3fn), (), "float8_e4m3fn"),
        (lambda x: x.to("meta"), (A,), "meta"),
        (lambda x: torch.nested.nested_tensor([x, x]), (), "nested"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8), (A,), "quint8"),
        (lambda x: x[:, None][:, :0], (), "holds no value"),
    ],
    ids=[
        *["rows", "scalar", "width", "count", "name", "none", "float", "torch", "python"],
        *["empty dict", "int key", "mixed keys", "complex", "sparse", "float8", "meta"],
        *["nested", "quantised", "no width"],
    ],
)
def test_a_network_that_misbehaves_is_reported(
    result: Any, outputs: tuple[OutputSpec, ...], words: str
) -> None:
    """Another shape, name or kind of result, and an error inside, are StepErrors."""
    with pytest.raises(StepError, match=words):
        _columns(result, *outputs)


def _other_later(x: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """What a network may return for later rows, where it returned `s`, (rows,), at first."""
    wide = torch.stack([x, x], 1)
    return {
        "dtype": {"s": x.double()},
        "shape": {"s": wide},
        "names": {"t": x},
        "more": {"s": x, "t": x},
    }


@pytest.mark.parametrize("kind", ["dtype", "shape", "names", "more"])
@pytest.mark.parametrize("device", [False, True], ids=["tiles", "staging"])
@pytest.mark.parametrize("threads", [1, 4])
def test_outputs_that_differ_between_calls_are_reported(
    kind: str, device: bool, threads: int
) -> None:
    """Rows of one batch have outputs of one name, type and shape, or there is an error."""

    def call(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = tensors["x"]
        return _other_later(x)[kind] if (x > 2 * TILE_ROWS).all() else {"s": x}

    begin = MicroBatches(Staging("cpu"), "m", lambda _: None).begin if device else None
    forward = Forward(call, (), "cpu", threads, begin=begin)
    values = make_batch(x=np.arange(1, 4 * TILE_ROWS + 1, dtype=np.float32))
    with pytest.raises(StepError, match="for some rows of a batch"):
        infer(_block(values), forward)


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=40))
def test_rows_without_a_finite_score_are_rejected(scores: list[float]) -> None:
    """A NaN or infinity in any output rejects its own row and no other."""
    values = make_batch(x=np.array(scores, np.float32))
    done = infer(_block(values), _forward(lambda x: {"a": x, "b": x.isnan()}))
    good = [row for row, score in enumerate(scores) if np.isfinite(score)]
    assert done.rows_b.to_pylist() == good
    assert done.values is not None
    assert done.values.column("a").to_pylist() == [scores[row] for row in good]
    rejected = [row for reject in done.rejects for row in reject.rows_r.to_pylist()]
    assert rejected == [row for row in range(len(scores)) if row not in good]


@pytest.mark.parametrize(
    ("returned", "declared"),
    [
        (torch.full((1024,), torch.nan), "int64"),
        (torch.full((1024,), 0.7), "int32"),
        (torch.full((1024,), torch.nan), "bool"),
        (torch.full((1024,), 2**40), "int32"),
        (torch.full((1024,), 2), "bool"),
    ],
    ids=["nan-int", "float-int", "nan-bool", "wide-int", "int-bool"],
)
def test_an_output_that_its_declared_type_cannot_hold(
    returned: torch.Tensor, declared: str
) -> None:
    """A cast that would lose what the network said is an error, never a score."""
    block = _block(make_batch(x=np.zeros(3, np.float32)))
    with pytest.raises(StepError, match=f"declared as {declared}"):
        infer(block, _forward(lambda _: returned, OutputSpec("score", declared, ())))


def test_an_output_is_widened_to_its_declared_type() -> None:
    """A cast that keeps every value is done."""
    block = _block(make_batch(x=np.zeros(3, np.float32)))
    done = infer(block, _forward(lambda _: torch.full((1024,), 7), OutputSpec("n", "int32", ())))
    assert done.values is not None
    assert done.values.column("n").equals(pa.array([7, 7, 7], pa.int32()))


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (asyncio.CancelledError, StepError),
        (SystemExit, StepError),
        (KeyboardInterrupt, KeyboardInterrupt),
    ],
)
def test_errors_outside_exception(raised: type[BaseException], seen: type[BaseException]) -> None:
    """Whatever a network raises is the step's error, but for what is to end the run."""

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise raised

    with pytest.raises(seen):
        infer(_block(make_batch(x=np.zeros(3, np.float32))), _forward(fail))


def test_an_empty_block_does_not_reach_the_network() -> None:
    """A block all of whose rows were rejected passes as it is."""
    block = _block(make_batch(x=np.empty(0, np.float32)))
    assert infer(block, _forward(lambda _: pytest.fail("called"))) is block
