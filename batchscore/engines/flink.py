"""The engine `flink`, experimental: a Flink cluster, through Beam's job server."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from batchscore.engines.background import Background
from batchscore.engines.flags import parse_flags
from batchscore.engines.flink_rest import (
    all_jobs,
    ask_cluster,
    await_end,
    cancel_job,
    cancel_jobs,
    find_trouble,
    job_error,
    job_state,
    require_pool,
)
from batchscore.engines.job_server import SERVER_SECONDS, require_listener, require_shared
from batchscore.engines.protocol import Build, Handle, Metrics
from batchscore.errors import InvalidError
from batchscore.job.sections import Runtime
from batchscore.messages.wording import counted, one_line
from batchscore.plan import Plan, placed
from batchscore.runs.submission import JobState, Submission, without_secrets
from batchscore.units.unit import Unit

_log = logging.getLogger("batchscore.flink")
_TRIED = ("1.19",)
"""Versions of Flink that runs were tried on."""
_OURS = {"parallelism": "runtime.flink.parallelism", "runner": "runtime.engine"}
_TAKEN = ("FlinkRunnerOptions", "JobServerOptions", "PortableOptions")
_AUTOMATIC = "[auto]"
_ASK_SECONDS = 2.0
_LOOK_SECONDS = 0.5
# Beam's name of a state.
_RUNNING = "RUNNING"


class FlinkJob(Background):
    """A pipeline on Flink; see `Background`.

    Args:
        work: Runs the pipeline.
        rest: Flink's REST address, or None.
        name: Of Flink's job.
    """

    def __init__(self, work: Callable[[Background], Metrics], rest: str | None, name: str) -> None:
        super().__init__(work)
        self._rest, self._job_name, self._asked = rest, name, time.monotonic()

    def trouble(self) -> str | None:
        """Asks Flink what its job met last, at most once in some seconds."""
        if self._rest is None or time.monotonic() - self._asked < _ASK_SECONDS:
            return None
        self._asked = time.monotonic()
        return find_trouble(self._rest, self._job_name)

    def note_job(self, job: Any) -> None:
        """Notes what the job server took, and waits until Flink has it, or it has ended."""
        super().note_job(job)
        from batchscore.engines.flink_server import TERMINAL

        while not self.job:
            state = job.state
            if self._rest is not None:
                self.job = next(iter(all_jobs(self._rest, self._job_name)), "")
            elif state == _RUNNING:
                from batchscore.engines.beam_private import job_server_id

                self.job = job_server_id(job)
            if state in TERMINAL:
                return
            time.sleep(_LOOK_SECONDS)

    def cancel(self) -> None:
        """Cancels the job at Flink, too: the job server only stops to wait for it."""
        super().cancel()
        if self._rest is not None:
            cancel_job(self._rest, self.job, self._job_name)


class FlinkEngine:
    """Runs pipelines on a Flink cluster, whose workers have batchscore installed."""

    def __init__(self) -> None:
        # Names the jobs of this command, until Flink has given them ids.
        self._command = secrets.token_hex(4)

    name = "flink"
    experimental = True
    ships = True
    retries = True
    start_seconds = 0.0

    def section_flags(self, runtime: Runtime) -> list[str]:
        """Returns Beam's options for the job server, and for what Python workers come from."""
        flink = runtime.flink
        flags = [f"--job_endpoint={flink.job_service}"] if flink.job_service else []
        if flink.pool:
            flags += ["--environment_type=EXTERNAL", f"--environment_config={flink.pool}"]
        if flink.container:
            flags += ["--environment_type=DOCKER", f"--environment_config={flink.container}"]
        return flags

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Validates Beam options: one names the cluster, or the job server, which must listen."""
        found = parse_flags(flags, _OURS, self.name, _TAKEN)
        if not found.job_endpoint and found.flink_master == _AUTOMATIC:
            raise InvalidError(
                "engine flink: neither a job server nor a cluster is named; set "
                "runtime.flink.job_service to HOST:PORT, where Beam's job server listens, or "
                "runtime.options to "
                "{flink_master: HOST:PORT, flink_job_server_jar: PATH}, where Flink's REST "
                "interface listens, and the jar of Beam's job server"
            )
        if found.job_endpoint:
            require_listener(
                self.name, found.job_endpoint, "runtime.flink.job_service or runtime.options"
            )
        else:
            _require_job_server(found)

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with as many workers as asked for, of one thread each."""
        require_shared(self.name, plan)
        return placed(_with_cluster(plan), *_parallelism(plan.loaded.job.runtime))

    def start_workers(self, plan: Plan) -> None:
        """The cluster has its workers."""

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Sends the pipeline to the job server, on a thread."""
        self.parse_flags(flags)
        name, rest = self._name(plan), plan.loaded.job.runtime.flink.rest
        if rest is not None:
            _warn_of_version(rest)
            _cancel_orphans(rest, _slice_name(plan))
        ours = [f"--job_name={name}", f"--parallelism={plan.workers}"]
        ours.append(f"--job_server_timeout={SERVER_SECONDS}")

        def work(handle: Background) -> Metrics:
            return _run(build, [*ours, *flags], handle)

        handle = FlinkJob(work, rest, name)
        handle.start()
        return handle

    def submission(self, plan: Plan, flags: Sequence[str]) -> Submission | None:
        """Returns the name and the REST address by which Flink's job is found.

        None if the Python workers are in this process, and end with it.
        """
        if parse_flags(flags, _OURS, self.name, _TAKEN).environment_type == "LOOPBACK":
            return None
        rest = plan.loaded.job.runtime.flink.rest
        address = without_secrets(rest) if rest is not None else ""
        return Submission(self.name, name=self._name(plan), address=address)

    def job_state(self, submission: Submission) -> JobState:
        """Asks Flink's REST interface."""
        if not submission.address:
            return "unknown"
        return job_state(submission.address, submission.job, submission.name)

    def job_error(self, submission: Submission) -> str:
        """Asks Flink's REST interface."""
        if not (submission.address and submission.job):
            return ""
        return job_error(submission.address, submission.job)

    def cancel(self, submission: Submission) -> bool:
        """Cancels the job at Flink; by its name if it has no id yet."""
        if not submission.address:
            return False
        return cancel_job(submission.address, submission.job, submission.name)

    def _name(self, plan: Plan) -> str:
        """Returns what Flink calls the job."""
        return f"{_slice_name(plan)}-{self._command}"


