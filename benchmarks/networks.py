"""The networks that benchmarks score with; a model folder holds a copy of this file."""

from __future__ import annotations

import os
import time

import torch
from torch import nn

STAMPS = "BENCHMARK_STAMPS"
"""Names the file, in the environment, that networks note times in; without it they note none."""


def stamp(event: str) -> None:
    """Notes that something happened, and when, in seconds since the epoch."""
    path = os.environ.get(STAMPS)
    if path is not None:
        with open(path, "a") as file:
            file.write(f"{event} {time.time()}\n")


class Mlp(nn.Sequential):
    """A multilayer perceptron WIDTH-128-64-1, which notes when it first returned."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
            nn.Flatten(0),
        )
        self.called = False

    def forward(self, x_bf: torch.Tensor) -> torch.Tensor:
        """Returns logits (b,) of features (b, f)."""
        for layer in self:
            x_bf = layer(x_bf)
        if not self.called:
            self.called = True
            stamp("scored")
        return x_bf


class Embedded(nn.Module):
    """An Mlp, and an embedding of a hundred buckets of the first feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = Mlp(width)
        self.buckets = nn.Embedding(100, 8, padding_idx=0)

    def forward(self, x_bf: torch.Tensor) -> torch.Tensor:
        """Returns logits (b,) of features (b, f)."""
        bucket_b = (x_bf[:, 0] * 10 + 50).clamp(0, 99).long()
        logits_b: torch.Tensor = self.mlp(x_bf) + self.buckets(bucket_b).mean(1)
        return logits_b


class Sleeper(Mlp):
    """Sleeps for some seconds at each call, and computes next to nothing."""

    def __init__(self, width: int, seconds: float) -> None:
        super().__init__(width)
        self.seconds = seconds

    def forward(self, x_bf: torch.Tensor) -> torch.Tensor:
        """Returns the first feature (b,) of features (b, f)."""
        stamp("asleep")
        time.sleep(self.seconds)
        stamp("awake")
        return x_bf[:, 0]
