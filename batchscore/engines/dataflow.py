"""The engine `dataflow`, experimental: jobs of Google Cloud Dataflow, by its REST interface."""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from batchscore.engines.background import Background
from batchscore.engines.dataflow_ends import ended_badly
from batchscore.engines.dataflow_rest import (
    ENDED,
    ServiceError,
    cancel_job,
    cancel_others,
    create_job,
    final_state,
    job_error,
    job_state,
    metrics_of,
    require_service,
    root_of,
    state_of,
)
from batchscore.engines.dataflow_template import TemplateLaunch, is_launched, launch_of, unleft
from batchscore.engines.dataflow_vms import arranged, count_vms
from batchscore.engines.flags import as_flags, parse_flags
from batchscore.engines.protocol import Build, Handle, Metrics
from batchscore.errors import FailedError, InvalidError
from batchscore.job.dataflow_section import BUCKET
from batchscore.job.sections import Runtime
from batchscore.messages.wording import counted, reason
from batchscore.plan import Plan, placed
from batchscore.plan.shipping import require_shippable
from batchscore.runs.submission import JobState, Submission
from batchscore.storage.remote import is_object_store, missing_bucket
from batchscore.storage.store import Store
from batchscore.units.unit import Unit

if TYPE_CHECKING:
    from batchscore.engines.dataflow_job import JobRequest

_log = logging.getLogger("batchscore.dataflow")
_SECTION = "runtime.dataflow"
_OURS = {
    "runner": "runtime.engine",
    "job_name": "name",
    "dry_run": "`batchscore check`",
    "worker_machine_type": f"{_SECTION}.machine_type",
    "machine_type": f"{_SECTION}.machine_type",
    "num_workers": f"{_SECTION}.vms",
    "max_num_workers": f"{_SECTION}.max_vms",
    "number_of_worker_harness_threads": f"{_SECTION}.processes",
    "resource_hint": f"{_SECTION}.accelerator or min_ram",
    "resource_hints": f"{_SECTION}.accelerator or min_ram",
    **dict.fromkeys(
        (
            *("sdk_location", "setup_file", "requirements_file", "extra_package"),
            *("extra_packages", "prebuild_sdk_container_engine", "save_main_session"),
        ),
        f"the image of {_SECTION}.image",
    ),
}
_REQUIRED = {
    "project": "project",
    "region": "region",
    "temp_location": "temp_location",
    "sdk_container_image": "image",
}
"""Beam's options that must be there, with the key of the section that sets them."""
_UNSUPPORTED = (
    "dataflow_job_file",
    "update",
    "create_from_snapshot",
    "streaming",
)
_PROCESSES = ("use_multiple_sdk_containers", "no_use_multiple_sdk_containers")
_LOOPBACK = re.compile(r"--dataflow_endpoint=(https?://)?(localhost|127\.[0-9.]+)(:|/|$)")
_FIRST_LOOK_S, _MOST_LOOK_S = 0.25, 10.0
_UNHEARD_S = 300.0
_FAILED = "JOB_STATE_FAILED"
# The service tells why a job failed some time after it has failed.
_LATE_S = 40.0
# A launcher that is to leave does so within a second.
_LEAVE_S = 30.0
_TROUBLE_S = 15.0


class _Cancelled:
    """What can be cancelled."""

    def __init__(self, root: str, job: str, name: str) -> None:
        self._root, self._job, self._name = root, job, name

    def cancel(self) -> bool:
        """Asks for the end of the job."""
        return cancel_job(self._root, self._job, self._name)


class DataflowJob(Background):
    """A pipeline on Dataflow; see `Background`.

    Args:
        request: Makes what the service is sent.
        root: Address of the project's jobs.
        name: Of the job.
        launch: What Dataflow's launcher of flex templates says of the job, if it starts it.
    """

    def __init__(
        self,
        request: Callable[[], JobRequest],
        root: str,
        name: str,
        launch: TemplateLaunch | None = None,
    ) -> None:
        super().__init__(lambda _: self._follow(request()))
        self._root, self._job_name, self._asked = root, name, time.monotonic()
        self._launch = launch

    def trouble(self) -> str | None:
        """Asks Dataflow what its job met last, at most once in some seconds."""
        if not self.job or time.monotonic() - self._asked < _TROUBLE_S:
            return None
        self._asked = time.monotonic()
        return job_error(self._root, self.job) or None

    def _follow(self, request: JobRequest) -> Metrics:
        from batchscore.engines.dataflow_job import listed_updates

        request.stage()
        if self._launch is not None:
            request.describe(self._launch)
            self.job = self._launch.job
            time.sleep(_LEAVE_S)
            raise unleft(self._launch)
        job = create_job(self._root, request.body)
        self.note_job(_Cancelled(self._root, job, self._job_name))
        self.job = job
        state = self._await_end()
        if state != "JOB_STATE_DONE":
            raise _failure(self._root, job, state)
        return listed_updates(metrics_of(self._root, job), request.steps)

    def _await_end(self) -> str:
        wait_s, heard = _FIRST_LOOK_S, time.monotonic()
        while True:
            try:
                state = state_of(self._root, self.job)
                heard = time.monotonic()
                if state in ENDED:
                    return state
            except (OSError, ValueError) as error:
                gone = isinstance(error, ServiceError) and error.code == 404
                if gone or time.monotonic() - heard > _UNHEARD_S:
                    self.unheard = reason(error)
                    raise
            time.sleep(wait_s)
            wait_s = min(_MOST_LOOK_S, 2 * wait_s)