def _with_cluster(plan: Plan) -> Plan:
    """Returns the plan with what its cluster is, if its REST address is known."""
    rest = plan.loaded.job.runtime.flink.rest
    if rest is None or "cluster" in plan.choices:
        return plan
    found = ask_cluster(rest)
    hosts = ", ".join(one_line(host) for host in sorted({*found.hosts})) or "no TaskManager"
    facts = f"Flink {one_line(found.version)}, {counted(found.slots, 'slot')} on {hosts}"
    return replace(plan, choices={"cluster": facts, **plan.choices})


def _parallelism(runtime: Runtime) -> tuple[int, str]:
    """Returns how many workers score, and why; asks the cluster if its REST address is known.

    Raises:
        InvalidError: The cluster does not answer, has too few slots, or its pool is not there.
    """
    flink, workers = runtime.flink, runtime.workers
    asked = flink.parallelism if flink.parallelism != "auto" else None
    if flink.rest is None:
        if asked is None and isinstance(workers, int):
            asked = workers
        if asked is not None:
            return asked, f"{asked}, as asked for"
        return 1, "1, since the cluster's size is not known; set runtime.flink.rest or parallelism"
    cluster = ask_cluster(flink.rest)
    if (asked or 1) > cluster.slots:
        raise InvalidError(
            f"runtime.flink.parallelism {asked or 'auto'}: Flink at {flink.rest} has "
            f"{counted(cluster.slots, 'slot')}; start TaskManagers, or ask for less"
        )
    if flink.pool is not None:
        require_pool(flink.pool, cluster.hosts)
    if asked is not None:
        return asked, f"{asked}, as asked for"
    return cluster.slots, f"{cluster.slots}, the cluster's slots"


def _slice_name(plan: Plan) -> str:
    """Returns how the names of jobs begin: the same for all runs of a slice of an output."""
    spec = plan.spec
    slice_ = hashlib.sha256(f"{spec.output.address}\n{spec.slice}".encode()).hexdigest()
    return f"batchscore-{spec.job}-{slice_[:16]}"


def _cancel_orphans(rest: str, name: str) -> None:
    """Ends what runs of the slice left whose launchers are gone: they would keep the slots.

    The caller holds the slice, so that no other run may work on it. Where Flink does not answer,
    these jobs end by themselves, later.
    """
    if cancelled := cancel_jobs(rest, name):
        _log.warning(
            "engine flink: cancelled %s of earlier runs whose launchers are gone",
            counted(cancelled, "job"),
        )
        await_end(rest, name)


def _warn_of_version(rest: str) -> None:
    found = ask_cluster(rest).version
    if found.rpartition(".")[0] not in _TRIED:
        _log.warning(
            "engine flink: this cluster is Flink %s; batchscore was tried on Flink %s",
            found,
            ", ".join(_TRIED),
        )


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


def _run(build: Build, flags: Sequence[str], handle: Background) -> Metrics:
    from batchscore.engines.beam_private import flink_runner
    from batchscore.engines.flink_server import await_pipeline, sent
    from batchscore.system.beam_import import PipelineOptions, beam

    pipeline = beam.Pipeline(runner=flink_runner(), options=PipelineOptions(list(flags)))
    build(pipeline)
    return await_pipeline(sent(pipeline), handle)
