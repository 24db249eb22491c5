"""The networks, as every peer loads and calls them; model folders hold a copy of this file.

Needs NumPy, torch and safetensors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn


class Mlp(nn.Sequential):
    """A multilayer perceptron, ReLU between its layers, which may sleep at each call.

    Args:
        sizes: Sizes of its layers; the last is one logit.
        sleep_s: Seconds that a call sleeps.
    """

    def __init__(self, sizes: Sequence[int], sleep_s: float = 0.0) -> None:
        pairs = [(nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(sizes)]
        super().__init__(*[*chain.from_iterable(pairs)][:-1], nn.Flatten(0))
        self.sleep_s = sleep_s

    def forward(self, x_bf: torch.Tensor) -> torch.Tensor:
        """Returns logits (b,) of features (b, f)."""
        # Even a sleep of no time releases the interpreter and waits for it.
        if self.sleep_s:
            time.sleep(self.sleep_s)
        for layer in self:
            x_bf = layer(x_bf)
        return x_bf


def load_network(weights: str, arguments: dict[str, Any]) -> nn.Module:
    """Returns the network of these arguments, with weights from a safetensors file."""
    network = Mlp(**arguments)
    network.load_state_dict(load_file(weights))
    return network.eval()


def predict(network: nn.Module, values_bf: Any) -> Any:
    """Returns the scores (b,) float32 of feature values (b, f) float32."""
    with torch.inference_mode():
        return torch.sigmoid(network(torch.from_numpy(values_bf))).numpy()


def predict_columns(network: nn.Module, columns: Sequence[Any]) -> Any:
    """Returns the scores (b,) float32 of f feature columns, each (b,) float32."""
    return predict(network, np.stack(columns, axis=1))
