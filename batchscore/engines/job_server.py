"""The engines `prism` and `spark`, experimental: runners behind a job server of Beam's API."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from batchscore.engines.background import Background
from batchscore.engines.flags import parse_flags
from batchscore.engines.protocol import Build, Handle, Metrics
from batchscore.engines.watched import Watched
from batchscore.errors import InvalidError
from batchscore.job.sections import Runtime
from batchscore.messages.wording import reason
from batchscore.plan import Plan, placed
from batchscore.plan.shipping import require_shippable
from batchscore.storage.store import Store
from batchscore.units.unit import Unit

# gRPC knows other forms, which it is left to find.
_ADDRESS = re.compile(r"([\w.-]+):([0-9]{1,5})")
_CONNECT_SECONDS = 10.0
SERVER_SECONDS = 60
"""For one answer of a job server, not for the job; Beam would wait for five minutes."""
_OURS = {"runner": "runtime.engine"}
_WORKERS = "environment_type"


@dataclass(frozen=True)
class JobServerEngine(Watched):
    """Runs pipelines by a job server; Python workers are of a pool here, if options name no other.

    Args:
        name: The value of `runtime.engine` that selects it.
        title: What the runner is called.
        taken: The class of Beam's options that are of this runner only.
    """

    name: str
    title: str
    taken: str

    experimental = True
    ships = True
    retries = False
    start_seconds = 0.0

    def section_flags(self, runtime: Runtime) -> list[str]:
        """Returns nothing: Beam's own options name the job server."""
        return []

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Validates Beam options: one names the job server, which must listen."""
        found = parse_flags(flags, _OURS, self.name, self._taken)
        if not found.job_endpoint:
            raise InvalidError(
                f"engine {self.name}: no job server is named; set runtime.options to "
                f"{{job_endpoint: HOST:PORT}}, where {self.title}'s job server listens"
            )
        require_listener(self.name, found.job_endpoint, "runtime.options")

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with as many workers as asked for, of one thread each."""
        require_shared(self.name, plan)
        asked = plan.loaded.job.runtime.workers
        if isinstance(asked, int):
            return placed(plan, asked, f"{asked}, as asked for")
        return placed(plan, 1, f"1, since {self.title} does not say how many it has")

    def start_workers(self, plan: Plan) -> None:
        """The runner has them started once it has the pipeline."""

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Sends the pipeline to the job server, on a thread."""
        self.parse_flags(flags)
        has_workers = any(flag.startswith(f"--{_WORKERS}") for flag in flags)
        ours = [f"--job_server_timeout={SERVER_SECONDS}"]

        def work(handle: Background) -> Metrics:
            from batchscore.engines.local import WorkerPool

            if has_workers:
                return _run(build, [*ours, *flags], handle)
            with WorkerPool(handle.note_lost, may_drop=True) as pool:
                theirs = [f"--{_WORKERS}=EXTERNAL", f"--environment_config={pool.address}"]
                return _run(build, [*ours, *theirs, *flags], handle)

        handle = Background(work)
        handle.start()
        return handle

    @property
    def _taken(self) -> tuple[str, ...]:
        return (self.taken, "JobServerOptions", "PortableOptions")


def prism() -> JobServerEngine:
    """Returns the engine for Prism, the runner that comes with Beam."""
    return JobServerEngine("prism", "Prism", "PrismRunnerOptions")


def spark() -> JobServerEngine:
    """Returns the engine for Spark, by the job server of Beam's portable Spark runner."""
    return JobServerEngine("spark", "Spark", "SparkRunnerOptions")


def require_shared(name: str, plan: Plan) -> None:
    """Raises InvalidError where workers elsewhere could not reach or share what a plan names.

    Args:
        name: Of the engine.
        plan: What is to be run.
    """
    job = plan.loaded.job
    require_shippable(plan)
    for address in (job.output.path, job.model.path, *job.input.path):
        if address.startswith("memory:"):
            raise InvalidError(
                f"engine {name}: {address} is the memory of this process, which the cluster's "
                "workers do not see; use a shared folder or an object store"
            )
    if not Store(job.output.path).is_conditional:
        raise InvalidError(
            f"engine {name}: output {job.output.path}: workers side by side need a store with "
            "conditional puts, which this one has not; use a shared folder, S3 or Google Cloud "
            "Storage"
        )


def require_listener(name: str, endpoint: str, keys: str) -> None:
    """Raises InvalidError where nobody listens: Beam would try for minutes, in silence.

    Args:
        name: Of the engine.
        endpoint: Where the job server should listen.
        keys: The keys of the job file that say so.
    """
    address = _ADDRESS.fullmatch(endpoint)
    if address is None:
        return
    try:
        socket.create_connection((address[1], int(address[2])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InvalidError(
            f"engine {name}: nothing answers at job_endpoint {endpoint} ({reason(error)}); start "
            f"Beam's job server there, or correct {keys}"
        ) from error


def _run(build: Build, flags: Sequence[str], handle: Background) -> Metrics:
    from batchscore.engines.beam_private import portable_runner
    from batchscore.engines.metrics import listed_metrics
    from batchscore.system.beam_import import PipelineOptions, beam

    pipeline = beam.Pipeline(runner=portable_runner(), options=PipelineOptions(list(flags)))
    build(pipeline)
    result = pipeline.run()
    handle.note_job(result)
    result.wait_until_finish()
    return listed_metrics(result)
