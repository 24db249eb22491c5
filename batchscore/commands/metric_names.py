"""The metrics that `run --metrics` writes: names by Prometheus's conventions, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

STATUSES = (
    *("published", "empty", "unchanged", "held", "failed", "interrupted", "invalid", "retry"),
    "submitted",
)
_VERDICTS = ("ok", "warn", "fail")
_ROWS = ("input", "filtered", "scored", "rejected", "quarantined", "reused")

Values = Iterable[tuple[Sequence[str], float]]
"""The values of a metric, each with those of its own labels."""
Document = Mapping[str, Any]


@dataclass(frozen=True)
class RunMetric:
    """A metric of a run.

    Args:
        name: Its name, without a counter's `_total`.
        meaning: What it says, for `# HELP` and the page.
        values: Takes the document that `run --json` prints; none where it does not tell.
        labels: Its labels next to `job` and `slice`.
        kept: Which runs set it: `always`, or `published` or `well` for those that published or
            ended well. Others keep the value that the file has.
        counts: Whether it counts runs, and goes on from the value that the file has.
    """

    name: str
    meaning: str
    values: Callable[[Document], Values]
    labels: tuple[str, ...] = ()
    kept: str = "always"
    counts: bool = False

    @property
    def exposed(self) -> str:
        """Its name as Prometheus shows it."""
        return f"{self.name}_total" if self.counts else self.name


def _one(value: Any) -> Values:
    return [] if value is None else [((), float(value))]


def _used(key: str) -> Callable[[Document], Values]:
    return lambda found: _one((found.get("usage") or {}).get(key))


def _moment(key: str) -> Callable[[Document], Values]:
    def values(found: Document) -> Values:
        text = found.get(key)
        return _one(datetime.fromisoformat(text).timestamp() if text else None)

    return values


def _published(found: Document) -> Values:
    released = (found.get("released") or {}).get("at")
    return _moment("at")({"at": found.get("published_at") or released or found.get("finished")})


def _state(states: Sequence[str], of: Callable[[Document], Any]) -> Callable[[Document], Values]:
    """Returns one value for each state, of which the one that holds is 1."""

    def values(found: Document) -> Values:
        known = of(found)
        return [] if known is None else [((each,), float(each == known)) for each in states]

    return values


def _mapping(key: str) -> Callable[[Document], Values]:
    return lambda found: [((k,), float(v)) for k, v in (found.get(key) or {}).items()]


def _rows(found: Document) -> Values:
    rows = found.get("rows")
    return [] if rows is None else [((kind,), float(rows[kind])) for kind in _ROWS]


def _checks(found: Document) -> Values:
    checks = found.get("checks")
    if checks is None:
        return []
    passed = sum(bool(each["passed"]) for each in checks)
    return [(("passed",), float(passed)), (("failed",), float(len(checks) - passed))]


_RUN = "batchscore_run"
METRICS = (
    RunMetric(
        f"{_RUN}_status",
        "1 for the status that the last run ended with, 0 for the others.",
        _state(STATUSES, lambda found: found.get("status")),
        ("status",),
    ),
    RunMetric(
        "batchscore_runs",
        "Runs by the status that they ended with, since the file was created.",
        lambda found: [((str(found["status"]),), 1.0)],
        ("status",),
        counts=True,
    ),
    RunMetric(
        f"{_RUN}_exit_code", "Exit code of the last run.", lambda f: _one(f.get("exit_code"))
    ),
    RunMetric(
        f"{_RUN}_start_timestamp_seconds",
        "When the last run started, in Unix time.",
        _moment("started"),
    ),
    RunMetric(
        f"{_RUN}_end_timestamp_seconds",
        "When the last run ended, in Unix time.",
        _moment("finished"),
    ),
    RunMetric(
        "batchscore_last_success_timestamp_seconds",
        "When a run last ended with 0, also with nothing to do, in Unix time.",
        _moment("finished"),
        kept="well",
    ),
    RunMetric(
        "batchscore_last_published_timestamp_seconds",
        "When what is published was published, in Unix time.",
        _published,
        kept="published",
    ),
    RunMetric(
        f"{_RUN}_duration_seconds",
        "Seconds from the last run's start to its end.",
        lambda found: _one(found.get("seconds")),
    ),
    RunMetric(
        f"{_RUN}_phase_duration_seconds",
        "Seconds of each phase of the last run.",
        _mapping("phases"),
        ("phase",),
    ),
    RunMetric(
        f"{_RUN}_stage_busy_seconds",
        "Busy seconds of each stage of the last run, over all workers.",
        _mapping("stage_seconds"),
        ("stage",),
    ),
    RunMetric(f"{_RUN}_rows", "Where the rows of the last run went.", _rows, ("outcome",)),
    RunMetric(
        f"{_RUN}_rejected_ratio",
        "Rejected rows among those that were to be scored.",
        _used("rejected_share"),
    ),
    RunMetric(
        f"{_RUN}_checks",
        "Checks of the last run, by whether it passed them.",
        _checks,
        ("result",),
    ),
    RunMetric(
        f"{_RUN}_drift_verdict",
        "1 for the verdict of drift, 0 for the others; absent if nothing was compared.",
        _state(_VERDICTS, lambda found: (found.get("drift") or {}).get("verdict")),
        ("verdict",),
    ),
    RunMetric(
        f"{_RUN}_cpu_seconds", "CPU time of all processes of the last run.", _used("cpu_seconds")
    ),
    RunMetric(
        f"{_RUN}_peak_memory_bytes",
        "Memory that the largest process held at its peak.",
        _used("peak_memory_bytes"),
    ),
    RunMetric(
        f"{_RUN}_total_memory_bytes",
        "The peaks of all processes, added up.",
        _used("total_memory_bytes"),
    ),
    RunMetric(f"{_RUN}_read_bytes", "Sizes of the shards that were read.", _used("read_bytes")),
    RunMetric(
        f"{_RUN}_written_bytes", "Sizes of the files that were written.", _used("written_bytes")
    ),
    RunMetric(
        f"{_RUN}_gpu_memory_bytes",
        "Memory of a GPU in use at most; absent without a GPU.",
        _used("gpu_memory_bytes"),
    ),
    RunMetric(
        f"{_RUN}_gpu_busy_ratio",
        "Share of the time in which the GPUs were at work; absent without a GPU.",
        _used("gpu_busy_share"),
    ),
    RunMetric(
        f"{_RUN}_slow",
        "1 if the last run took twice as long as the last runs like it, else 0.",
        lambda found: _one(float("slow" in found) if "usage" in found else None),
    ),
)
"""All metrics, in the order in which the file has them."""