def _failure(root: str, job: str, state: str) -> Exception:
    """Returns why a job did not end well, as an error."""
    deadline = time.monotonic() + (_LATE_S if state == _FAILED else 0.0)
    while not (said := job_error(root, job)) and time.monotonic() < deadline:
        time.sleep(1.0)
    if state == _FAILED and "Traceback" in said:
        return RuntimeError(said)
    return FailedError(ended_badly(job, state, said))


class DataflowEngine:
    """Runs pipelines on VMs of Dataflow, whose image has batchscore in it."""

    def __init__(self) -> None:
        # Names the jobs of this command, until the service has given them ids.
        self._command = secrets.token_hex(4)

    name = "dataflow"
    experimental = True
    ships = True
    retries = True
    start_seconds = 900.0

    def section_flags(self, runtime: Runtime) -> list[str]:
        """Returns Beam's options for the project, and for what the VMs may reach."""
        section = runtime.dataflow
        options = {
            "project": section.project,
            "region": section.region,
            "temp_location": section.temp_location,
            "sdk_container_image": section.image,
            "service_account_email": section.service_account,
            "subnetwork": section.subnetwork,
            "no_use_public_ips": not section.public_ips,
            "labels": tuple(f"{key}={value}" for key, value in sorted(section.labels.items())),
        }
        return as_flags({key: value for key, value in options.items() if value is not None})

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Validates Beam options, and asks the service and the bucket."""
        found = _parsed(flags)
        _require_library()
        _require_bucket(found.temp_location)
        if launch_of(found) is None:  # else Dataflow has the job, and the VM may not list jobs
            _require_service(_root(found))

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with the processes of all VMs, and the threads of each."""
        require_shippable(plan)
        _require_reachable(plan)
        section = plan.loaded.job.runtime.dataflow
        vm = arranged(plan)
        vms = count_vms(section, vm.processes, len(units))
        why = f"{vms * vm.processes}, at most, on {counted(vms, 'VM')} of {section.machine_type}"
        plan = placed(plan, vms * vm.processes, why, vm.threads)
        plan.choices.setdefault("each VM", str(vm))
        return plan

    def start_workers(self, plan: Plan) -> None:
        """VMs start with the job."""

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Stages the pipeline and creates the job, on a thread."""
        found = _parsed(flags)
        root, launch = _root(found), launch_of(found)
        name = self._name(plan, launch)
        if cancelled := cancel_others(root, f"{_slice_name(plan)}-"):
            _log.warning(
                "engine dataflow: cancelled %s of earlier runs whose launchers are gone",
                counted(cancelled, "job"),
            )
        ours = _job_flags(plan, name)

        def request() -> JobRequest:
            from batchscore.engines.dataflow_job import describe_job

            return describe_job(build, [*_for_vms(flags), *ours])

        handle = DataflowJob(request, root, name, launch)
        handle.start()
        return handle

    def submission(self, plan: Plan, flags: Sequence[str]) -> Submission | None:
        """Returns the name and the address by which the job is found, and its id if it has one."""
        found = _parsed(flags)
        launch = launch_of(found)
        job = launch.job if launch is not None else ""
        return Submission(self.name, job, self._name(plan, launch), _root(found))

    def job_state(self, submission: Submission) -> JobState:
        """Asks Dataflow."""
        return job_state(submission.address, submission.job, submission.name)

    def job_error(self, submission: Submission) -> str:
        """Asks Dataflow for a worker's trace, or else says how the job ended and what helps."""
        root, job = submission.address, submission.job
        state, said = final_state(root, job), job_error(root, job)
        if not state or state == "JOB_STATE_DONE" or "Traceback" in said:
            return said if state else ""
        return ended_badly(job, state, said)

    def cancel(self, submission: Submission) -> bool:
        """Cancels the job; by its name if it has no id yet."""
        return cancel_job(submission.address, submission.job, submission.name)

    def _name(self, plan: Plan, launch: TemplateLaunch | None) -> str:
        """Returns what Dataflow calls the job."""
        return launch.name if launch is not None else f"{_slice_name(plan)}-{self._command}"


