"""What tiles of four networks take with oneDNN's linear layers and with torch's own kernels.

    python -m benchmarks.kernels --rounds 9

Both compute on one thread, in turn. Figures are medians; the ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from batchscore.models.backends.torch.kernel_trial import cpu_name
from batchscore.models.backends.torch.load import describe_device, torch_version
from batchscore.models.backends.torch.onednn import PackedWeights, with_onednn
from benchmarks.networks import Mlp

_ROUND_SECONDS = 0.2


class Encoder(nn.Module):
    """Two layers of a MiniLM-shaped encoder, of plain linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(384, 384) for _ in range(8))
        self.wide = nn.ModuleList(nn.Linear(384, 1536) for _ in range(2))
        self.back = nn.ModuleList(nn.Linear(1536, 384) for _ in range(2))

    def forward(self, x_btf: torch.Tensor) -> torch.Tensor:
        """Returns the mean (b, 384) over the steps of (b, t, 384)."""
        for layer, (wide, back) in enumerate(zip(self.wide, self.back, strict=True)):
            query, key, value, out = self.parts[4 * layer : 4 * layer + 4]
            heads = [
                part(x_btf).unflatten(2, (12, 32)).transpose(1, 2) for part in (query, key, value)
            ]
            seen = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            x_btf = nn.functional.layer_norm(x_btf + out(seen), (384,))
            x_btf = nn.functional.layer_norm(x_btf + back(nn.functional.gelu(wide(x_btf))), (384,))
        return x_btf.mean(1)


@dataclass(frozen=True)
class Spent:
    """Seconds of a call: of this thread's CPU, and on the clock."""

    cpu: float
    wall: float


def main() -> None:
    """Prints a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{cpu_name()}, {describe_device('cpu')}, torch {torch_version()}, {rounds} rounds")
    print("| network | default ms | oneDNN ms | CPU ratio | wall ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    wide = nn.Sequential(
        nn.Linear(32, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 1)
    )
    few = nn.Sequential(nn.Linear(2, 2048), nn.ReLU(), nn.Linear(2048, 16), nn.ReLU())
    few.append(nn.Linear(16, 1))
    _report("few inputs, 2-2048-16-1", few, torch.randn(1024, 2), rounds)
    _report("mlp 32-128-64-1", Mlp(32), torch.randn(1024, 32), rounds)
    _report("wide 32-2048-2048-1", wide, torch.randn(1024, 32), rounds)
    _report("encoder, 64 rows of 64 steps", Encoder(), torch.randn(64, 64, 384), rounds)


def _report(name: str, network: nn.Module, tile: torch.Tensor, rounds: int) -> None:
    default = network.eval()
    other = with_onednn(copy.deepcopy(default), PackedWeights())
    with torch.inference_mode():
        gap = float((default(tile) - other(tile)).abs().max())
        calls = max(1, int(_ROUND_SECONDS / _timed(lambda: default(tile), 1).wall))
        pairs = [
            (_timed(lambda: default(tile), calls), _timed(lambda: other(tile), calls))
            for _ in range(rounds)
        ]
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    wall = statistics.median(a.wall / b.wall for a, b in pairs)
    first, second = (statistics.median(pair[n].cpu for pair in pairs) * 1000 for n in (0, 1))
    print(f"| {name} | {first:.3g} | {second:.3g} | {cpu:.2f} | {wall:.2f} | {gap:.2g} |")


def _timed(call: Callable[[], object], calls: int) -> Spent:
    cpu, wall = time.thread_time(), time.perf_counter()
    for _ in range(calls):
        call()
    return Spent((time.thread_time() - cpu) / calls, (time.perf_counter() - wall) / calls)


if __name__ == "__main__":
    main()
