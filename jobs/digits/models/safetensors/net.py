"""The network: three convolutions, two of them pooled, and two dense layers."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Returns a logit for each of ten digits from the pixels of a square grey image."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding="same")
        self.conv2 = nn.Conv2d(32, 64, 3, padding="same")
        self.conv3 = nn.Conv2d(64, 64, 3, padding="same")
        self.dense1 = nn.Linear(64 * (side // 4) ** 2, 64)
        self.dense2 = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (b, 10) from pixels (b, 1, side, side), 0 for black to 1 for white."""
        state = torch.max_pool2d(torch.relu(self.conv1(pixels)), 2)
        state = torch.max_pool2d(torch.relu(self.conv2(state)), 2)
        state = self.dropout(torch.relu(self.conv3(state)).flatten(1))
        state = self.dropout(torch.relu(self.dense1(state)))
        logits: torch.Tensor = self.dense2(state)
        return logits
