"""The timings that a run reports: their names, units and meaning, and which stage limits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One figure of a run."""

    name: str
    unit: str
    meaning: str


STAGES = (
    Measure("read", "s", "decoding row groups, casting, filtering; on a thread that reads ahead"),
    Measure("preprocess", "s", "source columns to model inputs"),
    Measure("infer", "s", "tiles through the network, and the check that scores are finite"),
    Measure("postprocess", "s", "model outputs to scores"),
    Measure("profile", "s", "statistics of every column; on the thread that writes behind"),
    Measure("write", "s", "partitioning, encoding, compressing, hashing, writing"),
)
"""Busy seconds, added up over all workers; stages on different threads overlap."""

THREADS = (("read",), ("preprocess", "infer", "postprocess"), ("profile", "write"))
"""Stages that share a thread of a worker."""


def limiting_stage(seconds: Mapping[str, float], wall: float, workers: int) -> str:
    """Names what to speed up first: the busiest stage of the busiest thread, or `start-up`.

    Args:
        seconds: busy seconds by stage, over all workers.
        wall: seconds from start to end, in which each worker's busiest thread did not even work
            half of the time where start-up is named.
    """
    loads = [sum(seconds.get(stage, 0.0) for stage in stages) for stages in THREADS]
    if max(loads) < wall * workers / 2:
        return "start-up"
    busiest = max(THREADS, key=lambda stages: sum(seconds.get(stage, 0.0) for stage in stages))
    return max(busiest, key=lambda stage: seconds.get(stage, 0.0))
