"""How many weights a file holds, by its index."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from batchscore.errors import ModelError
from batchscore.models.backends.torch.counting import count_weights
from batchscore.models.loadable import Model


def _model(path: Path) -> Model:
    folder, name = str(path.parent), path.name
    return Model("m", "1", "pt", folder, name, "", {}, (), (), {})


def _state() -> dict[str, torch.Tensor]:
    layers = torch.nn.Sequential(torch.nn.Linear(10, 6), torch.nn.BatchNorm1d(6))
    layers.append(torch.nn.Linear(6, 6).double())
    return layers.state_dict()


@pytest.mark.parametrize("form", ["safetensors", "pt", "pt of old"])
def test_weights_are_counted_by_type(tmp_path: Path, form: str) -> None:
    """Parameters and tensors are those that torch itself counts, in each form of file."""
    state, path = _state(), tmp_path / "weights"
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "pt")
    found = count_weights(path, _model(path))
    assert found.parameters == sum(tensor.numel() for tensor in state.values())
    assert found.tensors == len(state)
    assert found.types == {"float32": 6, "float64": 2, "int64": 1}


def test_shared_weights_count_once(tmp_path: Path) -> None:
    """A tensor under two names is one piece of memory."""
    weight = torch.zeros(4, 3)
    torch.save({"a": weight, "b": weight}, tmp_path / "w.pt")
    assert count_weights(tmp_path / "w.pt", _model(tmp_path / "w.pt")).parameters == 12


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    """A file that was cut off is one message with its address."""
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(_state(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"w\.safetensors: the file was cut off"):
        count_weights(path, _model(path))
