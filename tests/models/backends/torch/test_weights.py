"""Test that weights of any type and any names become what torch's `load_state_dict` makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from batchscore.errors import ModelError
from batchscore.models.backends.torch.load import load_network
from batchscore.models.inputs import ModelInput
from tests.factory import NET, STATE, sha256
from tests.models.backends.torch.networks import (
    ROWS,
    call,
    describe,
    make_model,
    score,
    scores_of_torch,
)

ADAPTING = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("places", torch.tensor([0, 0]))

    def forward(self, x):
        x = (x * self.scale)[:, self.places]
        return self.linear(x.to(self.linear.weight.dtype)) + 1000.0
"""
MORE = {
    "linear.weight": torch.tensor([[0.3, -0.7]]),
    "linear.bias": torch.tensor([0.1]),
    "scale": torch.tensor([1.7, 0.3]),
    "places": torch.tensor([1, 0]),
}


def _as(kind: torch.dtype, *names: str) -> dict[str, torch.Tensor]:
    return {name: each.to(kind) if name in names else each for name, each in MORE.items()}


WEIGHTS = ("linear.weight", "linear.bias", "scale")


@pytest.mark.parametrize(
    ("state", "casts"),
    [
        (MORE, ""),
        (_as(torch.bfloat16, *WEIGHTS), "3 of 4 .*: 3 from bfloat16 to float32"),
        (_as(torch.float16, *WEIGHTS), "3 of 4 .*: 3 from float16 to float32"),
        (_as(torch.float64, *WEIGHTS), "3 of 4 .*: 3 from float64 to float32"),
        (_as(torch.float64, "linear.bias"), "1 of 4 .*: 1 from float64 to float32"),
        (_as(torch.float64, "scale"), "1 of 4 .*: 1 from float64 to float32"),
        (_as(torch.int32, "places"), "1 of 4 .*: 1 from int32 to int64"),
        (_as(torch.float32, "places"), "1 of 4 .*: 1 from float32 to int64"),
    ],
    ids=["none", "bf16", "fp16", "fp64", "a bias", "a buffer", "integers", "floats as integers"],
)
def test_weights_are_cast_as_torch_does(
    tmp_path: Path, state: Mapping[str, torch.Tensor], casts: str
) -> None:
    """Scores equal those of torch's `load_state_dict`; the casts are reported, also on threads."""
    model = make_model(tmp_path, ADAPTING, state)
    assert score(model) == scores_of_torch(ADAPTING, state)
    network = load_network(model, "cpu")
    assert re.fullmatch(casts, network.casts)
    assert network.threads(2) == 2


def test_an_architecture_of_another_type_keeps_it(tmp_path: Path) -> None:
    """Where the network itself computes in bfloat16, nothing is cast."""
    net = ADAPTING.replace("torch.ones(2))", "torch.ones(2)); self.to(torch.bfloat16)")
    state = _as(torch.bfloat16, *WEIGHTS)
    model = make_model(tmp_path, net, state)
    assert score(model) == scores_of_torch(net, state)
    assert load_network(model, "cpu").casts == ""


def test_weights_are_cast_to_an_architecture_of_less_precision(tmp_path: Path) -> None:
    """Float32 weights of a network that computes in bfloat16 become bfloat16."""
    net = ADAPTING.replace("torch.ones(2))", "torch.ones(2)); self.to(torch.bfloat16)")
    model = make_model(tmp_path, net, MORE)
    assert score(model) == scores_of_torch(net, MORE)


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_inputs_and_weights_of_one_type_are_computed_in_it(tmp_path: Path, kind: str) -> None:
    """A network that takes no such inputs once its weights are cast keeps the weights' type."""
    own = getattr(torch, kind)
    state = {name: tensor.to(own) for name, tensor in STATE.items()}
    inputs = [ModelInput("x", kind, (2,), ("a", "b"))]
    network = load_network(make_model(tmp_path, NET, state, inputs=inputs), "cpu")
    with torch.inference_mode():
        found = network({"x": ROWS.to(own)})
    assert (found.dtype, found.tolist(), network.casts) == (own, [0.125, 0.625], "")
    assert network.threads(2) == 2


