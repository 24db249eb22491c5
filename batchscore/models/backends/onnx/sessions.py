"""Sessions of onnxruntime: a model's file, loaded to the device that was asked for."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime

from batchscore.errors import DeviceError, ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.onnx.model_file import OnnxFile
from batchscore.system.instructions import describe_instructions

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DRIVER = Path("/proc/driver/nvidia/gpus")
_NEWEST = re.compile(r"support for domain (\S+) is till opset (\d+)")
_NEWEST_FORM = re.compile(r"max supported IR version: (\d+)")
# A graph that returns its input, which shows whether a device can be used.
_IDENTITY = (
    b'\x08\x08:9\n\x12\n\x01x\x12\x01y"\x08Identity:\x00\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def onnxruntime_version() -> str:
    """Returns the version of onnxruntime."""
    return str(onnxruntime.__version__)


def open_session(model: str | bytes, device: str) -> Any:
    """Returns a session that computes on one thread, in the order of the graph.

    Args:
        model: Path of a file whose bytes are known, or its content.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceError: The device cannot be used.
    """
    session = onnxruntime.InferenceSession(model, _options(), providers=_providers(device))
    session.disable_fallback()
    if device != "cpu" and session.get_providers()[:1] != [_CUDA]:
        raise DeviceError(
            f"runtime.device {device!r}: onnxruntime {onnxruntime_version()} could not use its "
            f"{_CUDA}, and took {', '.join(session.get_providers())}; install CUDA and cuDNN of "
            "the versions that it needs, or set runtime.device to cpu"
        )
    return session


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # What fails is raised as well.
    return options


def _providers(device: str) -> Sequence[Any]:
    if device == "cpu":
        return [_CPU]
    number = int(device.partition(":")[2] or 0)
    # TensorFloat-32 keeps ten bits of a product's factors; a search for the quickest convolution
    # may choose another one, with other bits, in each process.
    options = {"device_id": number, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    return [(_CUDA, options), _CPU]


def resolve_device(asked: str) -> str:
    """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where onnxruntime can use one.

    Raises:
        DeviceError: A GPU was asked for that cannot be used.
    """
    if asked == "cpu":
        return asked
    if asked == "auto":
        return "cuda" if _why_not("cuda") is None else "cpu"
    why = _why_not(asked)
    if why is not None:
        raise DeviceError(
            f"runtime.device {asked!r}: {why}; run it where there is a GPU, with the package "
            "onnxruntime-gpu in place of onnxruntime, or set runtime.device to auto or cpu"
        )
    return asked


@functools.cache
def _why_not(device: str) -> str | None:
    """Returns why onnxruntime cannot use a GPU; None if it can."""
    if _CUDA not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime_version()} was built without CUDA"
    with suppress(Exception):  # What it finds of CUDA it loads itself, too.
        onnxruntime.preload_dlls()
    try:
        open_session(_IDENTITY, device)
    except DeviceError as error:
        return str(error).partition(": ")[2].partition(";")[0]
    except Exception as error:  # a driver raises what it likes
        return f"onnxruntime {onnxruntime_version()} cannot use it ({one_line(error, 200)})"
    return None


def describe_device(device: str) -> str:
    """Returns a device with what its bits depend on: the GPU's name, or the CPU's instructions."""
    if device == "cpu":
        return f"{device}, {describe_instructions()}"
    names = sorted({each for each in map(_gpu_name, _gpu_folders()) if each})
    return ", ".join([device, *names])


def visible_gpus(device: str) -> tuple[str, ...]:
    """Names the GPUs that workers may share out, as CUDA_VISIBLE_DEVICES does: one of `cuda:N`."""
    if device != "cuda":
        return (device,) if device.startswith("cuda") else ()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = listed.split(",") if listed else map(str, range(len(_gpu_folders())))
    return tuple(name.strip() for name in names)


def _gpu_folders() -> list[Path]:
    with suppress(OSError):
        return sorted(_DRIVER.iterdir())
    return []


def _gpu_name(folder: Path) -> str:
    with suppress(OSError):
        lines = (folder / "information").read_text(errors="replace").splitlines()
        return next((each.partition(":")[2].strip() for each in lines if "Model" in each), "")
    return ""


def load_session(path: Path, found: OnnxFile, device: str) -> Any:
    """Loads a file that was looked at; ModelError where onnxruntime cannot read it."""
    try:
        return open_session(str(path), device)
    except DeviceError:
        raise
    except Exception as error:  # its errors have no class in common
        raise ModelError(_unreadable(str(error), found)) from error


def _unreadable(text: str, found: OnnxFile) -> str:
    here = f"onnxruntime {onnxruntime_version()}"
    newest, form = _NEWEST.search(text), _NEWEST_FORM.search(text)
    if newest is not None:
        domain, known = newest[1], newest[2]
        asked = found.opsets.get("" if domain == "ai.onnx" else domain, 0)
        return (
            f"the model uses opset {asked} of {domain}, and {here} knows those up to {known}; "
            f"install a newer onnxruntime, or export the model with opset {known} or older"
        )
    if form is not None:
        return (
            f"the model is of IR version {found.ir_version}, and {here} knows those up to "
            f"{form[1]}; install a newer onnxruntime, or write the model with an older onnx"
        )
    said = text.rpartition("] : ")[2]
    return f"{here} cannot load it ({one_line(said, 300)}); restore the file, or export it again"
