"""Test which kernels a run computes with, why, and that wrong ones are never chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from batchscore.errors import DeviceError, ModelError
from batchscore.job import load_job
from batchscore.models.backends.facts import KernelTrial
from batchscore.models.backends.torch.backend import BACKEND
from batchscore.plan import make_plan
from batchscore.plan.kernels import _obstacle
from batchscore.plan.plan import Plan
from batchscore.plan.readiness import verify
from batchscore.units.unit import Unit
from batchscore.worker.scoring import call_of
from tests import factory

Make = Callable[..., Plan]

QUICK = {"default": 2e-4, "onednn": 1e-4}
ALTER = "batchscore.models.backends.torch.predictor.with_onednn"
GOLDEN = pa.table(
    {
        "x": pa.array([[0.5, 1.0], [1000.0, 0.0]], pa.list_(pa.float32(), 2)),
        "logit": pa.array([0.0, 0.0], pa.float32()),
    }
)

pytestmark = pytest.mark.slow


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Verifies a plan of the small job with layers, which has `fastest`; times are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(
        times: dict[str, float] | None = QUICK,
        kept: str = "fastest",
        card: dict[str, Any] | None = None,
        **runtime: Any,
    ) -> Plan:
        runtime = {"kernels": "fastest", **runtime}
        job = factory.write_job(tmp_path, {f"runtime.{key}": v for key, v in runtime.items()})
        layers = {"net": factory.LAYERS, "state": factory.build_net().state_dict()}
        factory.write_model(tmp_path / "model", **{**layers, **(card or {})})
        plan = make_plan(load_job(str(job)))
        default = with_kernels(plan, "default")
        if times is not None:
            trial = KernelTrial(times, 1024)
            BACKEND.remember_kernels(plan.spec.scoring.model, on_cpu(default), trial)
        plan = with_kernels(plan, kept) if runtime["kernels"] == "fastest" else plan
        return verify(plan, [Unit("u", plan.pieces)])

    return made


def with_kernels(plan: Plan, kernels: str) -> Plan:
    execution = replace(plan.spec.execution, kernels=kernels)
    return replace(plan, spec=replace(plan.spec, execution=execution))


def on_cpu(plan: Plan) -> Any:
    return replace(call_of(plan.spec), device="cpu")


def chosen(plan: Plan) -> tuple[str, str]:
    """The chosen kernels and why, as the manifest has them; `check` prints the same."""
    found = plan.inference["kernels"]
    assert plan.spec.execution.kernels == found["chosen"]
    assert plan.choices["kernels"] == f"{found['chosen']}: {found['why']}"
    return found["chosen"], found["why"]


def wrong(
    alter: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[..., torch.nn.Module]:
    """Returns what replaces a network's kernels by some whose outputs are altered."""

    def altered(module: torch.nn.Module, packed: object) -> torch.nn.Module:
        own = type(module).forward
        vars(module)["forward"] = lambda x: alter(x, own(module, x))
        return module

    return altered


def test_default_tries_nothing(plan: Make) -> None:
    """A job that asks for nothing has the kernels of torch, and says nothing of them."""
    made = plan(kernels="default")
    assert made.spec.execution.kernels == "default"
    assert "kernels" not in made.inference
    assert "kernels" not in made.choices


def test_the_fastest_within_the_tolerance_are_chosen(plan: Make) -> None:
    """The plan says what calls take, and the largest difference; the sample scores the same."""
    made = plan()
    name, why = chosen(made)
    assert name == "onednn"
    assert why.startswith("the fastest (onednn 0.1 ms, default 0.2 ms for 1,024 rows); scores")
    found = made.inference["kernels"]
    assert found["seconds"] == QUICK
    assert found["sample_rows"] == 500
    assert 0 <= found["gaps"]["logit"] < 1e-6
    assert "500 rows score the same" in made.choices["alone"]


@pytest.mark.parametrize("default", [0.5, 1.09])
def test_what_gains_less_than_a_tenth_is_not_chosen(plan: Make, default: float) -> None:
    """Times differ by some per cent between runs: a smaller gain is not worth other bits."""
    name, why = chosen(plan({"default": default, "onednn": 1.0}))
    assert name == "default"
    assert why.startswith("no others are faster by a tenth (")


