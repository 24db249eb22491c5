"""Test that oneDNN computes a network's linear layers, and leaves alone what is no plain one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchscore.columnar.arrays import Array
from batchscore.errors import ModelError
from batchscore.models.backends.facts import Call
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.torch import onednn
from batchscore.models.backends.torch.backend import BACKEND
from batchscore.models.backends.torch.predictor import KERNELS, TorchPredictor
from tests.factory import build_net
from tests.models.backends.torch.networks import make_model

ONEDNN = Call(kernels="onednn")
ROWS = np.random.default_rng(5).normal(size=(700, 2)).astype(np.float32)

HEAD = """
import torch
from torch import nn
from torch.nn.utils import parametrizations

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 16), nn.Linear(16, 2)
"""
TWO_LAYERS = f"""{HEAD}
    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))[:, 0]
"""
# A layer of each kind that is not a plain one, and a plain one with it.
STRANGE = {
    "a hook before it": """
        self.first.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    """,
    "a hook after it": """
        self.first.register_forward_hook(lambda module, given, made: made + 1)
    """,
    "parametrized weights": "self.first = parametrizations.weight_norm(self.first)",
    "a call of its own": "self.first.forward = lambda x: torch.zeros(len(x), 16)",
    "a class of its own": """
        class Doubled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)
        self.first = Doubled(2, 16)
    """,
    "float64": "self.first = nn.Sequential(self.first, nn.ReLU()).double()",
    "an activation with a hook": """
        relu = nn.ReLU()
        relu.register_forward_hook(lambda module, given, made: made - 1)
        self.first = nn.Sequential(self.first, relu)
    """,
    "an activation that is used twice": """
        relu = nn.ReLU()
        self.first = nn.Sequential(self.first, relu, nn.Linear(16, 16), relu, relu)
    """,
    "steps of a sequence that are called one by one": """
        self.first = nn.Sequential(nn.Sequential(self.first, nn.Sigmoid())[0], nn.ReLU())
    """,
}


def predictor_of(folder: Path, net: str, **changes: Any) -> tuple[TorchPredictor, Any]:
    """Returns a network as it is loaded, and the same built and called by torch alone."""
    own = build_net(net)
    state = {name: each.contiguous() for name, each in own.state_dict().items()}
    made = backend_of("safetensors").load(make_model(folder, net, state, **changes), "cpu")
    assert isinstance(made, TorchPredictor)
    return made, own


def scores(predictor: TorchPredictor, call: Call = ONEDNN, rows_bf: Array = ROWS) -> Array:
    """Returns what a network makes of rows."""
    return predictor.called(call).predict({"x": rows_bf}, len(rows_bf))()["score"]


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_plain_layer_computes_as_before(tmp_path: Path, kind: str) -> None:
    """Layers with hooks, code, types or weights of their own give torch's own scores."""
    cast = ".double()" if kind == "float64" else ""
    net = f"""{HEAD}        {STRANGE[kind].strip()}

    def forward(self, x):
        return self.last(self.first(x{cast}).float())[:, 0]
"""
    predictor, own = predictor_of(tmp_path, net)
    with torch.inference_mode():
        expected = own(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(scores(predictor), expected, rtol=0, atol=2e-6)


def test_scores_are_those_of_float64(tmp_path: Path) -> None:
    """A linear layer is the product of NumPy, to the precision of float32."""
    net = TWO_LAYERS.replace("torch.tanh(self.first(x))", "self.first(x).clamp(0)")
    predictor, own = predictor_of(tmp_path, net)
    weights: Mapping[str, Array] = {n: t.numpy().astype(float) for n, t in own.state_dict().items()}
    hidden = np.maximum(ROWS @ weights["first.weight"].T + weights["first.bias"], 0)
    expected = (hidden @ weights["last.weight"].T + weights["last.bias"])[:, 0]
    np.testing.assert_allclose(scores(predictor), expected, rtol=0, atol=1e-6)


def test_default_calls_keep_their_bits(tmp_path: Path) -> None:
    """The network that was loaded is not altered, also not the one that is built again."""
    predictor, _ = predictor_of(tmp_path, TWO_LAYERS)
    before = scores(predictor, Call())
    scores(predictor)
    assert scores(predictor, Call()).tobytes() == before.tobytes()
    again = predictor.again()
    assert scores(again).tobytes() == scores(predictor).tobytes()
    assert scores(again, Call()).tobytes() == before.tobytes()


def test_oneDNN_is_really_called(  # noqa: N802
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each plain layer of more than one output has its weights packed once for all threads."""
    packed = list[tuple[int, ...]]()

    class Counted(onednn.PackedWeights):
        def of(self, weight: torch.Tensor) -> torch.Tensor:
            before = len(self._known)
            made = super().of(weight)
            packed.extend([tuple(weight.shape)] * (len(self._known) - before))
            return made

    monkeypatch.setattr("batchscore.models.backends.torch.predictor.PackedWeights", Counted)
    predictor, _ = predictor_of(tmp_path, TWO_LAYERS)
    for threads in (1, 4, 2):
        scores(predictor, Call(kernels="onednn", threads=threads), np.tile(ROWS, (8, 1)))
    assert sorted(packed) == [(2, 16), (16, 2)]


def test_single_rows_and_empty_inputs_reach_a_layer(tmp_path: Path) -> None:
    """A layer that is given a vector, or no numbers, computes as torch does."""
    net = f"""{HEAD}
    def forward(self, x):
        one = self.first(x[0])
        none = self.first(x[:0])
        return self.last(self.first(x))[:, 0] + 0 * one.sum() + none.sum()
"""
    predictor, own = predictor_of(tmp_path, net)
    with torch.inference_mode():
        expected = own(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(scores(predictor), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (TWO_LAYERS.replace("nn.Linear(2, 16), nn.Linear(16, 2)", "nn.Bilinear(2, 2, 1), None")
         .replace("self.last(torch.tanh(self.first(x)))", "self.first(x, x)"), "no plain linear"),
        (TWO_LAYERS.replace("__init__()\n", "__init__()\n        self.drawn = torch.rand(3)\n"),
         "cannot be built twice"),
    ],
)  # fmt: skip
def test_why_a_network_cannot_use_it_is_said(tmp_path: Path, net: str, why: str) -> None:
    """Without a linear layer, or where no second network is possible, an error says so."""
    predictor, _ = predictor_of(tmp_path, net)
    with pytest.raises(ModelError, match=f"kernels onednn cannot be used: .*{why}"):
        predictor.called(ONEDNN)
    assert predictor.try_kernels(Call(), {"x": ROWS}, len(ROWS)).seconds == {}


def test_a_torch_without_it_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no such call, or none that computes, the error names torch's version."""
    predictor, _ = predictor_of(tmp_path, TWO_LAYERS)

    def fails(*_: object) -> None:
        raise NotImplementedError("no such kernel")

    onednn.missing_onednn.cache_clear()
    monkeypatch.setattr(onednn._Linear, "__call__", fails)
    with pytest.raises(ModelError, match=r"torch 2\..* offers no .* \(no such kernel\)"):
        predictor.called(ONEDNN)
    monkeypatch.undo()
    onednn.missing_onednn.cache_clear()


def test_other_kernels_are_unknown(tmp_path: Path) -> None:
    """A name that an output's record may hold and nobody knows is an error."""
    predictor, _ = predictor_of(tmp_path, TWO_LAYERS)
    with pytest.raises(ModelError, match=r"kernels cublas .* torch models know default and onednn"):
        predictor.called(Call(kernels="cublas"))
    assert BACKEND.kernels == KERNELS
