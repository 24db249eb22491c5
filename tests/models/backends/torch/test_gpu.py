"""Test on a GPU what only a GPU can show: overlap, its memory, and its precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.measure import find_rows, memory_limit
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.staging import Staging
from batchscore.models.backends.torch.tiles import run_tiles

pytestmark = pytest.mark.gpu

ROWS = 10_000


def mlp(device: str) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1)]
    return nn.Sequential(*layers, nn.Flatten(0)).eval().requires_grad_(False).to(device)


def forward(device: str, call: Any = None, **facts: Any) -> Forward:
    network = mlp(device)
    return Forward(call or (lambda t: network(t["x"])), (), device, 1, **facts)


def numbers() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).standard_normal((ROWS, 64), dtype=np.float32)}


@pytest.mark.parametrize("rows", [256, 1024, 4096, 16_384])
def test_scores_are_the_cpus(rows: int) -> None:
    """However rows are cut, and with copies that overlap, each row's score is the CPU's."""
    calls = MicroBatches(Staging("cuda"), "m", lambda _: None)
    waits = [calls.begin(numbers(), ROWS, forward("cuda", rows=rows)) for _ in range(3)]
    expected = run_tiles(numbers(), ROWS, forward("cpu"))["score"]
    for wait in waits:
        np.testing.assert_allclose(wait()["score"], expected, atol=1e-5)


def test_memory_that_runs_out_is_met_with_fewer_rows() -> None:
    """A network that asks for more than there is goes on with half, until it fits."""
    free, _ = torch.cuda.mem_get_info()
    a_row = free // 3000

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.empty(len(tensors["x"]) * a_row, dtype=torch.uint8, device="cuda")
        return tensors["x"].sum(1)

    halved: list[int] = []
    calls = MicroBatches(Staging("cuda"), "m", halved.append)
    inputs = numbers()
    done = calls.begin(inputs, ROWS, forward("cuda", call, rows=8192))()
    np.testing.assert_allclose(done["score"], inputs["x"].sum(1), atol=1e-3)
    assert halved == [1, 2]


def test_the_search_stays_within_half_of_the_free_memory() -> None:
    """What it finds needs no more than it may."""
    rows = find_rows(forward("cuda"), numbers(), ROWS, 1024)
    assert rows in (1024, 2048, 4096, 8192)
    assert 0 < memory_limit("cuda") < torch.cuda.get_device_properties(0).total_memory


def test_float32_is_not_tf32() -> None:
    """float32 comes nearer to the CPU than tf32 does, and setting one undoes the other."""
    calls = MicroBatches(Staging("cuda"), "m", lambda _: None)
    expected = run_tiles(numbers(), ROWS, forward("cpu"))["score"]
    gaps = []
    for precision in ("float32", "tf32", "float32"):
        done = calls.begin(numbers(), ROWS, forward("cuda", precision=precision))()
        gaps.append(np.abs(done["score"] - expected).max())
    assert gaps[0] == gaps[2] < 1e-5 < gaps[1]
