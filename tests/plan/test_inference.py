"""Test that a faster way to compute is taken within the model's tolerance, and refused beyond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch._inductor as inductor

from batchscore.errors import DeviceError, InvalidError, ModelError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.plan.gaps import compare_blocks
from batchscore.plan.inference import _search
from batchscore.plan.plan import Plan
from batchscore.plan.readiness import verify
from batchscore.plan.rehearsal import first_blocks
from batchscore.plan.worker_count import choose_workers
from batchscore.worker.scoring import load_plain
from tests import factory
from tests.factory import make_batch, make_block

Make = Callable[..., Plan]

PICKY = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            raise TypeError("no kernel for BFloat16")
        return self.linear(x).squeeze(1)
"""
# No score is a number where bf16 or fp16 is asked for.
BRITTLE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        logit = self.linear(x).squeeze(1).float()
        return logit * torch.nan if torch.is_autocast_enabled("cpu") else logit
"""


@pytest.fixture
def plan(tmp_path: Path) -> Make:
    """Verifies the plan of the small job with other runtime options, and another model card."""

    def made(card: dict[str, Any] | None = None, **runtime: Any) -> Plan:
        changes = {f"runtime.{key}": value for key, value in runtime.items()}
        job = factory.write_job(tmp_path, changes)
        factory.write_model(tmp_path / "model", **(card or {}))
        return verify(make_plan(load_job(str(job))))

    return made


def test_the_default_is_float32_in_tiles(plan: Make) -> None:
    """Nothing is tried where nothing was asked for."""
    made = plan()
    assert (
        made.spec.execution.precision,
        made.spec.execution.compile,
        made.spec.execution.call_rows,
    ) == ("float32", False, 1024)
    assert made.inference["gaps"] == {}
    assert made.inference["sample_rows"] == 0
    assert not {"micro_batch", "precision", "compile"} & set(made.choices)


def test_what_stays_within_the_tolerance_is_taken(plan: Make) -> None:
    """The plan says how far the sample's scores are from float32, and what was allowed."""
    made = plan({"tolerance": 0.01}, precision="bf16")
    assert 0 < made.inference["gaps"]["logit"] < 0.01
    assert made.inference["sample_rows"] == 300 + 200
    assert "tolerance 0.01" in made.choices["precision"]


def test_what_goes_beyond_the_tolerance_is_refused(plan: Make) -> None:
    """The error names gap, tolerance and remedy; by default the tolerance is 1e-5."""
    with pytest.raises(
        ModelError,
        match=r"runtime.precision bf16: output 'logit' .* up to 0.00\d+ from float32 on a sample "
        r"of 500 rows, and its tolerance is 1e-05; set runtime.precision: float32, or",
    ):
        plan(precision="bf16")


def test_golden_rows_are_compared_too(plan: Make) -> None:
    """A golden row far from the sample's decides as well."""
    golden = pa.table(
        {
            "x": pa.array([[1000.5, 3.0], [0.0, 0.0]], pa.list_(pa.float32(), 2)),
            "logit": pa.array([499.625, 0.125], pa.float32()),
        }
    )
    card = {"tables": {"g.parquet": golden}, "golden": "g.parquet", "tolerance": 0.01}
    with pytest.raises(ModelError, match="from float32 on the golden rows"):
        plan(card, precision="bf16")
    assert plan({**card, "tolerance": 5.0}, precision="bf16").inference["gaps"]["logit"] > 0.01


def test_rows_that_lose_their_score_are_refused(plan: Make) -> None:
    """A row that is no number in the faster way only is infinitely far."""
    with pytest.raises(ModelError, match="differs by up to inf from float32"):
        plan({"net": BRITTLE, "tolerance": 9.0}, precision="bf16")