def test_a_network_that_casts_its_inputs_gets_weights_of_its_own_type(tmp_path: Path) -> None:
    """Float64 inputs and weights of a network that turns its inputs to float32 are cast."""
    net = NET.replace("self.linear(x)", "self.linear(x.float())")
    state = {name: tensor.double() for name, tensor in STATE.items()}
    inputs = [ModelInput("x", "float64", (2,), ("a", "b"))]
    model = make_model(tmp_path, net, state, inputs=inputs)
    assert score(model, ROWS.double()) == scores_of_torch(net, state, ROWS.double())


TIED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        self.second = torch.nn.Linear(2, 2)
        TIE
        self.last = torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.last(self.second(self.first(x)))
"""
TIES = {
    "a parameter": "self.second.weight = self.first.weight",
    "its memory": "self.second.weight.data = self.first.weight.data",
    "a module": "self.second = self.first",
    "a buffer": (
        "self.first.register_buffer('b', torch.ones(2)); "
        "self.second.register_buffer('b', self.first.b)"
    ),
}


@pytest.mark.parametrize("tie", TIES.values(), ids=TIES.keys())
def test_tied_weights_that_are_stored_once_load(tmp_path: Path, tie: str) -> None:
    """What safetensors' own `save_model` writes of shared tensors gives the network's scores."""
    net, names = TIED.replace("TIE", tie), dict[str, type[torch.nn.Module]]()
    exec(net, names)
    module = names["Net"]()
    safetensors.torch.save_model(module, str(tmp_path / "w.safetensors"))
    stored = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert len(stored) < len(module.state_dict())
    model = describe(tmp_path, "w.safetensors", net)
    with torch.inference_mode():
        assert score(model) == module(ROWS).reshape(-1).tolist()
    assert load_network(model, "cpu").threads(2) == 2
    del stored["last.bias"]
    safetensors.torch.save_file(stored, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r'Missing key.*"last\.bias"'):
        score(describe(tmp_path, "w.safetensors", net))


def test_threads_share_what_was_cast(tmp_path: Path) -> None:
    """A module for a second thread has the first one's weights, not a copy of them."""
    network = load_network(make_model(tmp_path, ADAPTING, _as(torch.float64, *WEIGHTS)), "cpu")
    assert network.threads(2) == 2
    assert network.twins is not None
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(network.twins.own).result()
    pairs = zip(network.twins.own().parameters(), other.parameters(), strict=True)
    assert all(one.data_ptr() == two.data_ptr() for one, two in pairs)


CONVERTING = """
import torch

class Own(torch.nn.Linear):
    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *args):
        if metadata.get("version") is None:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 3
        super()._load_from_state_dict(state, prefix, metadata, *args)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = Own(2, 1)
        SEEN

    def forward(self, x):
        return self.linear(x)
"""


SEEN = "torch.nn.init.ones_(w := self.linear.weight); self.s = float(w.detach().sum())"


@pytest.mark.parametrize("seen", ["pass", SEEN], ids=["sketched", "of first weights"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_weights_keep_the_versions_that_they_were_saved_with(
    tmp_path: Path, kind: torch.dtype, seen: str
) -> None:
    """A network that converts weights of earlier versions leaves those of its own as they are."""
    net, names = CONVERTING.replace("SEEN", seen), dict[str, type[torch.nn.Module]]()
    exec(net, names)
    module = names["Net"]().to(kind)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    network = load_network(
        describe(tmp_path, "w.pt", net, format="pt", sha256=sha256(tmp_path / "w.pt")), "cpu"
    )
    assert network.threads(2) == 2
    with ThreadPoolExecutor(1) as pool, torch.inference_mode():
        expected = module.float()(ROWS).reshape(-1).tolist()
        assert [call(network), pool.submit(call, network).result()] == [expected] * 2
    # Without versions, as in safetensors, they are converted, as torch does.
    assert score(make_model(tmp_path, net)) == scores_of_torch(net, STATE)


def test_weights_of_a_wrapped_network_are_named(tmp_path: Path) -> None:
    """Where each name has a prefix more, the message says which state_dict to save; that loads."""
    names = dict[str, Any]()
    exec(NET, names)
    network = torch.nn.DataParallel(names["Net"]())
    with pytest.raises(ModelError, match=r"save network\.module\.state_dict\(\)"):
        score(make_model(tmp_path, NET, network.state_dict()))
    state = network.module.state_dict()
    assert score(make_model(tmp_path, NET, state)) == scores_of_torch(NET, state)
