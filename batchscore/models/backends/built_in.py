"""The formats that are built in, in a module that imports nothing, for what runs before imports."""

from __future__ import annotations

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A backend of batchscore's own.

    Args:
        entry: Module and name, as an entry point has them.
        framework: The package that takes long to import.
        saver: The module whose SAVER writes its models to a folder.
        others: Further packages, or modules of one, whose objects are its models.
    """

    entry: str
    framework: str
    saver: str
    others: tuple[str, ...] = ()


_ROOM = "batchscore.models.backends"
_TORCH = BuiltIn(f"{_ROOM}.torch.backend:BACKEND", "torch", f"{_ROOM}.torch.saver")
_XGBOOST = BuiltIn(f"{_ROOM}.xgboost.backend:BACKEND", "xgboost", f"{_ROOM}.xgboost.save")
_LIGHTGBM = BuiltIn(f"{_ROOM}.lightgbm.backend:BACKEND", "lightgbm", f"{_ROOM}.lightgbm.save")
_ONNX = BuiltIn(f"{_ROOM}.onnx.backend:BACKEND", "onnxruntime", f"{_ROOM}.onnx.save", ("onnx",))
_SKLEARN = BuiltIn(f"{_ROOM}.sklearn.backend:BACKEND", "sklearn", f"{_ROOM}.sklearn.save")
_KERAS = BuiltIn(f"{_ROOM}.keras.backend:BACKEND", "keras", f"{_ROOM}.keras.save")
_CATBOOST = BuiltIn(f"{_ROOM}.catboost.backend:BACKEND", "catboost", f"{_ROOM}.catboost.save")
_EXPORTED = BuiltIn(
    f"{_ROOM}.torch.exported:BACKEND",
    "torch",
    f"{_ROOM}.torch.exported_saver",
    ("torch.export",),
)
# Keras comes before torch: its models are modules of torch as well.
FORMATS = {
    "catboost": _CATBOOST,
    "keras": _KERAS,
    "lightgbm": _LIGHTGBM,
    "onnx": _ONNX,
    "pt": _TORCH,
    "pt2": _EXPORTED,
    "safetensors": _TORCH,
    "sklearn": _SKLEARN,
    "xgboost": _XGBOOST,
}
"""Backends by the format of a model."""

ENDINGS = {
    ".cbm": "catboost",
    ".h5": "keras",
    ".json": "xgboost",
    ".keras": "keras",
    ".onnx": "onnx",
    ".pt2": "pt2",
    ".skops": "sklearn",
    ".txt": "lightgbm",
    ".ubj": "xgboost",
}
"""Formats of one file that says itself what it reads, by its ending."""


def format_of(path: str) -> str | None:
    """Returns the format of a file that describes itself, by its ending; None for any other."""
    return next((form for end, form in ENDINGS.items() if path.lower().endswith(end)), None)
