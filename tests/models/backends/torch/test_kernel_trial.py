"""Test how kernels are timed within a second, and what is remembered of that."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchscore.columnar.ragged import Varying, make_ragged
from batchscore.models.backends.facts import Call, KernelTrial
from batchscore.models.backends.remembered import cache_file
from batchscore.models.backends.torch import kernel_trial
from batchscore.models.backends.torch.backend import BACKEND
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.kernel_trial import FILE, time_kernels
from batchscore.models.loadable import Model
from tests.factory import NET
from tests.models.backends.torch.networks import make_model

ROWS = np.zeros((64, 2), np.float32)
TRIAL = KernelTrial({"default": 2e-4, "onednn": 1e-4}, 1024, "")


class Clock:
    """Time that passes only when a network is called, for so many seconds a row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **row_seconds: float) -> None:
        self.now, self.called = 0.0, dict.fromkeys(row_seconds, 0)
        self.row_seconds = row_seconds
        for name in ("thread_time", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: self.now)

    def calls(self, **changes: Any) -> dict[str, Forward]:
        """Returns a network by kernels."""
        return {
            name: Forward(self._network(name), (), "cpu", 1, **changes) for name in self.row_seconds
        }

    def _network(self, name: str) -> Any:
        def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
            x = tensors["x"]
            self.called[name] += 1
            self.now += len(x) * self.row_seconds[name]
            return x.reshape(len(x), -1)[:, 0]

        return call


def test_quick_calls_are_timed_as_a_run_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a run's size are made several times, in well under a second."""
    clock = Clock(monkeypatch, default=1e-6, onednn=5e-7)
    found = time_kernels(clock.calls(), {"x": ROWS}, len(ROWS))
    assert found.rows == 1024
    assert found.seconds == pytest.approx({"default": 1024e-6, "onednn": 512e-6})
    assert clock.called["onednn"] >= 5
    assert clock.now < 1


def test_slow_calls_have_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes long is timed with smaller calls, each kernel three times at least."""
    clock = Clock(monkeypatch, default=1e-3, onednn=2e-3)
    found = time_kernels(clock.calls(), {"x": ROWS}, len(ROWS))
    assert 1 < found.rows < 200
    assert found.seconds["default"] == pytest.approx(found.rows * 1e-3)
    assert min(clock.called.values()) >= 4
    assert clock.now < 1.5


def test_the_quickest_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that something else made slower are left out."""
    clock = Clock(monkeypatch, default=1e-6, onednn=1e-6)
    calls = clock.calls()
    quick = calls["default"].call

    def disturbed(tensors: dict[str, torch.Tensor]) -> Any:
        clock.now += 0.0 if clock.called["default"] % 3 == 0 else 0.01
        return quick(tensors)

    disturbed_calls = {**calls, "default": replace(calls["default"], call=disturbed)}
    found = time_kernels(disturbed_calls, {"x": ROWS}, len(ROWS))
    assert found.seconds["default"] == pytest.approx(1024e-6)


def test_rows_of_varying_length_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are cut into the tiles of their buckets, as in a run."""
    clock = Clock(monkeypatch, default=1e-6, onednn=1e-6)
    lengths_b = np.arange(64) % 20
    steps = make_ragged(np.zeros(lengths_b.sum(), np.float32), lengths_b)
    calls = clock.calls(varying={"x": Varying(20, 0, False)})
    assert time_kernels(calls, {"x": steps}, 64).seconds.keys() == {"default", "onednn"}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model, and a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_model(tmp_path)


def test_a_trial_is_remembered(model: Model, tmp_path: Path) -> None:
    """What was found is found again, for the same model and calls alone."""
    assert BACKEND.known_kernels(model, Call()) is None
    BACKEND.remember_kernels(model, Call(), TRIAL)
    assert BACKEND.known_kernels(model, Call()) == TRIAL
    assert BACKEND.known_kernels(model, Call(rows=64)) is None
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", NET.replace("squeeze(1)", "squeeze()"))
    assert BACKEND.known_kernels(other, Call()) is None


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("torch_version", "2.99.0"),
        ("cpu_name", "Zen 9"),
        ("describe_device", "cpu, AVX1024"),
    ],
)
def test_another_machine_or_version_is_tried_again(
    model: Model, monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    """A trial counts for one version of torch, one processor and one set of instructions."""
    BACKEND.remember_kernels(model, Call(), TRIAL)
    monkeypatch.setattr(kernel_trial, name, lambda *_: other)
    assert BACKEND.known_kernels(model, Call()) is None
    monkeypatch.undo()


@pytest.mark.parametrize(
    "found",
    [
        None,
        7,
        {},
        {**vars(TRIAL), "more": 1},
        {**vars(TRIAL), "seconds": [1.0]},
        {**vars(TRIAL), "seconds": {"default": -1.0}},
        {**vars(TRIAL), "seconds": {"default": "1"}},
        {**vars(TRIAL), "rows": True},
        {**vars(TRIAL), "why": None},
    ],
    ids=str,
)
def test_a_damaged_memory_is_as_none(model: Model, found: Any) -> None:
    """Whatever is in the cache, no error comes of it: the kernels are tried again."""
    BACKEND.remember_kernels(model, Call(), TRIAL)
    (key,) = json.loads(cache_file(FILE).read_text())
    cache_file(FILE).write_text(json.dumps({key: found}))
    assert BACKEND.known_kernels(model, Call()) is None
