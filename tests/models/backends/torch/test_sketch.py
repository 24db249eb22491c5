"""Test that no number of memory that was never set, and no chance, gets into scores."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from batchscore.models.backends.torch.load import load_network
from tests.factory import NET, STATE
from tests.models.backends.torch.networks import ROWS, call, make_model

NETWORK = """
import copy, ctypes, io, pickle
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

@torch.jit.script
def doubled(x: torch.Tensor) -> float:
    return float(x.sum()) * 2

ACTIVATIONS = {"relu": nn.ReLU(), "prelu": nn.PReLU()}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        w = self.linear.weight
        nn.init.constant_(w, 3.0)
        w = w.detach()
        INIT

    def forward(self, x):
        return self.linear(x) * self.s
"""
SEEDED = "torch.manual_seed(1); nn.Linear(3, 3); "
INITS = {
    "an element that is set": "b = torch.zeros(1); b[0] = w[0, 0]; self.s = b",
    "TorchScript": "self.s = doubled(w)",
    "a number of elements": "self.s = len((w > 0).nonzero())",
    "a mask": "self.s = w[w > 0].numel()",
    "another number": "self.s = torch.unique(w).shape[0]",
    "an operation": "self.s = torch.ops.aten.item.default(w.sum())",
    "storage": "self.s = sum(w.untyped_storage().tolist())",
    "dlpack": "self.s = float(np.from_dlpack(w).sum())",
    "an address": "self.s = ctypes.c_float.from_address(w.data_ptr()).value",
    "pickle": "self.s = pickle.loads(pickle.dumps(w)).sum()",
    "safetensors": "made = safetensors.torch.load(safetensors.torch.save({'w': w})); "
    "self.s = made['w'].sum()",
    "a view before": "v = torch.empty(2); a = v.numpy(); self.p = nn.Parameter(v); "
    "nn.init.ones_(self.p); self.s = float(a.sum())",
    "a gradient": "t = torch.ones(1, 2, requires_grad=True); (t * w).sum().backward(); "
    "self.s = t.grad.sum()",
    "below functions": "\n        with torch._C.DisableTorchFunction(): self.s = float(w.sum())",
    "rrelu": SEEDED + "self.s = F.rrelu(-torch.ones(3), training=True).sum()",
    "alpha_dropout": SEEDED + "self.s = F.alpha_dropout(torch.ones(30), 0.5, training=True).sum()",
    "gamma": SEEDED + "self.s = float(torch.distributions.Gamma(2.0, 1.0).sample())",
    "gumbel": SEEDED + "self.s = F.gumbel_softmax(torch.zeros(5)).max()",
    "a generator": "g = torch.Generator().manual_seed(1); self.p = nn.Parameter(torch.empty(3)); "
    "nn.init.normal_(self.p, generator=g); self.s = torch._standard_gamma(torch.ones(1), g)",
    "seeded on import": "self.s = torch.randn(1).item() + np.random.rand()",
    "a type that is left": "torch.set_default_dtype(torch.float64); self.s = torch.ones(1) / 3",
    "a table of activations": "self.act = ACTIVATIONS['relu']; self.s = 1",
    "an example": "self.example_input_array = torch.rand(1, 2); self.s = 1",
    "tied weights that differ": "self.o = nn.Linear(2, 1); self.o.weight = self.linear.weight; "
    "self.s = 1",
    "a trace": "self.j = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)); self.s = 1",
}
MERGING = """
import torch

class Adapted(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.more, self.merged = torch.nn.Parameter(torch.ones(2, 2)), False

    def train(self, mode=True):
        if not mode and not self.merged:
            self.weight.data += self.more
        self.merged = not mode
        return super().train(mode)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.adapted = Adapted()

    def forward(self, x):
        return self.adapted(x)
"""


@pytest.fixture(autouse=True)
def unset_is_nan() -> Iterator[None]:
    """Memory that was never set holds NaN, and types are as they were."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)


def reference(folder: Path, net: str) -> types.ModuleType:
    """Return the network's file as plain Python imports it."""
    (folder / "reference.py").write_text(net)
    module = types.ModuleType("reference")
    sys.modules["reference"] = module
    code = compile(net, str(folder / "reference.py"), "exec")
    exec(code, vars(module))
    return module


def right_scores(folder: Path, net: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return weights of a network, and the scores that torch's own loading of them gives."""
    own = reference(folder, net).Net().state_dict()
    state = {name: torch.full(each.shape, 0.5 + n) for n, (name, each) in enumerate(own.items())}
    torch.set_default_dtype(torch.float32)
    module = reference(folder, net).Net()
    module.load_state_dict(state)
    module.eval()
    torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        return state, module(ROWS).reshape(-1).tolist()


def check_scores(folder: Path, net: str) -> None:
    """Assert that each loading, and each thread, gives the scores of torch's own loading."""
    state, expected = right_scores(folder, net)
    model = make_model(folder, net, state)
    for _ in range(2):
        network = load_network(model, "cpu", prove=True)
        network.threads(2)
        with ThreadPoolExecutor(2) as pool:
            assert [call(network), *pool.map(call, [network] * 3)] == [expected] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning")
@pytest.mark.parametrize("init", INITS.values(), ids=INITS.keys())
def test_constructors_may_compute_with_first_weights(tmp_path: Path, init: str) -> None:
    """What a constructor makes of first weights or of seeded chance is what torch makes."""
    seed = "torch.manual_seed(5); np.random.seed(5)\n" if "rand(" in init else ""
    net = NETWORK.replace("INIT", init).replace("\nclass Net", f"{seed}\nclass Net")
    check_scores(tmp_path, net)


STATEFUL = NETWORK.replace(
    "    def forward",
    """    def get_extra_state(self):
        return torch.tensor(GIVEN)

    def set_extra_state(self, state):
        self.s = float(state)

    def forward""",
).replace("INIT", "self.s = 3.0")


@pytest.mark.parametrize(("given", "threads"), [("self.s", 2), ("7.0", 1)])
def test_threads_keep_what_a_network_made_of_its_state(
    tmp_path: Path, given: str, threads: int
) -> None:
    """A network whose state does not give back what it took up is called on one thread."""
    net = STATEFUL.replace("GIVEN", given)
    check_scores(tmp_path, net)
    state, _ = right_scores(tmp_path, net)
    assert load_network(make_model(tmp_path, net, state), "cpu").threads(2) == threads


def test_adapters_are_merged_into_weights_once(tmp_path: Path) -> None:
    """Another thread's network does not add its adapter to weights that hold it already."""
    check_scores(tmp_path, MERGING)


def test_an_architecture_may_change_its_arguments(tmp_path: Path) -> None:
    """A list of sizes that the constructor appends to is as in the card for the next one."""
    net = NET.replace("__init__(self)", "__init__(self, sizes)").replace(
        "nn.Linear(2, 1)", "nn.Linear(*sizes, sizes.append(1) or 1)"
    )
    sizes = [2]
    model = make_model(tmp_path, net, STATE, architecture_args={"sizes": sizes})
    before = model.identity
    assert load_network(model, "cpu").threads(2) == 2
    assert (sizes, model.identity) == ([2], before)