def _parsed(flags: Sequence[str]) -> argparse.Namespace:
    """Returns the values of Beam's options; see `DataflowEngine.parse_flags`."""
    ours = {**_OURS}
    if is_launched(flags):
        del ours["job_name"]
    found = parse_flags(flags, ours, "dataflow", ())
    for option, key in _REQUIRED.items():
        if not getattr(found, option):
            raise InvalidError(f"engine dataflow: {_SECTION}.{key} is not set; set it")
    for option in _UNSUPPORTED:
        if getattr(found, option):
            raise InvalidError(
                f"Beam option '--{option}': engine dataflow creates a batch job itself, and would "
                "ignore it; take it out"
            )
    launch_of(found)
    if not re.fullmatch(BUCKET, found.temp_location):
        # Beam would take a bucket of its own choice.
        raise InvalidError(
            f"Beam option '--temp_location': expected gs://BUCKET/FOLDER, found "
            f"{found.temp_location!r}; correct it, or set {_SECTION}.temp_location"
        )
    if clash := {*(found.experiments or ())} & {*_PROCESSES}:
        raise InvalidError(
            f"Beam option '--experiments={min(clash)}': {_SECTION}.processes sets it; set that to "
            "core or vm"
        )
    for option in found.dataflow_service_options or ():
        if option.startswith("worker_accelerator"):
            raise InvalidError(
                "Beam option '--dataflow_service_options=worker_accelerator': Dataflow takes it or "
                f"hints, and not both; set {_SECTION}.accelerator"
            )
    return found


def _root(found: argparse.Namespace) -> str:
    return root_of(found.dataflow_endpoint, found.project, found.region)


def _for_vms(flags: Sequence[str]) -> list[str]:
    """Returns options without an endpoint on this machine, which VMs could not reach."""
    return [flag for flag in flags if not _LOOPBACK.match(flag)]


def _job_flags(plan: Plan, name: str) -> list[str]:
    """Returns the options that follow from the plan."""
    section, vm = plan.loaded.job.runtime.dataflow, arranged(plan)
    hints = []
    if section.accelerator is not None:
        hints.append(f"accelerator=type:{section.accelerator};count:1;install-nvidia-driver")
    if section.min_ram is not None:
        hints.append(f"min_ram={section.min_ram}")
    vms = math.ceil(plan.workers / vm.processes)
    options: dict[str, str | int | tuple[str, ...]] = {
        "job_name": name,
        "machine_type": section.machine_type,
        "max_num_workers": vms,
        "resource_hint": tuple(hints),
        "sdk_location": "container",
        # Else Beam stages a list of this machine's packages.
        "experiments": "disable_logging_submission_environment",
        "runner": "DataflowRunner",
    }
    if section.vms is not None:
        options["num_workers"] = min(section.vms, vms)
    return [*as_flags(options), *vm.flags()]


def _require_reachable(plan: Plan) -> None:
    """Raises InvalidError where a VM could not read, write or compute what the job names."""
    job = plan.loaded.job
    for what, address in (("output", job.output.path), *(("input", p) for p in job.input.path)):
        if not is_object_store(address):
            raise InvalidError(
                f"engine dataflow: {what} {address} is not in an object store, and VMs see "
                "nothing else; use an address of Google Cloud Storage (gs://) or S3"
            )
    if not Store(job.output.path).is_conditional:
        raise InvalidError(
            f"engine dataflow: output {job.output.path}: workers side by side need a store with "
            "conditional puts, which this one has not; use Google Cloud Storage or S3"
        )
    on_gpu, gpu = job.runtime.device.startswith("cuda"), job.runtime.dataflow.accelerator
    if on_gpu and gpu is None:
        raise InvalidError(
            f"runtime.device {job.runtime.device}: no VM has a GPU; set {_SECTION}.accelerator, "
            "such as nvidia-tesla-t4, or runtime.device: cpu"
        )
    if gpu is not None and not on_gpu:
        raise InvalidError(
            f"{_SECTION}.accelerator {gpu}: runtime.device is {job.runtime.device}, so no process "
            "would use it; set runtime.device: cuda, or take it out"
        )


def _require_library() -> None:
    try:
        import google.cloud.dataflow  # noqa: F401
    except ImportError as error:
        raise InvalidError(
            f"engine dataflow: {reason(error)}; install what it needs: "
            "pip install 'batchscore[dataflow]'"
        ) from error


@cache
def _require_bucket(address: str) -> None:
    """Raises InvalidError where the bucket of an address is not there; asked once a process."""
    try:
        missing = missing_bucket(address)
    except OSError as error:
        missing = f"cannot be looked at ({reason(error)}); grant the caller access, or correct it"
    if missing:
        raise InvalidError(f"{_SECTION}.temp_location {address}: {missing}")


@cache
def _require_service(root: str) -> None:
    require_service(root)


def _slice_name(plan: Plan) -> str:
    """Returns how the names of jobs begin: the same for all runs of a slice of an output."""
    spec = plan.spec
    slice_ = hashlib.sha256(f"{spec.output.address}\n{spec.slice}".encode()).hexdigest()
    plain = re.sub("[^a-z0-9]+", "-", spec.job.lower()).strip("-")[:24].strip("-")
    return "-".join(part for part in ("batchscore", plain, slice_[:16]) if part)
