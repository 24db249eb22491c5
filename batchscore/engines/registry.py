"""Engines by name: those of batchscore, and those that other packages offer as entry points."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from batchscore.engines.protocol import Build, Engine, Handle
from batchscore.errors import FailedError, JobFileError, naming_package
from batchscore.job.sections import Runtime
from batchscore.plan import Plan
from batchscore.runs.submission import JobState, Submission
from batchscore.units.unit import Unit

GROUP = "batchscore.engines"
"""Entry points of this group name an engine: an object with the methods of `Engine`."""
_BUILT_IN = {
    "direct": "batchscore.engines.direct:DirectEngine",
    "flink": "batchscore.engines.flink:FlinkEngine",
    "prism": "batchscore.engines.job_server:prism",
    "spark": "batchscore.engines.job_server:spark",
    "dataflow": "batchscore.engines.dataflow:DataflowEngine",
}


_MEMBERS = ("name", "experimental", "parse_flags", "place", "start_workers", "submit")


def find_engine(name: str) -> Engine:
    """Returns an engine by its name in the job file.

    Raises:
        JobFileError: No installed package offers it, or its package cannot be imported.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(Engine, getattr(import_module(module), attribute)())
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        known = ", ".join([*_BUILT_IN, *sorted(offered)])
        raise JobFileError(
            f"runtime.engine: expected one of {known}, found {name!r}; correct the name, or "
            f"install the package that offers it (entry point group {GROUP})"
        )
    return _load(offered[name])


def _load(point: EntryPoint) -> Engine:
    try:
        engine = point.load()()
    except Exception as error:
        raise JobFileError(
            f"runtime.engine {point.name}: {point.value} cannot be loaded: "
            f"{type(error).__name__}: {error}; repair or remove the package that offers it"
        ) from error
    missing = [name for name in _MEMBERS if not hasattr(engine, name)]
    if missing:
        raise JobFileError(
            f"runtime.engine {point.name}: {point.value} is not an engine: it lacks "
            f"{', '.join(missing)}; repair or upgrade the package that offers it"
        )
    return _Offered(cast(Engine, engine), point.value)


@dataclass
class _Offered:
    """An engine of another package; where it fails, the error names it and not batchscore.

    Args:
        engine: What the package offers.
        value: The entry point's value.
    """

    engine: Engine
    value: str

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def experimental(self) -> bool:
        return self.engine.experimental

    @property
    def ships(self) -> bool:
        return bool(getattr(self.engine, "ships", False))

    @property
    def retries(self) -> bool:
        return bool(getattr(self.engine, "retries", False))

    @property
    def start_seconds(self) -> float:
        return float(getattr(self.engine, "start_seconds", 0.0))

    def section_flags(self, runtime: Runtime) -> list[str]:
        # Only engines of batchscore have a section in the job file.
        return []

    def parse_flags(self, flags: Sequence[str]) -> None:
        with self._naming("parse_flags"):
            self.engine.parse_flags(flags)

    def place(self, plan: Plan, units: Sequence[Unit]) -> Plan:
        with self._naming("place"):
            return self.engine.place(plan, units)

    def start_workers(self, plan: Plan) -> None:
        with self._naming("start_workers"):
            self.engine.start_workers(plan)

    def submit(self, build: Build, plan: Plan, flags: Sequence[str]) -> Handle:
        with self._naming("submit"):
            return self.engine.submit(build, plan, flags)

    def submission(self, plan: Plan, flags: Sequence[str]) -> Submission | None:
        if not hasattr(self.engine, "submission"):
            return None
        with self._naming("submission"):
            return self.engine.submission(plan, flags)

    def job_state(self, submission: Submission) -> JobState:
        with suppress(Exception):  # a package that fails tells nothing
            return self.engine.job_state(submission)
        return "unknown"

    def job_error(self, submission: Submission) -> str:
        with suppress(Exception):
            return self.engine.job_error(submission)
        return ""

    def cancel(self, submission: Submission) -> bool:
        with suppress(Exception):
            return self.engine.cancel(submission)
        return False

    def _naming(self, method: str) -> AbstractContextManager[None]:
        return naming_package(
            FailedError,
            f"runtime.engine {self.name}: {method} of {self.value}",
            "repair or upgrade the package that offers it, or choose another engine",
        )
