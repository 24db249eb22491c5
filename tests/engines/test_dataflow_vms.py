"""What a VM of Dataflow runs: processes, threads and models, by machine type and model."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.engines.dataflow_vms import Machine, arrange, count_vms, machine_of
from batchscore.errors import InvalidError
from batchscore.job.dataflow_section import Dataflow
from batchscore.messages.wording import counted
from tests.pages import page

GB = 10**9


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("n1-standard-4", Machine(4, 15.0)),
        ("n1-highmem-8", Machine(8, 52.0)),
        ("e2-standard-2", Machine(2, 8.0)),
        ("g2-standard-8", Machine(8, 32.0)),
        ("a2-highgpu-1g", Machine(12, 85.0)),
        ("n2-custom-6-20480", Machine(6, 20.0)),
        ("custom-2-7680", Machine(2, 7.5)),
        ("q9-huge-4", None),
        ("n1-standard", None),
    ],
)
def test_a_machine_type_says_what_it_has(name: str, machine: Machine | None) -> None:
    """By Google's published tables."""
    assert machine_of(name) == machine


@pytest.mark.parametrize(
    ("section", "model_gb", "expected"),
    [
        ({}, 0.0, ("core", 4, 1)),
        ({}, 1.5, ("vm", 1, 4)),
        ({"processes": "vm"}, 0.0, ("vm", 1, 4)),
        ({"accelerator": "nvidia-tesla-t4"}, 0.0, ("vm", 1, 4)),
        ({"machine_type": "n1-highmem-8"}, 1.5, ("core", 8, 1)),
        ({"machine_type": "n1-highcpu-4"}, 0.0, ("vm", 1, 4)),
    ],
)
def test_a_vm_has_a_process_for_each_vcpu_where_memory_suffices(
    section: dict[str, Any], model_gb: float, expected: tuple[str, int, int]
) -> None:
    """Else, and with a GPU, it has one."""
    found = arrange(Dataflow(**section), int(model_gb * GB))
    assert (found.per, found.processes, found.threads) == expected


@pytest.mark.parametrize(
    ("section", "model_gb", "words"),
    [
        ({}, 20.0, "1 process with a model each take about 41.0 GB"),
        ({"processes": "core"}, 2.0, "or set runtime.dataflow.processes: vm"),
        ({"processes": "core", "accelerator": "nvidia-l4"}, 0.0, "share a GPU"),
        ({"machine_type": "x1-odd-2"}, 0.0, "vCPUs and memory are not known"),
    ],
)
def test_what_does_not_fit_is_an_error(
    section: dict[str, Any], model_gb: float, words: str
) -> None:
    """It names the memory that is needed and the key to change."""
    with pytest.raises(InvalidError) as caught:
        arrange(Dataflow(**section), int(model_gb * GB))
    assert words in str(caught.value)


@given(st.integers(1, 64), st.integers(0, 400), st.integers(1, 50))
def test_no_vm_is_without_a_unit(processes: int, units: int, most: int) -> None:
    """There are as many as the units keep busy, at most those allowed, and one at least."""
    found = count_vms(Dataflow(max_vms=most), processes, units)
    assert 1 <= found <= most
    assert found == 1 or (found - 1) * processes < units
    assert found == most or found * processes >= units


def test_the_table_of_machine_types_is_what_is_arranged() -> None:
    """Processes, threads, copies of the model and memory of docs/dataflow.md are those of a job."""
    row = r"^\| `([\w-]+)`(?: with `([\w-]+)`)? \| (\d+), (\d+) GB \| (.+) \| (.+) \|$"
    found = re.findall(row, page("docs/dataflow.md"), re.M)
    assert len(found) == 4
    for machine, gpu, cpus, memory, *cells in found:
        assert machine_of(machine) == Machine(int(cpus), float(memory))
        section = Dataflow(machine_type=machine, accelerator=gpu or None)
        for cell, model_bytes in zip(cells, (GB // 10, 2 * GB), strict=True):
            vm = arrange(section, model_bytes)
            threads = f" of {counted(vm.threads, 'thread')}"
            copies = counted(vm.processes, "copy")
            expected = (
                f"{counted(vm.processes, 'process')}{threads}, {copies}, {vm.needs_gb:.1f} GB"
            )
            assert cell == expected, machine
