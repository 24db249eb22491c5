"""Test that a device's calls keep every row in its place, whatever its memory allows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.ragged import Varying, make_ragged
from batchscore.errors import FailedError, StepError
from batchscore.models.backends.facts import OutputSpec
from batchscore.models.backends.torch.buckets import Tile, halve_tile
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.micro_batch import MicroBatches, is_out_of_memory
from batchscore.models.backends.torch.staging import Results, Staging

Tensors = dict[str, torch.Tensor]


class Small:
    """A network on a device that holds so many rows, and can hold fewer from some call on."""

    def __init__(self, fits: Callable[[int], int], raised: type[Exception] | None = None) -> None:
        self._fits, self._raised = fits, raised
        self.calls: list[int] = []
        self.rows: list[float] = []

    def __call__(self, tensors: Tensors) -> torch.Tensor:
        x = tensors["x"]
        if len(x) > self._fits(len(self.calls)):
            self._fail()
        self.calls.append(len(x))
        self.rows += x.tolist()
        return x * 2 + 1

    def _fail(self) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        except torch.OutOfMemoryError as error:
            if self._raised is None:
                raise
            raise self._raised("a layer failed") from error


def forward(call: Any, rows: int, *outputs: OutputSpec, **facts: Any) -> Forward:
    return Forward(call, outputs, "cpu", 1, rows=rows, **facts)


def micro_batches(halved: list[int] | None = None) -> MicroBatches:
    reported = halved if halved is not None else []
    return MicroBatches(Staging("cpu"), "model 'm' on a device", reported.append)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 400),
    size=st.integers(1, 128),
    limits=st.lists(st.integers(1, 128), min_size=1, max_size=6),
    raised=st.sampled_from([None, ValueError, RuntimeError]),
)
def test_no_row_is_lost_where_memory_runs_out(
    rows: int, size: int, limits: list[int], raised: type[Exception] | None
) -> None:
    """With less and less memory, also behind another error, each row is scored once, in order."""
    falling = np.minimum.accumulate(limits)
    network = Small(lambda call: int(falling[min(call, len(falling) - 1)]), raised)
    x = np.arange(1, rows + 1, dtype=np.float32)
    halved: list[int] = []
    done = micro_batches(halved).begin({"x": x}, rows, forward(network, size))()
    assert done["score"].tolist() == (x * 2 + 1).tolist()
    # A row that fills up a call is there again and again.
    assert [row for row, _ in itertools.groupby(network.rows)] == x.tolist()
    assert halved == list(range(1, len(halved) + 1))
    assert network.calls == sorted(network.calls, reverse=True)


def test_a_network_may_return_its_own_buffer() -> None:
    """What is fetched during the next call is a copy of what that call writes over."""
    own, fetched = torch.zeros(8), list[int]()

    class Watched(Staging):
        def _fetch(self, made: Mapping[str, torch.Tensor], kept: int, results: Results) -> None:
            fetched.extend(each.data_ptr() for each in made.values())
            super()._fetch(made, kept, results)

    x = np.arange(64, dtype=np.float32)
    begin = MicroBatches(Watched("cpu"), "m", lambda _: None).begin
    started = begin({"x": x}, 64, forward(lambda t: own.copy_(t["x"]), 8))
    assert started()["score"].tolist() == x.tolist()
    assert len(fetched) == 8
    assert own.data_ptr() not in fetched


def test_what_was_halved_stays_so() -> None:
    """The next block begins with calls of the size that fitted, and fails no more."""
    network, halved = Small(lambda _: 16), list[int]()
    calls = micro_batches(halved)
    for _ in range(2):
        calls.begin({"x": np.ones(64, np.float32)}, 64, forward(network, 64))()
    assert halved == [1, 2]
    assert network.calls == [16] * 8


def test_a_row_that_does_not_fit_is_reported_with_the_model() -> None:
    """Where one row is too much, the run fails with the model's name: it is not the row's fault."""
    network = Small(lambda _: 0)
    with pytest.raises(FailedError, match=r"model 'm' on a device: one row alone") as caught:
        micro_batches().begin({"x": np.ones(9, np.float32)}, 9, forward(network, 8))
    assert not isinstance(caught.value, StepError)


def test_other_errors_are_the_networks() -> None:
    """An error that has nothing to do with memory is not tried again."""
    calls: list[int] = []

    def fail(tensors: Tensors) -> torch.Tensor:
        calls.append(len(tensors["x"]))
        raise RuntimeError("shapes differ")

    with pytest.raises(StepError, match="shapes differ"):
        micro_batches().begin({"x": np.ones(9, np.float32)}, 9, forward(fail, 4))
    assert calls == [4]


def test_a_device_that_failed_ends_the_run() -> None:
    """No call succeeds after it, so that rows would be found guilty one after another."""

    def fail(_: Tensors) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(FailedError, match=r"'m' on a device: the device failed .*assert") as caught:
        micro_batches().begin({"x": np.ones(9, np.float32)}, 9, forward(fail, 4))
    assert not isinstance(caught.value, StepError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("out of range"), False),
        (ValueError("CUDA out of memory"), False),
        (MemoryError("host"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    """torch's own class, and what CUDA's libraries say in an error of another class."""
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 50])
def test_every_call_has_the_same_rows(rows: int) -> None:
    """The last call is filled up with a row of its own, of which nothing more comes back."""
    seen: list[torch.Tensor] = []

    def call(tensors: Tensors) -> torch.Tensor:
        seen.append(tensors["x"].clone())
        return tensors["x"]

    x = np.arange(1, rows + 1, dtype=np.float32)
    done = micro_batches().begin({"x": x}, rows, forward(call, 8))()
    assert done["score"].tolist() == x.tolist()
    assert {len(each) for each in seen} == {8}
    assert (torch.cat(seen)[rows:] == rows).all()


def test_a_network_may_write_to_its_inputs_and_return_them() -> None:
    """Buffers are used again, yet the source stays, and so do results that are views of them."""

    def call(tensors: Tensors) -> torch.Tensor:
        return tensors["x"].mul_(3)

    x = np.arange(40, dtype=np.float32)
    wait = micro_batches().begin({"x": x}, 40, forward(call, 4))
    assert wait()["score"].tolist() == (np.arange(40) * 3).tolist() == wait()["score"].tolist()
    assert x.tolist() == list(range(40))


def test_results_stay_while_later_blocks_use_the_same_buffers() -> None:
    """Four blocks of one call each, started before any is waited for, keep their own values."""
    calls = micro_batches()
    called = forward(lambda tensors: tensors["x"], 4)
    waits = [calls.begin({"x": np.full(4, i, np.float32)}, 4, called) for i in range(4)]
    assert [wait()["score"].tolist() for wait in waits] == [[i] * 4 for i in range(4)]


class Broken(Staging):
    """A device that fails when results are waited for."""

    def run(self, *args: Any) -> None:
        """Begin a call of which nothing comes back."""
        results = args[-1]
        super().run(*args)
        results.last = self

    def synchronize(self) -> None:
        """Fail as CUDA does."""
        raise RuntimeError("CUDA error: unspecified launch failure")


def test_a_device_that_failed_is_reported_when_its_results_are_waited_for() -> None:
    """What CUDA notices late is the run's failure, too, with the model's name."""
    calls = MicroBatches(Broken("cpu"), "model 'm' on a device", lambda _: None)
    wait = calls.begin({"x": np.ones(4, np.float32)}, 4, forward(lambda t: t["x"], 4))
    with pytest.raises(FailedError, match=r"'m' on a device: the device failed .*launch failure"):
        wait()


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=60), fits=st.integers(1, 30))
def test_rows_of_varying_length_come_back_in_order(lengths: list[int], fits: int) -> None:
    """Grouped by length, cut and halved, each row's sum is in the row's own place."""

    def call(tensors: Tensors) -> torch.Tensor:
        if len(tensors["ids"]) > fits:
            raise torch.OutOfMemoryError
        return tensors["ids"].sum(1)

    steps = np.arange(1, sum(lengths) + 1)
    ids = make_ragged(steps, np.array(lengths))
    called = forward(
        call, 32, OutputSpec("sum", "int64", ()), varying={"ids": Varying(max_length=40)}
    )
    done = micro_batches().begin({"ids": ids}, len(lengths), called)()
    expected = [int(part.sum()) for part in np.split(steps, np.cumsum(lengths)[:-1])]
    assert done["sum"].tolist() == expected


@given(rows=st.integers(2, 50), data=st.data(), scattered=st.booleans())
def test_the_halves_of_a_tile_hold_its_rows(
    rows: int, data: st.DataObject, scattered: bool
) -> None:
    """Two halves of one shape hold the tile's rows once and in order; one where they fit in it."""
    kept = data.draw(st.integers(1, rows))
    places: Any = np.arange(5, 5 + kept) if scattered else slice(5, 5 + kept)
    halves = halve_tile(Tile(places, kept, rows, 3))
    found = [np.arange(100)[half.places].tolist() for half in halves]
    assert list(itertools.chain(*found)) == list(range(5, 5 + kept))
    assert [half.kept for half in halves] == [len(each) for each in found]
    assert {(half.rows, half.length) for half in halves} == {((rows + 1) // 2, 3)}
    assert all(half.kept for half in halves)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: x[:3], r"3 rows for output .a. but was given 8 rows"),
        (lambda x: (x, x), "returned 2 outputs"),
        (lambda x: x[9], "raised IndexError"),
    ],
)
def test_a_network_that_misbehaves_is_reported(result: Any, words: str) -> None:
    """What a network returns is checked as on the CPU."""
    called = forward(lambda t: result(t["x"]), 8, OutputSpec("a", "float32", ()))
    with pytest.raises(StepError, match=words):
        micro_batches().begin({"x": np.ones(9, np.float32)}, 9, called)()


def test_an_output_that_its_declared_type_cannot_hold_is_reported_when_it_is_there() -> None:
    """The values are looked at once the copies have come."""
    called = forward(lambda t: t["x"].long() + 2**40, 8, OutputSpec("a", "int32", ()))
    wait = micro_batches().begin({"x": np.ones(9, np.float32)}, 9, called)
    with pytest.raises(StepError, match="declared as int32"):
        wait()
