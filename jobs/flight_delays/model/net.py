"""The network: embedded categories beside numbers, two hidden layers, one logit a row."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class Net(nn.Module):
    """Predicts the logit of arriving late from `numeric` and `categories`."""

    def __init__(
        self,
        numeric: int,
        category_sizes: list[int],
        embedding_sizes: list[int],
        hidden_sizes: list[int],
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width)
            for size, width in zip(category_sizes, embedding_sizes, strict=True)
        )
        widths = [numeric + sum(embedding_sizes), *hidden_sizes]
        self.hidden = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, numeric: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return logits (b,) float32 from numbers (b, n) float32 and indices (b, c) int64."""
        embedded = [table(categories[:, i]) for i, table in enumerate(self.embeddings)]
        state = torch.cat([numeric, *embedded], dim=1)
        for layer in self.hidden:
            state = torch.relu(layer(state))
        logit: torch.Tensor = self.out(state).squeeze(1)
        return logit
