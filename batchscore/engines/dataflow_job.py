"""A run as Dataflow takes it: a pipeline that is put into a bucket, and a request that names it.

Beam describes both; it neither stages nor submits anything here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.engines.beam_private import dataflow_description, dataflow_job
from batchscore.engines.dataflow_template import DESCRIPTION, TemplateLaunch
from batchscore.engines.protocol import Build, Metrics
from batchscore.storage.store import Store
from batchscore.system.beam_import import beam

PIPELINE = "pipeline.pb"
"""Dataflow's name of a pipeline in its folder."""
_BEAMS = "beam"


@dataclass(frozen=True)
class JobRequest:
    """What Dataflow is sent.

    Args:
        body: Of the request that creates the job.
        folder: Where the pipeline is put.
        pipeline: Its bytes.
        steps: The names of its steps, by their ids.
    """

    body: dict[str, Any]
    folder: str
    pipeline: bytes
    steps: Mapping[str, str]

    def stage(self) -> None:
        """Puts the pipeline where the request says."""
        Store(self.folder).write(PIPELINE, self.pipeline, flush=False)

    def describe(self, launch: TemplateLaunch) -> None:
        """Puts the request where Dataflow's launcher of flex templates looks for it."""
        body = json.dumps(self.body).encode()
        Store(launch.folder).write(DESCRIPTION, body, flush=False)


def describe_job(build: Build, flags: Sequence[str]) -> JobRequest:
    """Returns what Dataflow has to be sent for a pipeline; nothing is sent."""
    runner, options = dataflow_job(flags)
    pipeline = beam.Pipeline(runner=runner, options=options)
    build(pipeline)
    job = runner.run_pipeline(pipeline, options).job
    graph = job.proto_pipeline
    content = graph.SerializeToString(deterministic=True)
    folder = job.google_cloud_options.staging_location
    digest = hashlib.sha256(content).hexdigest()
    body = dataflow_description(job, f"{folder}/{PIPELINE}", digest)
    steps = {key: each.unique_name for key, each in graph.components.transforms.items()}
    return JobRequest(json.loads(body), folder, content, steps)


def listed_updates(updates: Sequence[Mapping[str, Any]], steps: Mapping[str, str]) -> Metrics:
    """Returns the counters and distributions of Dataflow's metrics, as the manifest lists them."""
    found: Metrics = []
    for update in updates:
        name = update.get("name", {})
        context = name.get("context", {})
        # Dataflow also lists what is not committed yet, and what it counts itself.
        if name.get("origin") != "user" or "tentative" in context:
            continue
        if context.get("namespace") == _BEAMS:
            continue
        step = str(context.get("step", ""))
        where = {"step": steps.get(step, step), "name": str(name.get("name", ""))}
        if "distribution" in update:
            parts = ("count", "sum", "min", "max")
            found.append({**where, **{part: int(update["distribution"][part]) for part in parts}})
        elif "scalar" in update:
            found.append({**where, "value": int(update["scalar"])})
    return sorted(found, key=lambda metric: (metric["step"], metric["name"]))
