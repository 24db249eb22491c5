"""Beam's metrics of a pipeline, as the manifest lists them."""

from __future__ import annotations

import re
from typing import Any

from batchscore.engines.protocol import Metrics

_BEAMS = "beam"
# A job server names a step by an id: the steps to it, and its number in the pipeline.
_ID = re.compile(r"ref_AppliedPTransform_(.+)_[0-9]+")


def listed_metrics(result: Any) -> Metrics:
    """Returns the counters and distributions of a pipeline's result, by step and name.

    Beam's own measurements are left out, of which some engines return hundreds.
    """
    found = result.metrics().query()
    counters = [
        {"step": _step(m.key.step), "name": m.key.metric.name, "value": m.result}
        for m in found["counters"]
        if m.key.metric.namespace != _BEAMS
    ]
    distributions = [
        {
            "step": _step(m.key.step),
            "name": m.key.metric.name,
            "count": m.result.count,
            "sum": m.result.sum,
            "min": m.result.min,
            "max": m.result.max,
        }
        for m in found["distributions"]
        if m.key.metric.namespace != _BEAMS
    ]
    return sorted(counters + distributions, key=lambda m: (m["step"], m["name"]))


def _step(name: str) -> str:
    """Returns a step's name as a pipeline spells it, which no step of ours has a hyphen in."""
    found = _ID.fullmatch(name)
    return found[1].replace("-", "/") if found else name
