"""Test what a process used, and what a GPU's driver tells."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import psutil
import pytest

from batchscore.system.gpu import GpuWatch
from batchscore.system.usage import Usage, join, used_by, used_by_me


def test_what_this_process_used_is_what_the_system_says() -> None:
    """CPU time and the peak of its memory."""
    found, process = used_by_me(), psutil.Process()
    assert found.peak_bytes >= process.memory_info().rss * 0.9
    times = process.cpu_times()
    known = times.user + times.system + times.children_user + times.children_system
    assert found.cpu_s == pytest.approx(known, abs=0.5)


def test_what_another_process_used_is_read_while_it_lives() -> None:
    """Nothing is known of one that is gone."""
    program = "import time\nx = bytearray(64 << 20)\nend = time.process_time() + 0.2\n"
    program += "while time.process_time() < end: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = used_by(process.pid)
        process.communicate(b"\n")
    assert found.cpu_s >= 0.15
    assert found.peak_bytes > 64 << 20
    assert used_by(process.pid) == Usage()


def test_processes_are_added_up() -> None:
    """The largest peak, and the sum of all."""
    found = join([Usage(1.0, 5, 6), Usage(2.0, 7, 7)])
    assert found == Usage(3.0, 7, 13)
    assert found.since(1.0) == Usage(2.0, 7, 13)
    assert join([]) == Usage()


class Driver:
    """Answers as NVIDIA's library does, of two GPUs."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.asked, self.busy = status, list[Any](), iter([30, 50, 70])

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, _: Any) -> int:  # noqa: N802
        self.asked.append(number)
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: bytes, _: Any) -> int:  # noqa: N802
        self.asked.append(name)
        return 0

    def nvmlDeviceGetUtilizationRates(self, _: Any, rates: Any) -> int:  # noqa: N802
        ctypes.cast(rates, ctypes.POINTER(ctypes.c_uint))[0] = next(self.busy)
        return self.status

    def nvmlDeviceGetMemoryInfo(self, _: Any, memory: Any) -> int:  # noqa: N802
        ctypes.cast(memory, ctypes.POINTER(ctypes.c_ulonglong))[2] = 1_000 * len(self.asked)
        return 0


@pytest.mark.parametrize(
    ("device", "visible", "asked"),
    [
        ("cuda", "", 0),
        ("cuda:1", "", 1),
        ("cuda:1", "3,5", 5),
        ("cuda", "GPU-c0ffee", b"GPU-c0ffee"),
    ],
)
def test_a_gpu_is_asked_by_the_name_that_its_driver_knows(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str, asked: Any
) -> None:
    """CUDA counts the visible ones, its driver all of them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    watch = GpuWatch(device, Driver())
    for _ in range(3):
        watch.look()
    assert watch.library.asked == [asked] * 3
    assert watch.to_json() == {"gpu_memory_bytes": 3_000, "gpu_busy_share": 0.5}


def test_nothing_is_said_of_a_gpu_that_does_not_tell() -> None:
    """As where it is divided (MIG), and on a CPU."""
    for watch in (GpuWatch("cuda", Driver(status=3)), GpuWatch("cpu", Driver())):
        watch.look()
        assert watch.to_json() == {}
