"""What runs on a VM of Dataflow: how many Python processes, with how many threads and models."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from batchscore.errors import InvalidError
from batchscore.job.dataflow_section import Dataflow
from batchscore.messages.wording import counted
from batchscore.plan import Plan
from batchscore.storage.store import Store

PROCESS_GB = 1.0
"""Memory of a process without its model: Python, Beam, a framework and blocks of rows; measured."""
_MODEL_COPIES = 2.0
"""A model takes its files' size in memory, and as much once more while it is loaded."""
_USABLE = 0.8
"""Of a VM's memory. The rest is the system's, Dataflow's own processes', and a margin."""
_GB = 1e9

_GB_PER_CPU = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0, "ultramem": 24.0, "megamem": 14.9}
_OTHERS = {
    ("n1", "standard"): 3.75,
    ("n1", "highmem"): 6.5,
    ("n1", "highcpu"): 0.9,
    ("c3", "highcpu"): 2.0,
    ("c4", "highcpu"): 2.0,
    ("c4", "standard"): 3.75,
    ("c4", "highmem"): 7.75,
}
_GPUS = {"a2-highgpu": (12, 85.0), "a2-ultragpu": (12, 170.0)}
"""vCPUs and gigabytes for each GPU that the name counts."""
_SIZED = re.compile(r"([a-z][a-z0-9]*)-([a-z]+)-([0-9]+)")
_CUSTOM = re.compile(r"(?:[a-z][a-z0-9]*-)?custom-([0-9]+)-([0-9]+)(?:-ext)?")
_WITH_GPUS = re.compile(r"(a2-[a-z]+)-([0-9]+)g")


@dataclass(frozen=True)
class Machine:
    """A machine type: its vCPUs and gigabytes of memory."""

    cpus: int
    memory_gb: float


@dataclass(frozen=True)
class Arrangement:
    """What a VM runs.

    Args:
        per: A process for each vCPU, or one for the VM.
        processes: Python processes of a VM; each has a copy of the model.
        threads: Of each process, for the network and for decoding.
        needs_gb: Memory that they take together.
        why: Why so many.
    """

    per: Literal["core", "vm"]
    processes: int
    threads: int
    needs_gb: float
    why: str

    def flags(self) -> list[str]:
        """Returns Beam's options for it: one unit at a time for each process."""
        experiment = "use" if self.per == "core" else "no_use"
        return [
            f"--experiments={experiment}_multiple_sdk_containers",
            "--number_of_worker_harness_threads=1",
        ]

    def __str__(self) -> str:
        models = "a model" if self.processes == 1 else "a model each"
        return (
            f"{counted(self.processes, 'process')} with {counted(self.threads, 'thread')} and "
            f"{models}, about {self.needs_gb:.1f} GB; {self.why}"
        )


def machine_of(name: str) -> Machine | None:
    """Returns what a machine type has; None if its name does not tell."""
    if found := _CUSTOM.fullmatch(name):
        return Machine(int(found[1]), int(found[2]) / 1024)
    if found := _WITH_GPUS.fullmatch(name):
        cpus, memory = _GPUS.get(found[1], (0, 0.0))
        return Machine(cpus * int(found[2]), memory * int(found[2])) if cpus else None
    if not (found := _SIZED.fullmatch(name)) or found[2] not in _GB_PER_CPU:
        return None
    cpus = int(found[3])
    return Machine(cpus, cpus * _OTHERS.get((found[1], found[2]), _GB_PER_CPU[found[2]]))


def arrange(section: Dataflow, model_bytes: int) -> Arrangement:
    """Returns what a VM runs.

    Args:
        section: The job's `runtime.dataflow`.
        model_bytes: Size of the model's weights.

    Raises:
        InvalidError: The machine type is not known, or has too little memory.
    """
    machine = machine_of(section.machine_type)
    if machine is None:
        raise InvalidError(
            f"runtime.dataflow.machine_type {section.machine_type}: its vCPUs and memory are not "
            "known to batchscore; choose one such as n1-standard-4, n2-highmem-8, g2-standard-4 "
            "or n2-custom-4-16384"
        )
    one_gb = PROCESS_GB + _MODEL_COPIES * model_bytes / _GB
    room_gb = _USABLE * machine.memory_gb
    per, why = _choose(section, machine, one_gb, room_gb)
    processes, threads = (machine.cpus, 1) if per == "core" else (1, machine.cpus)
    needs_gb = processes * one_gb
    if needs_gb > room_gb:
        raise InvalidError(
            f"runtime.dataflow.machine_type {section.machine_type}: "
            f"{counted(processes, 'process')} with a model each take about {needs_gb:.1f} GB, and "
            f"{room_gb:.1f} of its {machine.memory_gb:.1f} GB may be used; choose a type with more "
            "memory" + (", or set runtime.dataflow.processes: vm" if per == "core" else "")
        )
    return Arrangement(per, processes, threads, needs_gb, why)


def _choose(
    section: Dataflow, machine: Machine, one_gb: float, room_gb: float
) -> tuple[Literal["core", "vm"], str]:
    if section.accelerator is not None:
        if section.processes == "core":
            raise InvalidError(
                "runtime.dataflow.processes core: processes that share a GPU would each keep a "
                "model on it, and wait for one another; set it to auto"
            )
        return "vm", "since the GPU has one owner"
    if section.processes != "auto":
        return section.processes, "as asked for"
    if machine.cpus * one_gb <= room_gb:
        return "core", "one for each vCPU, for which the memory suffices"
    return "vm", f"since {machine.cpus} processes would take {machine.cpus * one_gb:.1f} GB"


def arranged(plan: Plan) -> Arrangement:
    """Returns what a VM runs for a plan; see `arrange`."""
    model = plan.spec.scoring.model
    found = Store(model.folder).find([model.weights])
    return arrange(plan.loaded.job.runtime.dataflow, sum(file.bytes for file in found.values()))


def count_vms(section: Dataflow, processes: int, units: int) -> int:
    """Returns the most VMs that a job may have: no more than its units keep busy."""
    return max(1, section.vms or 1, min(section.max_vms, math.ceil(units / processes)))
