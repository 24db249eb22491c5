"""Test which models score otherwise than in versions that cast no weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscore.models.backends.torch.earlier import scores_as_earlier
from tests.factory import NET
from tests.models.backends.torch.networks import make_model

CASTING = """
import torch
import torch.nn.functional as F

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.norm = torch.nn.BatchNorm1d(2)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("places", torch.tensor([0, 1]))
        self.other = torch.nn.Linear(2, 1)
        MORE

    def forward(self, x):
        return FORWARD
"""
CAST_INPUT = "self.linear(x.to(self.linear.weight.dtype)).float()"
CAST_WEIGHT = "F.linear(x, self.linear.weight.to(x.dtype), self.linear.bias.float()[None][0])"
SCALED = "self.linear((self.norm(x) * self.scale)[:, self.places])"
CLASSES = f"({CAST_INPUT} > 0).float()"
HALF = "self.to(torch.bfloat16)"
WIDE = "self.double()"
TIED = "self.other.weight = self.linear.weight"
BOTH = "self.linear(x) + self.other(x)"
BIASED = f"{CAST_INPUT} * self.scale[:1]"


def weights(kind: torch.dtype | None, *names: str) -> dict[str, torch.Tensor]:
    """Return the weights of `CASTING`, some of them stored in another type."""
    torch.manual_seed(5)
    linear, other = torch.randn(1, 2), torch.randn(1, 2)
    # Each value is one of every type but for those that only float32 or float64 has.
    state = {
        "linear.weight": linear.bfloat16().float(),
        "linear.bias": torch.tensor([0.5]),
        "norm.weight": torch.tensor([0.5, 1.5]),
        "norm.bias": torch.tensor([0.25, -1.0]),
        "norm.running_mean": torch.tensor([0.5, 0.0]),
        "norm.running_var": torch.tensor([1.0, 2.0]),
        "norm.num_batches_tracked": torch.tensor(17),
        "scale": torch.tensor([1.5, 0.25]),
        "places": torch.tensor([1, 0]),
        "other.weight": other,
        "other.bias": torch.tensor([0.125]),
    }
    assert {*names} <= {*state}
    return {k: v.to(kind) if k in names and kind else v for k, v in state.items()}


LINEAR = ("linear.weight", "linear.bias")
ROUNDED = {**weights(None), "scale": torch.tensor([1.1, 0.3], dtype=torch.float64)}
CASES: dict[str, tuple[str, str, Mapping[str, torch.Tensor]]] = {
    "nothing is cast": (SCALED, "", weights(None)),
    "computed in bfloat16": (CAST_INPUT, "", weights(torch.bfloat16, *LINEAR)),
    "computed in float16": (CAST_INPUT, "", weights(torch.float16, *LINEAR)),
    "computed in float64": (CAST_INPUT, "", weights(torch.float64, *LINEAR)),
    "classes of bfloat16": (CLASSES, "", weights(torch.bfloat16, *LINEAR)),
    "a bfloat16 network": (CAST_INPUT, HALF, weights(None)),
    "a float64 network": (CAST_INPUT, WIDE, weights(None)),
    "cast in forward": (CAST_WEIGHT, "", weights(torch.bfloat16, *LINEAR)),
    "rounded by the cast": (BIASED, "", ROUNDED),
    "a bfloat16 scale": (SCALED, "", weights(torch.bfloat16, "scale")),
    "int32 places": (SCALED, "", weights(torch.int32, "places")),
    "a count as float32": (SCALED, "", weights(torch.float32, "norm.num_batches_tracked")),
    "a count as int32": (SCALED, "", weights(torch.int32, "norm.num_batches_tracked")),
    "unused weights": (SCALED, "", weights(torch.bfloat16, "other.bias")),
    "tied weights that differ": (BOTH, TIED, weights(None)),
}
SAME = {
    *("nothing is cast", "cast in forward", "a bfloat16 scale", "int32 places"),
    *("a count as float32", "a count as int32", "unused weights"),
}


def scores_by_torch(net: str, state: Mapping[str, torch.Tensor], assign: bool) -> torch.Tensor:
    """Return what a network makes of many rows that took its weights as they are, or cast."""
    names: dict[str, Any] = {"__name__": "reference"}
    exec(net, names)
    module = names["Net"]()
    module.load_state_dict(dict(state), assign=assign)
    with torch.inference_mode():
        made: torch.Tensor = module.eval()(torch.randn(5000, 2, generator=torch.manual_seed(1)))
    return made.float()


@pytest.mark.parametrize(("forward", "more", "state"), CASES.values(), ids=CASES.keys())
def test_models_whose_scores_a_cast_changes_are_known(
    tmp_path: Path, request: Any, forward: str, more: str, state: Mapping[str, torch.Tensor]
) -> None:
    """They are those for which torch's own loading with and without a cast gives other scores."""
    net = CASTING.replace("FORWARD", forward).replace("MORE", more)
    then, now = (scores_by_torch(net, state, assign) for assign in (True, False))
    assert torch.equal(then, now) is (request.node.callspec.id in SAME)
    assert scores_as_earlier(make_model(tmp_path, net, state)) is torch.equal(then, now)


def test_a_model_that_cannot_be_loaded_counts_as_the_same(tmp_path: Path) -> None:
    """What is wrong with it is said where it is to score."""
    assert scores_as_earlier(make_model(tmp_path, NET, {"other": torch.ones(1)}))
