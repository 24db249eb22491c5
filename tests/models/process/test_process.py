"""Tests of models in a process of their own that works."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import Array
from batchscore.columnar.ragged import make_ragged
from batchscore.errors import ModelError, StepError
from batchscore.models.backends.facts import Call, OutputSpec
from batchscore.models.backends.registry import backend_of
from batchscore.models.folder import read_model_folder
from batchscore.models.loadable import Model
from batchscore.models.process.host import Host
from batchscore.models.process.proxy import ProcessBackend
from batchscore.system.processes import start_of
from tests import factory
from tests.backends.faulty import PRINT, RAISE, SAY_PID, SAY_THREAD
from tests.models.process.clients import call_often, calls_of
from tests.models.process.test_memory import ARRAYS

pytestmark = pytest.mark.slow

# Seconds in which something is bound to happen on any machine.
_SOON = 60.0

# The faulty model does something of its own with an input `x`.
NAMES = st.text(max_size=3).filter(lambda name: name != "x")


def backend(host: Host) -> ProcessBackend:
    """The backend of a host's format, in its process."""
    return ProcessBackend(backend_of(host.format), host)


def rows(*values: float) -> dict[str, Array]:
    """Rows of two columns, each with a value that says what the faulty model does."""
    return {"x": np.array([[each, 0] for each in values], np.float32)}


@given(
    batches=st.lists(st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3), max_size=8),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_outputs_are_those_of_their_call(
    host: Host, faulty: Model, batches: list[dict[str, Array]], chance: Random
) -> None:
    """However many calls are under way, and in whatever order they are waited for."""
    calls = calls_of(host, faulty)
    waiting = [(each, calls.predict(each, 1)) for each in batches]
    chance.shuffle(waiting)
    for inputs, outputs in waiting:
        found = outputs()
        assert found.keys() == inputs.keys()
        for name, array in inputs.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()
        assert outputs() is found


def test_batches_may_grow_and_shrink(host: Host, faulty: Model) -> None:
    """Shared memory follows the batch, and rows of varying length come through."""
    calls = calls_of(host, faulty)
    for count in (1, 100_000, 0, 7, 300_000):
        ragged = make_ragged(np.arange(2 * count), np.full(count, 2))
        found = calls.predict({"x": ragged, "y": np.arange(count)}, count)()
        np.testing.assert_array_equal(found["x steps"], ragged.steps_n)
        np.testing.assert_array_equal(found["x offsets"], ragged.offsets)
        np.testing.assert_array_equal(found["y"], np.arange(count))


def test_an_error_of_the_model_is_that_of_its_call_alone(host: Host, faulty: Model) -> None:
    """It has the class and the words that a model in this process raises; other calls go on."""
    calls = backend(host).load(faulty, "cpu").called(Call())
    good, bad, other = [calls.predict(rows(each), 1) for each in (1, RAISE, 2)]
    with pytest.raises(StepError, match="the model raised ZeroDivisionError: no such row") as error:
        bad()
    assert type(error.value.__cause__).__name__ == "ZeroDivisionError"
    assert [good()["score"][0], other()["score"][0]] == [1, 2]


def test_what_a_model_prints_is_reported_once(
    host: Host, faulty: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    """It goes to standard error, and never into a result on standard output."""
    calls = calls_of(host, faulty)
    for _ in range(3):
        calls.predict(rows(PRINT), 1)()
    deadline, fields = time.monotonic() + _SOON, ""
    while fields.count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.2)  # what is written while pytest reads and empties its file is lost
        fields += capfd.readouterr().err
    assert sorted(fields.splitlines()) == ["a line of the model", "another line of the model"]
    assert capfd.readouterr() == ("", "")