def test_rows_that_never_have_a_score_prove_nothing(plan: Make) -> None:
    """Where float32 makes no number either, nothing speaks for bf16, and it is refused."""
    net = factory.NET.replace("squeeze(1)", "squeeze(1) * torch.nan")
    with pytest.raises(ModelError, match=r"bf16: no row of the first 16 batches has a score"):
        plan({"net": net}, precision="bf16")


def test_a_later_batch_speaks_where_the_first_has_no_score(plan: Make) -> None:
    """Batches whose rows all lack a score are passed over for one that has some."""
    late = factory.NET.replace("squeeze(1)", "squeeze(1).where(x[:, 0] > 0.5, torch.nan)")
    made = plan({"net": late, "tolerance": 0.01}, precision="bf16", batch_rows=1)
    assert made.inference["sample_rows"] == 1
    assert made.inference["gaps"]


def test_a_network_that_cannot_do_it_is_reported(plan: Make) -> None:
    """An error in the faster way only names the option and the remedy."""
    with pytest.raises(ModelError, match=r"cannot be called in bf16.*BFloat16.*precision: float32"):
        plan({"net": PICKY, "tolerance": 9.0}, precision="bf16")


@pytest.mark.slow
def test_a_network_is_compiled(plan: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the tolerance and its warm-up is reported; without a compiler that is an error."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    made = plan(compile=True)
    assert made.spec.execution.compile
    assert made.inference["gaps"]["logit"] <= 1e-5
    assert made.inference["warm_up_seconds"] > 0
    assert "to warm up" in made.choices["compile"]
    monkeypatch.setattr(inductor.config.cpp, "cxx", ("/bin/false",))
    with pytest.raises(
        ModelError, match=r"float32 compiled, although it can.*runtime.compile: false"
    ):
        plan({"net": factory.NET.replace("squeeze(1)", "squeeze(1) * 1.5")}, compile=True)


def test_tf32_is_for_gpus(plan: Make) -> None:
    """On the CPU it is an error, not a quiet float32."""
    with pytest.raises(DeviceError, match="tf32: needs a GPU"):
        plan(precision="tf32")


@pytest.mark.parametrize("rows", [2, 40, 1_001])
def test_a_micro_batch_that_changes_bits_is_refused(plan: Make, rows: int) -> None:
    """On the CPU rows left over from a kernel's group have other bits."""
    with pytest.raises(InvalidError, match=rf"micro_batch {rows}: .*a multiple of 64"):
        plan(micro_batch=rows)


def test_a_given_micro_batch_is_taken(plan: Make) -> None:
    """Rows of a call are as many as asked for, also on the CPU."""
    made = plan(micro_batch=64)
    assert made.spec.execution.call_rows == 64
    assert made.choices["micro_batch"] == "64, as asked for"


def test_a_micro_batch_of_more_than_a_batch_is_refused(plan: Make) -> None:
    """On the CPU calls of more rows than a batch, in whole groups, would be padding alone."""
    assert plan(micro_batch=128, batch_rows=100).spec.execution.call_rows == 128
    with pytest.raises(InvalidError, match=r"micro_batch 192: .*set 128 or less"):
        plan(micro_batch=192, batch_rows=100)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_a_search_leaves_out_rows_that_have_no_score(plan: Make) -> None:
    """One row on which the network raises does not end the search over the others."""
    picky = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        if (x[:, 0] == x.new_tensor(BAD)).any():
            raise ValueError("bad row")
        return self.linear(x).squeeze(1)
"""
    first = next(first_blocks(plan()))
    bad = first.batch.column("a")[3].as_py()
    made = plan({"net": picky.replace("BAD", repr(bad))})
    execution = replace(made.spec.execution, max_rejects=10)
    made = replace(made, spec=replace(made.spec, execution=execution))
    rows, why = _search(made, load_plain(made.spec))
    assert rows >= 1
    assert f"batches of {len(first) - 1:,}" in why


def test_a_sample_without_rows_leaves_the_golden_rows(tmp_path: Path) -> None:
    """A filter that keeps no row is no reason to fail here."""
    job = factory.write_job(
        tmp_path,
        {
            "runtime.precision": "bf16",
            "input.filters": [["a", ">", 5.0]],
            "input.allow_empty": True,
        },
    )
    made = verify(make_plan(load_job(str(job))))
    assert made.inference["gaps"] == {}


def test_a_batch_that_cannot_be_read_is_found_wrong_beforehand(tmp_path: Path) -> None:
    """The error of a function that fails on the sample is an InvalidError: nothing was written."""
    (tmp_path / "f.py").write_text("def f(batch):\n    raise ValueError('no')\n")
    job = factory.write_job(
        tmp_path, {"runtime.precision": "bf16", "preprocess": {"function": "f.py:f"}}
    )
    with pytest.raises(InvalidError, match="no"):
        verify(make_plan(load_job(str(job))))


@pytest.mark.parametrize("option", [{"precision": "bf16"}, {"micro_batch": 64}, {"compile": True}])
def test_what_changes_bits_changes_the_fingerprint(tmp_path: Path, option: dict[str, Any]) -> None:
    """Scores made one way are not taken for those of another; the device's name does not count."""
    job = factory.write_job(tmp_path)
    before = make_plan(load_job(str(job)))
    (key, value), *_ = option.items()
    factory.change_job(tmp_path, {f"runtime.{key}": value})
    after = make_plan(load_job(str(job)))
    assert after.fingerprint != before.fingerprint
    assert after.score != before.score
    factory.change_job(tmp_path, {f"runtime.{key}": None, "runtime.device": "cpu"})
    assert make_plan(load_job(str(job))).fingerprint == before.fingerprint


@pytest.mark.slow
def test_the_manifest_says_what_was_chosen(tmp_path: Path) -> None:
    """A run with another precision publishes scores of it, and says how far they may be."""
    job = factory.write_job(tmp_path, {"runtime.precision": "bf16"})
    before = factory.run_json("run", job)
    assert before["status"] == "invalid"
    assert not (tmp_path / "out").exists()
    factory.write_model(tmp_path / "model", tolerance=0.01)
    done = factory.run_json("run", job)
    assert done["status"] == "published"
    assert done["inference"]["precision"] == "bf16"
    assert 0 < done["inference"]["gaps"]["logit"] < 0.01
    scores = factory.published(tmp_path / "out")["score"].to_numpy()
    factory.change_job(tmp_path, {"runtime.precision": "float32"})
    assert factory.run_json("run", job)["status"] == "published"
    plain = factory.published(tmp_path / "out")["score"].to_numpy()
    assert 0 < np.abs(scores - plain).max() < 0.01


def test_gaps_are_of_the_worst_row() -> None:
    """Each output's own; rows that are others are infinitely far."""
    rows = make_batch(id=[0, 1])
    known = make_block(rows, values=make_batch(a=[1.0, 2.0], b=[1, 2]))
    made = replace(known, values=make_batch(a=[1.0, 2.5], b=[1, 2]))
    assert compare_blocks(known, made) == {"a": 0.5, "b": 0.0}
    other = replace(made, rows_b=pa.array([0, 2]))
    assert compare_blocks(known, other) == {"a": np.inf, "b": np.inf}


@pytest.mark.parametrize(
    ("asked", "gpus", "units", "workers"),
    [("auto", 4, 9, 4), ("auto", 4, 2, 2), ("auto", 1, 9, 1), ("auto", 2, 0, 1), (3, 2, 9, 3)],
)
def test_each_gpu_has_a_worker(asked: int | str, gpus: int, units: int, workers: int) -> None:
    """Few rows or many, workers are as many as GPUs that find a unit, or as asked for."""
    found, why = choose_workers(asked, [factory.make_unit(10)] * units, ["/in"], gpus)
    assert found == workers
    assert (" GPU" in why) is (asked == "auto")
