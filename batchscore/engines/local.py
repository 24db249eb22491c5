"""A pipeline on this machine: in this process, or on workers forked from a preloaded server."""

from __future__ import annotations

import itertools
import logging
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import grpc

from batchscore.engines.beam_private import (
    ExternalEnvironment,
    FnApiRunner,
    SdkHarness,
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    shared_unbounded_instance,
)
from batchscore.engines.metrics import listed_metrics
from batchscore.engines.protocol import Build, Metrics
from batchscore.engines.quick_graph import quick_options, quick_signatures
from batchscore.engines.state_sampler import quick_sampling
from batchscore.engines.workers import start_server
from batchscore.models.process.current import use
from batchscore.models.process.host import Host
from batchscore.system.beam_import import PipelineOptions, beam

SharedModel = tuple[str, float, socket.socket]
"""A model's format and timeout, and a connection to its process."""
_Asked = tuple[str, str, int, str | None]
"""The runner's address, the worker's name there, the level of its log, and its GPU."""

_RELEASED = 64
"""Exit code of a worker that the runner released; no process ends with it otherwise."""
_DESERTED = 65
"""Exit code of a worker whose runner is gone."""
_NOTICED_SECONDS = 0.5
"""The connection to a worker that dies ends before its exit code is known, by so much at most."""


def run(
    build: Build,
    flags: Sequence[str],
    workers: int,
    on_lost: Callable[[str], None],
    gpus: Sequence[str] = (),
    host: Host | None = None,
) -> Metrics:
    """Runs a pipeline to its end and returns Beam's metrics.

    Args:
        build: Adds the steps.
        flags: Beam options.
        workers: 1 runs in this process; more run in processes of their own.
        on_lost: Called with the reason when a worker process ends too early; this call then
            never returns.
        gpus: Names of GPUs. If there are several, worker processes take turns with them.
        host: Has the model's process, which workers share unless each has a GPU of its own.
    """
    if workers == 1:
        with quick_sampling():
            return _run(build, FnApiRunner(), quick_options(flags))
    with WorkerPool(on_lost, gpus if len(gpus) > 1 else (), host) as pool:
        options = quick_options([*flags, f"--direct_num_workers={workers}"])
        return _run(build, FnApiRunner(ExternalEnvironment(pool.address)), options)


def _run(build: Build, runner: FnApiRunner, options: PipelineOptions) -> Metrics:
    pipeline = beam.Pipeline(runner=runner, options=options)
    with quick_signatures():
        build(pipeline)
        result = pipeline.run()
        result.wait_until_finish()
    return listed_metrics(result)


def _work(
    connected: Connection,
    control: str,
    worker: str,
    log_level: int,
    gpu: str | None,
    model: SharedModel | None,
) -> None:
    """Serves one worker's requests until the runner closes the connection.

    Args:
        connected: Gets a byte once the runner is reached.
        gpu: The one that it sees of several.
        model: The process that it shares with other workers, if any.
    """
    if model is not None:
        use(Host(*model))
    if gpu is not None:
        # CUDA reads it once, when something is first asked of it: nothing was in this process.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # What user code prints must not mix with the result on standard output.
    sys.stdout = sys.stderr
    # A terminal sends Ctrl-C to workers too; the launcher is who handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = _without_lost_connections
    logging.getLogger("apache_beam").setLevel(log_level)
    kind = SdkHarness if log_level <= logging.ERROR else QuietHarness
    try:
        with quick_sampling(), quick_signatures():
            harness = kind(control, worker_id=worker, state_cache_size=0)
            connected.send_bytes(b"1")
            harness.run()
    except grpc.RpcError:
        sys.exit(_DESERTED)
    sys.exit(_RELEASED)


class QuietHarness(SdkHarness):
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


def _has_connected(reached: Connection) -> bool:
    """Tells whether a process that ended had reached its runner."""
    with reached:
        try:
            return bool(reached.recv_bytes())
        except EOFError:
            return False


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts Beam workers by forking a server that has imported Beam and torch once.

    Beam's own pool starts each through a shell, and imports everything again.

    Args:
        on_lost: Called with the reason when a worker ends and no runner has released it.
        gpus: Names of GPUs, with which workers take turns.
        host: Has the model's process, which workers share unless each has a GPU of its own.
        address: HOST:PORT to listen at; `address` then has the port in place of 0.
        again: How often a worker that is killed before it reached its runner is started again.
            The runner would wait for it for minutes.
        may_drop: Whether runners end the connection of a worker that they need no more.
    """

    def __init__(
        self,
        on_lost: Callable[[str], None],
        gpus: Sequence[str] = (),
        host: Host | None = None,
        address: str = "localhost:0",
        again: int = 0,
        may_drop: bool = False,
    ) -> None:
        self._again = again
        self._released = {_RELEASED, _DESERTED} if may_drop else {_RELEASED}
        self._on_lost, self._gpus, self._host = on_lost, gpus, host
        self._closing = False
        self._turns = itertools.count()
        self._context = start_server()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._watchers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.address = address

    def __enter__(self) -> WorkerPool:
        threading.excepthook = _without_lost_connections
        # Without this, two pools would listen at one address, and each get some of the requests.
        alone = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(shared_unbounded_instance(), options=alone)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
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
            self._forget_ended()
            gpu = self._gpus[next(self._turns) % len(self._gpus)] if self._gpus else None
            self._start((request.control_endpoint.url, request.worker_id, log_level, gpu), 0)
        return beam_fn_api_pb2.StartWorkerResponse()

    def _start(self, asked: _Asked, before: int) -> None:
        """Forks a worker, of which so many died before they reached the runner."""
        model, (reached, connected) = self._shared_model(), self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(connected, *asked, model), daemon=True)
        process.start()
        connected.close()
        if model is not None:
            model[-1].close()
        self._processes.append(process)
        args = (process, reached, asked, before)
        watcher = threading.Thread(target=self._watch, args=args, daemon=True)
        self._watchers.append(watcher)
        watcher.start()

    def _forget_ended(self) -> None:
        """Closes what workers that ended left open: a pool may serve jobs for months."""
        pairs = [*zip(self._processes, self._watchers, strict=True)]
        living = [pair for pair in pairs if pair[1].is_alive()]
        for process in {process for process, _ in pairs} - {process for process, _ in living}:
            process.close()
        self._processes = [process for process, _ in living]
        self._watchers = [watcher for _, watcher in living]

    def _shared_model(self) -> SharedModel | None:
        if self._host is None or self._gpus:
            return None
        return self._host.format, self._host.timeout_s, self._host.share()

    def _watch(
        self,
        process: multiprocessing.process.BaseProcess,
        reached: Connection,
        asked: _Asked,
        before: int,
    ) -> None:
        """Tells of a worker that ends before the pool does: the runner would wait for ever."""
        multiprocessing.connection.wait([process.sentinel])
        with self._lock:  # to start another one reads the codes of those that ended: once each
            process.join()
        connected, code = _has_connected(reached), process.exitcode
        if self._closing or code in self._released:
            return
        ended = f"worker process {process.pid} ended with exit code {code}"
        if connected or (code or 0) >= 0 or before >= self._again:
            self._on_lost(ended)
            return
        self._on_lost(f"{ended} before it reached its runner; it is started again")
        with self._lock:
            if not self._closing:
                self._start(asked, before + 1)

    def StopWorker(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Workers end when the pool does."""
        return beam_fn_api_pb2.StopWorkerResponse()
