"""What an engine has to do, and what a run asks of a pipeline that an engine works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from batchscore.job.sections import Runtime
from batchscore.plan import Plan
from batchscore.runs.submission import JobState, Submission
from batchscore.units.unit import Unit

if TYPE_CHECKING:
    import apache_beam as beam

Build = Callable[["beam.Pipeline"], None]
"""Adds the steps of a run to a pipeline."""
Metrics = list[dict[str, Any]]
"""Beam's counters and distributions, each with its step and name."""


class Handle(Protocol):
    """A pipeline under way.

    Attributes:
        metrics: Beam's metrics, once the pipeline has ended well.
        error: What ended the pipeline, or None.
        lost: Why a worker process ended too early, or None. The pipeline may then never end.
        job: The engine's id of the job, once it goes on without its launcher; empty until then.
        unheard: Why nobody says any more how the pipeline is, or None. `error` is set, too, and the
            job may go on.
    """

    metrics: Metrics
    error: BaseException | None
    lost: str | None
    job: str
    unheard: str | None

    def is_alive(self) -> bool:
        """Tells whether the pipeline has not ended yet."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for the end, for so many seconds at most."""

    def cancel(self) -> None:
        """Asks the engine to end the pipeline, and does not wait for it."""

    def trouble(self) -> str | None:
        """Returns what the engine met and tries again, in its own words; None if it is well."""


class Engine(Protocol):
    """Runs pipelines. The module that defines an engine imports Beam only inside its methods."""

    @property
    def name(self) -> str:
        """The value of `runtime.engine` that selects it."""

    @property
    def experimental(self) -> bool:
        """Whether a run warns that the engine may still change."""

    @property
    def ships(self) -> bool:
        """Whether workers get code and model by the output, since they share nothing else.

        An engine of another package that does not say so does not ship.
        """

    @property
    def retries(self) -> bool:
        """Whether the engine starts work that failed again; a run ends it if that cannot help.

        An engine of another package that does not say so is left to itself.
        """

    @property
    def start_seconds(self) -> float:
        """How long machines take to start for a job; 0 if its workers are there before.

        Where it is more, `check` starts none to try a job on them. An engine of another package
        that does not say so has its workers.
        """

    def section_flags(self, runtime: Runtime) -> list[str]:
        """Returns the Beam options that the engine's own section of the job file stands for."""

    def parse_flags(self, flags: Sequence[str]) -> None:
        """Imports what a submission needs, and validates Beam options.

        Raises:
            InvalidError: An option is unknown, malformed or missing, or Beam cannot be used.
        """

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        """Returns the plan with the number of workers, and the threads of each.

        Raises:
            InvalidError: The workers cannot reach an address of the job.
        """

    def start_workers(self, plan: Plan) -> None:
        """Starts, while the model is loaded, what takes seconds; returns at once."""

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        """Starts the pipeline that `build` makes, and returns without waiting for its end."""

    def submission(self, plan: Plan, flags: Sequence[str]) -> Submission | None:
        """Returns how the plan's job will be found, before it has an id.

        None if the job ends with its launcher, as it does at an engine of another package that
        has no such method.
        """

    def job_state(self, submission: Submission) -> JobState:
        """Asks for the state of a job that any launcher submitted; raises nothing."""

    def job_error(self, submission: Submission) -> str:
        """Asks for what ended a job, as a trace; empty if that is not known. Raises nothing."""

    def cancel(self, submission: Submission) -> bool:
        """Asks for the end of a job, and does not wait for it; False if that cannot be asked."""