def test_kernels_are_timed_once(plan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is remembered the model's calls are timed, and the next run knows it."""
    made = plan(times=None)
    times = made.inference["kernels"]["seconds"]
    assert times.keys() == {"default", "onednn"}
    assert min(times.values()) > 0
    monkeypatch.setattr("batchscore.models.backends.torch.predictor.time_kernels", None)
    again = plan(times=None)
    assert again.inference["kernels"]["seconds"] == times


def test_kernels_beyond_the_tolerance_are_refused(
    plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that are too far from default's leave default chosen, and the gap is named."""
    monkeypatch.setattr(ALTER, wrong(lambda x, y: y + 0.001))
    name, why = chosen(plan())
    assert name == "default"
    assert "with onednn, output 'logit' differs by up to 0.001 on a sample of 500 rows" in why
    assert "tolerance is 1e-05" in why
    assert chosen(plan(card={"tolerance": 0.01}))[0] == "onednn"


def test_kernels_that_fail_a_golden_row_are_refused(
    plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden row far from all rows of the sample decides as well."""
    x = torch.tensor(GOLDEN["x"].to_pylist())
    with torch.inference_mode():
        logit = pa.array(factory.build_net()(x).numpy())
    table = GOLDEN.set_column(1, "logit", logit)
    card = {"tables": {"g.parquet": table}, "golden": "g.parquet"}
    assert chosen(plan(card=card))[0] == "onednn"
    monkeypatch.setattr(ALTER, wrong(lambda x, y: y + (x[:, 0] > 500)))
    assert "differs by up to 1 on" in chosen(plan(card=card))[1]


def test_kernels_that_know_a_row_by_its_place_are_refused(
    plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit that goes by a row's place in its call is enough, whatever the tolerance."""
    bit = torch.zeros(1024)
    bit[7] = 1e-7
    monkeypatch.setattr(ALTER, wrong(lambda x, y: y + bit[: len(y)]))
    name, why = chosen(plan())
    assert (name, "depend on its place in a call" in why) == ("default", True)


def test_kernels_that_fail_the_test_of_neighbours_are_refused(
    plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the test of independence finds leaves default chosen, which is tested then."""
    monkeypatch.setattr(ALTER, wrong(lambda x, y: y + float(len(x) < 1024) * x.mean()))
    made = plan(batch_rows=2000)
    name, why = chosen(made)
    assert name == "default"
    assert why.startswith("with onednn, architecture net.py:Net")
    assert "other rows" in why
    assert "score the same" in made.choices["alone"]


def test_kernels_that_raise_are_refused(plan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that default does not meet leaves default chosen."""
    monkeypatch.setattr(ALTER, wrong(lambda x, y: y.no_such_thing))  # type: ignore[attr-defined]
    name, why = chosen(plan())
    assert (name, "no_such_thing" in why) == ("default", True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": "cuda"}, "other kernels are for the CPU"),
        ({"compile": True}, "runtime.compile chooses kernels itself"),
        ({"precision": "bf16"}, "compute in float32, and runtime.precision is bf16"),
    ],
)
def test_elsewhere_fastest_is_default(plan: Make, changes: dict[str, Any], why: str) -> None:
    """On a GPU, compiled, or in another precision there is no choice, and `check` says so."""
    made = plan(kernels="default")
    spec = replace(made.spec, execution=replace(made.spec.execution, **changes))
    assert why in _obstacle(replace(made, spec=spec))


def test_another_precision_and_fastest_go_together(plan: Make) -> None:
    """A job that asks for both gets the precision, and default kernels."""
    made = plan(card={"tolerance": 0.1}, precision="bf16")
    assert chosen(made)[0] == "default"
    assert made.inference["precision"] == "bf16"


def test_a_network_without_layers_says_so(plan: Make) -> None:
    """Where oneDNN has nothing to compute, default is chosen without an error."""
    card = {"net": factory.NET, "state": factory.STATE}
    name, why = chosen(plan(times=None, card=card))
    assert name == "default"
    assert why == "kernels onednn cannot be used: the network has no plain linear layer of float32"


def test_rows_without_a_score_prove_nothing(plan: Make) -> None:
    """Where no row of the sample has a score, default is chosen, and nothing is remembered."""
    net = factory.LAYERS.replace(".sum(dim=1)", ".sum(dim=1) * float('nan')")
    why = "there is no row with a score to try others with"
    assert chosen(plan(times=None, card={"net": net})) == ("default", why)
    assert chosen(plan(card={"net": net})) == ("default", why)


@pytest.mark.parametrize("kept", ["default", "onednn"])
def test_a_slice_keeps_its_kernels(plan: Make, kept: str) -> None:
    """Kernels of rows that were scored before are taken, whatever is the fastest now."""
    made = plan({"default": 1e-4, "onednn": 2e-4} if kept == "onednn" else QUICK, kept)
    name, why = chosen(made)
    assert (name, made.inference["kernels"]["kept"]) == (kept, True)
    assert why.startswith("rows of the slice were scored with them before")


@pytest.mark.parametrize(
    ("alter", "error", "why"),
    [
        (lambda x, y: y + 0.001, ModelError, "differs by up to 0.001 on a sample"),
        (lambda x, y: y.no_such_thing, DeviceError, "no_such_thing"),
    ],
)
def test_kernels_of_a_slice_that_are_wrong_end_the_run(
    plan: Make, monkeypatch: pytest.MonkeyPatch, alter: Any, error: type[Exception], why: str
) -> None:
    """A run that cannot score as the slice was scored ends before any work, with a remedy."""
    monkeypatch.setattr(ALTER, wrong(alter))
    with pytest.raises(
        error, match=rf"runtime.kernels onednn: rows .* before, but .*{why}.*--rescore"
    ):
        plan(kept="onednn")


def test_kernels_of_a_slice_that_cannot_be_used_end_the_run(plan: Make) -> None:
    """Where the kernels are unknown, or cannot be what is asked for, the error says so."""
    with pytest.raises(DeviceError, match="kernels cublas cannot be used: torch models know"):
        plan(kept="cublas")
    with pytest.raises(DeviceError, match=r"runtime.precision is bf16; run the job where"):
        plan(kept="onednn", card={"tolerance": 0.1}, precision="bf16")
