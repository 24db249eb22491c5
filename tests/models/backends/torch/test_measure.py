"""Test that calls are tried on the rows of a real batch, with the network itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from batchscore.columnar.ragged import Varying, make_ragged
from batchscore.errors import DeviceError, StepError
from batchscore.models.backends.torch import measure
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.measure import find_rows, first_rows, memory_limit

X = {"x": np.ones((256, 3), np.float32)}


def forward(call: Any, **facts: Any) -> Forward:
    return Forward(call, (), "cpu", 1, **facts)


def test_the_fastest_size_that_fits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each call takes its time, larger ones win until memory runs out."""
    tried: set[int] = set()
    calls = [0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: calls[0]))

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = len(tensors["x"])
        tried.add(rows)
        if rows > 64:
            raise torch.OutOfMemoryError
        calls[0] += 1
        return tensors["x"].sum(1)

    assert find_rows(forward(call), X, 256, 16) == 64
    assert tried == {16, 32, 64, 128}


def test_a_network_that_never_fits_is_reported() -> None:
    """It ends at one row."""

    def call(_: dict[str, torch.Tensor]) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match="one row alone"):
        find_rows(forward(call), X, 256, 16)


def test_an_error_of_the_network_is_its_own() -> None:
    """What has nothing to do with memory ends the search."""

    def call(_: dict[str, torch.Tensor]) -> torch.Tensor:
        raise ValueError("no")

    with pytest.raises(StepError, match="ValueError: no"):
        find_rows(forward(call), X, 256, 16)


def test_rows_of_varying_length_are_tried_as_they_are() -> None:
    """Calls are of buckets, whose rows are fewer where they are long."""
    shapes: set[tuple[int, ...]] = set()

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        shapes.add(tuple(tensors["ids"].shape))
        return tensors["ids"].sum(1)

    lengths_b = np.arange(64) % 40
    ids = make_ragged(np.ones(lengths_b.sum(), np.int64), lengths_b)
    varying = {"ids": Varying(max_length=40)}
    assert find_rows(forward(call, varying=varying), {"ids": ids}, 64, 8) >= 8
    assert len({length for _, length in shapes}) > 2
    assert all(rows <= 64 for rows, _ in shapes)


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1, 1024), (4096, 1024), (8192, 512), (3 * 224 * 224, 16), (10_000_000, 1)],
)
def test_a_search_begins_with_fewer_rows_where_they_are_wide(width: int, expected: int) -> None:
    """At most 16 MB go into the first call, a row at least, a tile at most."""
    inputs = {"x": np.broadcast_to(np.float32(0), (2, width))}
    assert first_rows(inputs, 2) == expected


def test_the_cpu_has_no_limit() -> None:
    """Only a GPU's memory is watched."""
    assert memory_limit("cpu") > 1 << 50
