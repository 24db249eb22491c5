"""Beam's metrics of a pipeline, as the manifest lists them."""

from __future__ import annotations

from typing import Any

from batchscore.engines.protocol import Metrics


def listed_metrics(result: Any) -> Metrics:
    """Returns the counters and distributions of a pipeline's result, by step and name."""
    found = result.metrics().query()
    counters = [
        {"step": m.key.step, "name": m.key.metric.name, "value": m.result}
        for m in found["counters"]
    ]
    distributions = [
        {
            "step": m.key.step,
            "name": m.key.metric.name,
            "count": m.result.count,
            "sum": m.result.sum,
            "min": m.result.min,
            "max": m.result.max,
        }
        for m in found["distributions"]
    ]
    return sorted(counters + distributions, key=lambda m: (m["step"], m["name"]))
