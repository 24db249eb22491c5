"""Why a job of Dataflow did not end well, and what helps, by the service's own words."""

from __future__ import annotations

import re

from batchscore.messages.wording import one_line

_REMEDIES = (
    (
        r"zone_resource_pool_exhausted|stockout|not have enough resources",
        "run again later, or choose another runtime.dataflow.machine_type, accelerator or region",
    ),
    (r"quota", "lower runtime.dataflow.max_vms, or ask for more quota, and run again"),
    (
        r"err_?image_?pull|image_?pull_?back_?off|pull(ing)? (the )?image|manifest unknown",
        "correct runtime.dataflow.image, let runtime.dataflow.service_account pull it, and run "
        "again",
    ),
    (
        r"out of memory|oom",
        "choose a runtime.dataflow.machine_type with more memory, or set "
        "runtime.dataflow.processes: vm, and run again",
    ),
    (
        r"subnetwork|network",
        "correct runtime.dataflow.subnetwork and public_ips: without public addresses it needs "
        "Private Google Access; then run again",
    ),
    (
        r"permission|denied|forbidden|\b403\b",
        "grant runtime.dataflow.service_account the role Dataflow Worker and access to the "
        "buckets, and run again",
    ),
)
_STATES = {
    "CANCELLED": "was cancelled at Dataflow, and not by batchscore",
    "DRAINED": "was drained at Dataflow, and not by batchscore",
    "UPDATED": "was replaced by another one at Dataflow, and not by batchscore",
}


def ended_badly(job: str, state: str, said: str) -> str:
    """Returns a message about a job that has ended, and not well.

    Args:
        job: Dataflow's id of the job.
        state: Dataflow's name of its state.
        said: What Dataflow says of its failure.
    """
    what = f"engine dataflow: job {job}"
    if how := _STATES.get(state.removeprefix("JOB_STATE_")):
        return f"{what} {how}; nothing was published: run again, which resumes finished units"
    return f"{what} failed: {one_line(said, 300) or 'Dataflow does not say why'}; {_remedy(said)}"


def _remedy(said: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, said, re.IGNORECASE):
            return remedy
    return "look at the job's log in the console, and run again, which resumes finished units"
