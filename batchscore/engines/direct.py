"""The direct runner: in this process, or on worker processes forked from a preloaded server."""

from __future__ import annotations

import argparse
import logging
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
)
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms.environments import ExternalEnvironment
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

from batchscore.engines.sampling import quick_sampling
from batchscore.engines.workers import start_server
from batchscore.errors import JobFileError

_OURS = ("direct_num_workers", "direct_running_mode", "runner")
_RELEASED = 64
"""Exit code of a worker that the runner let go; no other end of a process has it."""
_DESERTED = 65
"""Exit code of a worker whose runner is gone."""
_NOTICED_SECONDS = 0.5
"""The connection to a worker that dies ends before its exit code is known, by so much at most."""


def parse_options(flags: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options of a command line.

    Raises:
        JobFileError: Beam does not know a flag, or the flag is set by the job file.
    """
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    try:
        _, unknown = parser.parse_known_args(list(flags))
    except (argparse.ArgumentError, SystemExit) as error:
        raise JobFileError(f"Beam options {' '.join(flags)!r}: {error}") from error
    if unknown:
        raise JobFileError(
            f"Beam option {unknown[0]!r}: Beam has no such option; batchscore's own options "
            "go before the --"
        )
    for name in _OURS:
        if any(flag.split("=")[0] == f"--{name}" for flag in flags):
            raise JobFileError(
                f"Beam option '--{name}': is set by runtime.engine and runtime.workers; "
                "give it there, in the job file or with --set"
            )
    return PipelineOptions(list(flags))


def run(
    build: Callable[[beam.Pipeline], None],
    options: PipelineOptions,
    workers: int,
    on_lost: Callable[[str], None],
    gpus: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Runs a pipeline to its end and returns Beam's metrics.

    Args:
        build: adds the steps.
        workers: 1 runs in this process; more run in processes of their own.
        on_lost: is told when one of these ends too early; this call then never returns.
        gpus: names; of several, worker processes take one each in turn.
    """
    if workers == 1:
        with quick_sampling():
            return _metrics(_run(build, FnApiRunner(), options))
    with WorkerPool(on_lost, gpus if len(gpus) > 1 else ()) as pool:
        options = PipelineOptions(direct_num_workers=workers, **options.get_all_options(True))
        return _metrics(_run(build, FnApiRunner(ExternalEnvironment(pool.address)), options))


def _run(
    build: Callable[[beam.Pipeline], None], runner: FnApiRunner, options: PipelineOptions
) -> Any:
    pipeline = beam.Pipeline(runner=runner, options=options)
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def _metrics(result: Any) -> list[dict[str, Any]]:
    found = result.metrics().query()
    counters = [
        {"step": m.key.step, "name": m.key.metric.name, "value": m.committed}
        for m in found["counters"]
    ]
    distributions = [
        {
            "step": m.key.step,
            "name": m.key.metric.name,
            "count": m.committed.count,
            "sum": m.committed.sum,
            "min": m.committed.min,
            "max": m.committed.max,
        }
        for m in found["distributions"]
    ]
    return sorted(counters + distributions, key=lambda m: (m["step"], m["name"]))


def _work(control: str, worker: str, log_level: int, gpu: str | None) -> None:
    """Serves one worker's requests until the runner closes the connection.

    Args:
        gpu: the one that it sees of several.
    """
    if gpu is not None:
        # CUDA reads it once, when something is first asked of it: nothing was in this process.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # What user code prints must not mix with the result on standard output.
    sys.stdout = sys.stderr
    # A terminal sends Ctrl-C to workers too; the launcher is who heeds it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = _without_lost_connections
    logging.getLogger("apache_beam").setLevel(log_level)
    kind = sdk_worker.SdkHarness if log_level <= logging.ERROR else QuietHarness
    try:
        with quick_sampling():
            kind(control, worker_id=worker, state_cache_size=0).run()
    except grpc.RpcError:
        sys.exit(_DESERTED)
    sys.exit(_RELEASED)


class QuietHarness(sdk_worker.SdkHarness):
    """Answers an error with its traceback, as Beam's harness does, but does not print it too."""

    def _execute(self, task: Callable[[], Any], request: Any) -> None:
        def answer() -> Any:
            try:
                return task()
            except BaseException:
                text = traceback.format_exc()
                return beam_fn_api_pb2.InstructionResponse(
                    instruction_id=request.instruction_id, error=text
                )

        super()._execute(answer, request)


def _without_lost_connections(failed: threading.ExceptHookArgs) -> None:
    """Keeps quiet of Beam's threads whose other end is gone: the pool tells of that itself."""
    if not issubclass(failed.exc_type, grpc.RpcError):
        threading.__excepthook__(failed)


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts Beam workers by forking a server that has imported Beam and torch once.

    Beam's own pool starts each through a shell, and imports everything again.
    """

    def __init__(self, on_lost: Callable[[str], None], gpus: Sequence[str] = ()) -> None:
        self._on_lost, self._gpus = on_lost, gpus
        self._closing = False
        self._context = start_server()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._watchers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.address = ""

    def __enter__(self) -> WorkerPool:
        threading.excepthook = _without_lost_connections
        self._server = grpc.server(shared_unbounded_instance())
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self._server)
        self.address = f"localhost:{self._server.add_insecure_port('localhost:0')}"
        self._server.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self._await_lost()
        self._closing = True
        self._server.stop(None)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _await_lost(self) -> None:
        """Gives watchers time: Beam may miss a worker before its exit code is known."""
        ended = multiprocessing.connection.wait(
            [process.sentinel for process in self._processes], _NOTICED_SECONDS
        )
        for process, watcher in zip(self._processes, self._watchers, strict=True):
            if process.sentinel in ended:
                watcher.join(_NOTICED_SECONDS)

    def StartWorker(  # noqa: N802 - the name is the protocol's
        self, request: Any, _context: Any
    ) -> Any:
        """Forks a worker for the runner."""
        log_level = logging.getLogger("apache_beam").getEffectiveLevel()
        with self._lock:
            gpu = self._gpus[len(self._processes) % len(self._gpus)] if self._gpus else None
            target = (request.control_endpoint.url, request.worker_id, log_level, gpu)
            process = self._context.Process(target=_work, args=target, daemon=True)
            process.start()
            self._processes.append(process)
            watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
            self._watchers.append(watcher)
            watcher.start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def _watch(self, process: multiprocessing.process.BaseProcess) -> None:
        """Tells of a worker that ends before the pool does: the runner would wait for ever."""
        process.join()
        if not self._closing and process.exitcode != _RELEASED:
            self._on_lost(f"worker process {process.pid} ended with exit code {process.exitcode}")

    def StopWorker(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Workers end when the pool does."""
        return beam_fn_api_pb2.StopWorkerResponse()
