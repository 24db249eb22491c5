"""The engine `flink`, experimental: a Flink cluster, through Beam's job server."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
from collections.abc import Sequence

from batchscore.engines.background import Background
from batchscore.engines.flags import parse_flags
from batchscore.engines.protocol import Build, Handle, Metrics
from batchscore.errors import InvalidError
from batchscore.messages.wording import reason
from batchscore.plan import Plan, placed
from batchscore.plan.shipping import require_shippable
from batchscore.units.unit import Unit

_OURS = {"parallelism": "runtime.workers", "runner": "runtime.engine"}
_AUTOMATIC = "[auto]"
# gRPC knows other forms, which it is left to find.
_ADDRESS = re.compile(r"([\w.-]+):([0-9]{1,5})")
_CONNECT_SECONDS = 10.0


class FlinkEngine:
    """Runs pipelines on a Flink cluster, whose workers have batchscore installed."""

    name = "flink"
    experimental = True
    ships = True

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Validates Beam options: one names the cluster, or the job server, which must listen."""
        found = parse_flags(flags, _OURS)
        if not found.job_endpoint and found.flink_master == _AUTOMATIC:
            raise InvalidError(
                "engine flink: neither a job server nor a cluster is named; set runtime.options "
                "to {job_endpoint: HOST:PORT}, where Beam's job server listens, or to "
                "{flink_master: HOST:PORT, flink_job_server_jar: PATH}, where Flink's REST "
                "interface listens, and the jar of Beam's job server"
            )
        if found.job_endpoint:
            _require_listener(found.job_endpoint)
        else:
            _require_job_server(found)

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with as many workers as asked for, of one thread each."""
        job = plan.loaded.job
        require_shippable(plan)
        for address in (job.output.path, job.model.path, *job.input.path):
            if address.startswith("memory:"):
                raise InvalidError(
                    f"engine flink: {address} is the memory of this process, which the cluster's "
                    "workers do not see; use a shared folder or an object store"
                )
        asked = job.runtime.workers
        if isinstance(asked, int):
            return placed(plan, asked, f"{asked}, as asked for")
        return placed(plan, 1, "1, since the cluster's size is not known; set runtime.workers")

    def start_workers(self, plan: Plan) -> None:
        """The cluster has its workers."""

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Sends the pipeline to the job server, on a thread."""
        self.parse_flags(flags)

        def work(handle: Background) -> Metrics:
            return _run(build, [*flags, f"--parallelism={plan.workers}"], handle)

        handle = Background(work)
        handle.start()
        return handle


def _require_job_server(found: argparse.Namespace) -> None:
    """Raises InvalidError where Beam could not start a job server, or would download it."""
    jar, java = found.flink_job_server_jar, found.job_server_java_launcher
    if not jar or ("://" not in jar and not os.path.isfile(jar)):
        missing = f"no such file: {jar}" if jar else "it is not named"
        raise InvalidError(
            f"engine flink: with flink_master Beam starts its job server on this machine from a "
            f"jar, and {missing}; set flink_job_server_jar to a copy of "
            f"beam-runners-flink-{found.flink_version}-job-server of the installed Beam, or start "
            "the job server elsewhere and set job_endpoint in its place"
        )
    if not found.flink_submit_uber_jar and shutil.which(java) is None:
        raise InvalidError(
            f"engine flink: with flink_master Beam starts its job server with Java, and {java} is "
            "not found; install Java, or set job_endpoint to a job server that runs elsewhere"
        )


def _require_listener(endpoint: str) -> None:
    """Raises InvalidError where nobody listens: Beam would try for minutes, in silence."""
    address = _ADDRESS.fullmatch(endpoint)
    if address is None:
        return
    try:
        socket.create_connection((address[1], int(address[2])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InvalidError(
            f"engine flink: nothing answers at job_endpoint {endpoint} ({reason(error)}); start "
            "Beam's job server there, or correct runtime.options"
        ) from error


def _run(build: Build, flags: Sequence[str], handle: Background) -> Metrics:
    from batchscore.engines.beam_private import flink_runner
    from batchscore.engines.metrics import listed_metrics
    from batchscore.system.beam_import import PipelineOptions, beam

    pipeline = beam.Pipeline(runner=flink_runner(), options=PipelineOptions(list(flags)))
    build(pipeline)
    result = pipeline.run()
    handle.note_job(result)
    result.wait_until_finish()
    return listed_metrics(result)
