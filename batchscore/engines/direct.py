"""The engine `direct`: this machine, in this process or on worker processes of its own."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.engines.background import Background
from batchscore.engines.beam_version import require_tested_beam
from batchscore.engines.flags import parse_flags
from batchscore.engines.protocol import Build, Handle, Metrics
from batchscore.engines.watched import Watched
from batchscore.engines.workers import start_server
from batchscore.job import UserFunction
from batchscore.job.sections import Runtime
from batchscore.models.backends.registry import backend_of
from batchscore.models.process.current import host_for
from batchscore.models.process.host import Host
from batchscore.plan import Plan, share_out
from batchscore.units.unit import Unit

_OURS = {
    "direct_num_workers": "runtime.workers",
    "direct_running_mode": "runtime.workers",
    "runner": "runtime.engine",
}


class DirectEngine(Watched):
    """Runs pipelines on this machine."""

    name = "direct"
    experimental = False
    ships = False
    retries = False
    start_seconds = 0.0

    def section_flags(self, runtime: Runtime) -> list[str]:
        """It has no section."""
        return []

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Validates Beam options; see `Engine.parse_flags`."""
        parse_flags(flags, _OURS, self.name, ("DirectOptions",))
        from batchscore.engines import local  # noqa: F401 - what a submission needs

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with workers that share the cores or GPUs of this machine."""
        return share_out(plan, tuple(units))

    def start_workers(self, plan: Plan) -> None:
        """Starts the server that several workers are forked from."""
        require_tested_beam()
        if plan.workers > 1:
            start_server(preloads(plan))

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Starts the pipeline on a thread."""
        self.parse_flags(flags)

        def work(handle: Background) -> Metrics:
            from batchscore.engines import local

            host = _host_of(plan)
            return local.run(build, flags, plan.workers, handle.note_lost, plan.gpus, host)

        handle = Background(work)
        handle.start()
        return handle


def preloads(plan: Plan) -> list[str]:
    """Returns the modules that each of several workers would import for this plan."""
    scoring, found = plan.spec.scoring, list[str]()
    if not plan.spec.execution.model_process:
        found += backend_of(scoring.model.format).preloads
    # Arrow imports it for the literals of a filter, and for what most functions do.
    has_functions = scoring.preprocess or any(
        isinstance(step, UserFunction) for step in scoring.postprocess
    )
    if scoring.source.filters or has_functions:
        found.append("batchscore.engines.preloaded_pandas")
    return found


def _host_of(plan: Plan) -> Host | None:
    """Returns what has the model's process, where the model has one."""
    execution = plan.spec.execution
    if not execution.model_process:
        return None
    return host_for(plan.spec.scoring.model.format, execution.model_timeout_s)
