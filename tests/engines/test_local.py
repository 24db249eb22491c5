"""Pipelines on this machine, and worker processes that end with the run."""

from __future__ import annotations

import os
import queue
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import psutil
import pytest
import torch
from apache_beam.metrics.metric import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import ExternalEnvironment

from batchscore.engines.local import WorkerPool, run
from tests.waiting import wait_until


def leave_pid(folder: str, element: int) -> int:
    """Leave a file that is named after this process."""
    Metrics.counter("test", "elements").inc()
    Metrics.distribution("test", "value").update(element)
    (Path(folder) / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
    if element < 0:
        raise ValueError(f"element {element} is negative")
    return element


def graph(folder: Path, elements: list[int]) -> Callable[[beam.Pipeline], None]:
    """A pipeline over elements that tells which processes worked on it."""

    def build(pipeline: beam.Pipeline) -> None:
        spread = pipeline | beam.Create(elements) | beam.Reshuffle()
        _ = spread | "Leave" >> beam.Map(lambda element: leave_pid(str(folder), element))

    return build


def pids(folder: Path) -> set[int]:
    """The processes that worked."""
    return {int(path.name.partition("-")[0]) for path in folder.iterdir()}


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    """One worker runs in this process, and Beam's metrics come back sorted by step and name."""
    metrics = run(graph(tmp_path, [1, 2, 3]), (), 1, pytest.fail)
    assert pids(tmp_path) == {os.getpid()}
    ours = [{k: v for k, v in m.items() if k != "step"} for m in metrics if m["step"] == "Leave"]
    assert ours == [
        {"name": "elements", "value": 3},
        {"name": "value", "count": 3, "sum": 6, "min": 1, "max": 3},
    ]


@pytest.mark.slow
def test_workers_end_with_the_run(tmp_path: Path) -> None:
    """Several workers are processes of their own, and none is left when the run is over."""
    lost: list[str] = []
    run(graph(tmp_path, list(range(40))), (), 2, lost.append)
    workers = pids(tmp_path)
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert not [pid for pid in workers if psutil.pid_exists(pid)]
    assert lost == []


@pytest.mark.slow
def test_workers_end_with_a_failure(tmp_path: Path) -> None:
    """A step that fails in a worker fails the run with its words, and no worker is left."""
    lost: list[str] = []
    with pytest.raises(RuntimeError, match="element -1 is negative"):
        run(graph(tmp_path, [-1, 1]), (), 2, lost.append)
    assert pids(tmp_path)
    assert not [pid for pid in pids(tmp_path) if psutil.pid_exists(pid)]
    assert lost == []


def leave_gpu(folder: str, element: int) -> int:
    """Leave what this process sees of GPUs, and whether CUDA was asked before, under its id."""
    started = torch.cuda.is_initialized() or torch.cuda._cached_device_count is not None
    text = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {started}"
    (Path(folder) / str(os.getpid())).write_text(text)
    # The other worker takes its share meanwhile, not what is left of all.
    wait_until(lambda: len(pids(Path(folder))) == 2)
    return element


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (("GPU-a", "3"), {"GPU-a False", "3 False"}),
        (("cuda:1",), {"None False"}),
        ((), {"None False"}),
    ],
    ids=["several", "one", "none"],
)
def test_each_worker_sees_a_gpu_of_its_own(
    tmp_path: Path, gpus: tuple[str, ...], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several, each takes one by its name before CUDA is asked anything; one alone is left."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def build(pipeline: beam.Pipeline) -> None:
        spread = pipeline | beam.Create(range(40)) | beam.Reshuffle()
        _ = spread | beam.Map(lambda element: leave_gpu(str(tmp_path), element))

    run(build, (), 2, lambda _: None, gpus)
    found = [path.read_text() for path in tmp_path.iterdir()]
    assert len(found) == 2
    assert set(found) == expected


def pipeline_on(pool: WorkerPool) -> beam.Pipeline:
    """An empty pipeline for two workers of a pool."""
    runner = FnApiRunner(ExternalEnvironment(pool.address))
    return beam.Pipeline(runner=runner, options=PipelineOptions(direct_num_workers=2))


def die_early(code: int) -> None:
    """End this process at once."""
    os._exit(code)


@pytest.mark.slow
def test_a_worker_that_the_runner_let_go_is_not_lost(tmp_path: Path) -> None:
    """When the runner is done before the pool ends, its workers end, and none is reported lost."""
    lost: list[str] = []
    with WorkerPool(lost.append) as pool:
        pipeline = pipeline_on(pool)
        graph(tmp_path, [1, 2, 3, 4])(pipeline)
        pipeline.run().wait_until_finish()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids(tmp_path)))
        time.sleep(0.2)  # for a mistake to show
    assert lost == []


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 7])
def test_a_worker_that_ends_by_itself_is_lost(code: int) -> None:
    """A worker that ends before the runner is done is reported with its exit code, 0 as well."""
    lost: queue.SimpleQueue[str] = queue.SimpleQueue()
    with WorkerPool(lost.put) as pool:
        pipeline = pipeline_on(pool)
        _ = pipeline | beam.Create([code]) | beam.Map(die_early)
        # The runner waits for ever for such a worker, so the thread is left behind.
        threading.Thread(target=pipeline.run, daemon=True).start()
        assert lost.get(timeout=30).endswith(f"ended with exit code {code}")


@pytest.mark.slow
def test_a_worker_that_beam_misses_first_is_lost() -> None:
    """A worker that was killed is reported, although an error of Beam ends the pool first."""
    lost: list[str] = []
    endpoint = endpoints_pb2.ApiServiceDescriptor(url="localhost:1")
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="w", control_endpoint=endpoint)
    with pytest.raises(RuntimeError, match="prematurely"), WorkerPool(lost.append) as pool:
        pool.StartWorker(request, None)
        pool._processes[0].kill()
        raise RuntimeError("Channel closed prematurely.")
    assert len(lost) == 1
    assert lost[0].endswith("ended with exit code -9")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "is_lost"), [(65, False), (7, True)])
def test_a_worker_that_a_runner_dropped_is_not_lost(code: int, is_lost: bool) -> None:
    """With `may_drop`, a worker may find its runner gone (65); any other end is reported."""
    lost: list[str] = []
    with WorkerPool(lost.append, may_drop=True) as pool:
        pipeline = pipeline_on(pool)
        _ = pipeline | beam.Create([code]) | beam.Map(die_early)
        threading.Thread(target=pipeline.run, daemon=True).start()
        wait_until(lambda: any(each.ident and not each.is_alive() for each in pool._watchers))
    assert [each.rpartition(" ")[2] for each in lost] == ([f"{code}"] if is_lost else [])


def test_a_pool_keeps_nothing_of_workers_that_ended() -> None:
    """One that serves for months does not run out of open files."""
    lost: queue.SimpleQueue[str] = queue.SimpleQueue()
    endpoint = endpoints_pb2.ApiServiceDescriptor(url="localhost:1")
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="w", control_endpoint=endpoint)
    counts = list[int]()
    with WorkerPool(lost.put) as pool:
        for _ in range(4):
            pool.StartWorker(request, None)
            pool._processes[-1].kill()
            lost.get(timeout=30)
            wait_until(lambda: not pool._watchers[-1].is_alive())
            counts.append(psutil.Process().num_fds())
    assert counts[3] == counts[1]
