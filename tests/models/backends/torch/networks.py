"""Models of one weights file with networks whose right scores torch itself computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from batchscore.models.backends.torch.load import Network, load_network
from batchscore.models.folder import single_file_model
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model
from tests.factory import NET, STATE, write_weights

ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def describe(folder: Path, weights: str, net: str = NET, **changes: Any) -> Model:
    """Return a model of one weights file with its network next to it."""
    (folder / "net.py").write_text(net)
    facts: dict[str, Any] = {
        "format": "safetensors",
        "architecture": "net.py:Net",
        "inputs": [ModelInput("x", "float32", (2,), ("a", "b"))],
        "outputs": [],
        "base": str(folder),
    }
    return single_file_model(str(folder / weights), **{**facts, **changes})


def make_model(
    folder: Path, net: str = NET, state: Mapping[str, torch.Tensor] = STATE, **changes: Any
) -> Model:
    """Return a model of weights that are written as safetensors."""
    write_weights(folder / "w.safetensors", state)
    return describe(folder, "w.safetensors", net, **changes)


def score(model: Model, rows: torch.Tensor = ROWS) -> list[float]:
    """Return what the loaded network makes of rows."""
    return call(load_network(model, "cpu"), rows)


def call(network: Network, rows: torch.Tensor = ROWS) -> list[float]:
    """Return what a network makes of rows."""
    with torch.inference_mode():
        return [float(value) for value in network({"x": rows}).reshape(-1)]


def scores_of_torch(
    net: str, state: Mapping[str, torch.Tensor], rows: torch.Tensor = ROWS
) -> list[float]:
    """Return what the network makes of rows, built and loaded as torch's own manual says."""
    names: dict[str, Any] = {"__name__": "reference"}
    exec(net, names)
    module = names["Net"]()
    module.load_state_dict(dict(state))
    module.eval()
    with torch.inference_mode():
        return [float(value) for value in module(rows).reshape(-1)]