def test_each_thread_has_one_of_the_process(host: Host, faulty: Model) -> None:
    """Threads that call at the same time do not wait for each other, nor mix their rows."""
    calls = calls_of(host, faulty)
    together = threading.Barrier(3)

    def call(number: int) -> tuple[int, float]:
        together.wait()
        thread = calls.predict(rows(SAY_THREAD), 1)()["score"][0]
        return int(thread), float(calls.predict(rows(number), 1)()["score"][0])

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(call, range(3)))
    assert [score for _, score in found] == [0, 1, 2]
    assert len({thread for thread, _ in found}) == 3


def test_processes_share_one_model_and_survive_each_other(host: Host, faulty: Model) -> None:
    """Several clients call one process at once; one that is killed disturbs no other."""
    context = multiprocessing.get_context("forkserver")
    clients, results = [], []
    for number in range(3):
        ours, theirs = context.Pipe()
        with host.share() as shared, theirs:
            target = (shared, theirs, number, faulty)
            client = context.Process(target=call_often, args=target, daemon=True)
            client.start()
        clients.append(client)
        results.append(ours)
    pids = {result.recv() for result in results}
    victim = clients[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    for result in results[1:]:
        result.send("go")
    assert [result.recv() for result in results[1:]] == [True, True]
    assert pids == {int(calls_of(host, faulty).predict(rows(SAY_PID), 1)()["score"][0])}
    for client in clients:
        client.join()


def test_signals_for_all_are_left_to_the_parent(host: Host, faulty: Model) -> None:
    """Ctrl-C, SIGTERM and a terminal's end reach all processes of one; the model's goes on."""
    calls = calls_of(host, faulty)
    (pid,) = calls.predict(rows(SAY_PID), 1)()["score"]
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(int(pid), each)
    assert calls.predict(rows(SAY_PID), 1)()["score"][0] == pid


PARENT = """
import os, signal, time
from batchscore.models.process.host import Host
host = Host("npz", 60.0)
connection = host.connect()
connection.ask("backend", "resolve", ("cpu",))
print(host._own._started._process.pid, flush=True)
time.sleep(600)
"""


def test_a_process_ends_with_its_parent(faulty: Model) -> None:
    """Also when that is killed and can do nothing about it; no shared memory is left."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + _SOON
    while start_of(child) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert start_of(child) is None


def test_torch_in_a_process_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of any size, on several threads, with each of the kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net, state = factory.LAYERS, factory.build_net().state_dict()
    model = read_model_folder(str(factory.write_model(tmp_path / "model", net, state)))
    x = np.random.default_rng(3).normal(size=(5000, 2)).astype(np.float32)
    host = Host(model.format, 600.0)
    try:
        here = backend_of(model.format).load(model, "cpu")
        there = backend(host).load(model, "cpu")
        assert there.promises == here.promises
        call = Call((OutputSpec("logit", "float32", ()),), threads=2)
        expected = here.called(call).predict({"x": x}, len(x))()["logit"]
        calls = there.called(call)
        parts = [x[:1], x[1:1025], x[1025:1026], x[1026:]]
        waiting = [calls.predict({"x": part}, len(part)) for part in parts]
        found = np.concatenate([each()["logit"] for each in waiting])
        assert found.tobytes() == expected.tobytes()
        other = replace(call, kernels="onednn")
        ours, theirs = (
            each.called(other).predict({"x": x}, len(x))()["logit"].tobytes()
            for each in (here, there)
        )
        assert ours == theirs
        with pytest.raises(ModelError, match="kernels cublas cannot be used"):
            there.called(replace(call, kernels="cublas")).predict({"x": x}, len(x))()
        assert backend(host).known_kernels(model, call) is None
        trial = there.try_kernels(call, {"x": x[:64]}, 64)
        assert trial.seconds.keys() == {*backend(host).kernels} == {"default", "onednn"}
        backend(host).remember_kernels(model, call, trial)
        assert backend(host).known_kernels(model, call) == trial
        again = there.again()
        assert again is not None
        assert again({"x": x})["logit"].tobytes() == expected.tobytes()
    finally:
        host.close()
