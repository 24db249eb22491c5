"""The formats that are built in, in a module that imports nothing, for what runs before imports."""

from __future__ import annotations

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A backend of batchscore's own.

    Args:
        entry: Module and name, as an entry point has them.
        framework: The package that takes long to import.
    """

    entry: str
    framework: str


_TORCH = BuiltIn("batchscore.models.backends.torch.backend:BACKEND", "torch")
_XGBOOST = BuiltIn("batchscore.models.backends.xgboost.backend:BACKEND", "xgboost")
_LIGHTGBM = BuiltIn("batchscore.models.backends.lightgbm.backend:BACKEND", "lightgbm")
FORMATS = {"lightgbm": _LIGHTGBM, "pt": _TORCH, "safetensors": _TORCH, "xgboost": _XGBOOST}
"""Backends by the format of a model."""

ENDINGS = {".json": "xgboost", ".txt": "lightgbm", ".ubj": "xgboost"}
"""Formats of one file that says itself what it reads, by its ending."""


def format_of(path: str) -> str | None:
    """Returns the format of a file that describes itself, by its ending; None for any other."""
    return next((form for end, form in ENDINGS.items() if path.lower().endswith(end)), None)
