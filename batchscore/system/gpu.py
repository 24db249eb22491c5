"""How busy GPUs are and how much of their memory is used, by NVIDIA's own library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_DONE = 0


class _Rates(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


@cache
def _opened() -> Any:
    """Returns the library; None where there is none, or no driver."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        return library if library.nvmlInit_v2() == _DONE else None
    except (OSError, AttributeError):
        return None


@dataclass
class GpuWatch:
    """Looks at GPUs again and again, and keeps what it saw.

    Args:
        device: As jobs name it: `cuda`, `cuda:1`; on `cpu` nothing is looked at.
        library: Replaces NVIDIA's own, which is used by default.

    Attributes:
        peak_bytes: Memory in use at most, on one of them, whoever used it.
    """

    device: str
    library: Any = None
    peak_bytes: int = 0
    _shares: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Notes how busy the GPUs were since the last look, about."""
        if not self.device.startswith("cuda"):
            return
        library = self.library or _opened()
        found = [] if library is None else [_seen(library, name) for name in _names(self.device)]
        known = [each for each in found if each is not None]
        if known:
            self.peak_bytes = max(self.peak_bytes, *(used for used, _ in known))
            self._shares.append(sum(share for _, share in known) / len(known))

    def to_json(self) -> dict[str, Any]:
        """Returns what was seen as a manifest's `usage` has it; empty if nothing was."""
        share = self.busy_share
        if share is None:
            return {}
        return {"gpu_memory_bytes": self.peak_bytes, "gpu_busy_share": round(share, 4)}

    @property
    def busy_share(self) -> float | None:
        """The share of the time in which a GPU was at work; None if nobody could tell."""
        return sum(self._shares) / len(self._shares) if self._shares else None


def _names(device: str) -> Sequence[str]:
    """Returns the driver's names of the GPUs of a device: numbers, or `GPU-…`."""
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    number = device.partition(":")[2]
    if not number:
        return visible or ["0"]
    place = int(number)
    return [visible[place]] if place < len(visible) else [number]


def _seen(library: Any, name: str) -> tuple[int, float] | None:
    """Returns memory in use and the busy share of a GPU; None if the driver does not tell."""
    handle, rates, memory = ctypes.c_void_p(), _Rates(), _Memory()
    if name.isdigit():
        found = library.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
    else:
        found = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    answered = (
        found == _DONE
        and library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == _DONE
        and library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == _DONE
    )
    return (int(memory.used), rates.gpu / 100) if answered else None
